"""Tasks on the executors: one Spark task each, results in order."""

from __future__ import annotations

import gc
import zipimport
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_tasks(spark: SparkSession, tasks: list[Any], function: Callable[[int, int, Any], Any]) -> list[Any]:
    """Run `function(index, attempt, task)` on the executors, one Spark task each; return results in order.

    `parallelize(tasks, len(tasks))` because it keeps one task a partition; `repartition` by column left a
    third of the partitions empty.
    """

    def of_partition(index: int, partition: Iterable[Any]) -> Iterator[Any]:
        from pyspark import TaskContext

        context = TaskContext.get()
        attempt = context.attemptNumber() if context is not None else 0
        for task in partition:
            yield function(index, attempt, task)
        _settle_worker()

    if not tasks:
        return []
    return spark.sparkContext.parallelize(tasks, len(tasks)).mapPartitionsWithIndex(of_partition).collect()


@cache
def _settle_worker() -> None:
    """Spare a worker process what Spark's loop does around each task, once everything is imported.

    Spark calls `importlib.invalidate_caches()` before a task, whereupon Python 3.11 reads the tables of contents of
    Spark's jar and zips again (0.19 s), and `gc.collect()` after it, which goes through every object of every imported
    module (0.06 s): as long as the stamps of a brick take. Neither archives nor modules change while a worker lives.
    """
    zipimport.zipimporter.invalidate_caches = lambda self: None  # type: ignore[method-assign]
    gc.freeze()
