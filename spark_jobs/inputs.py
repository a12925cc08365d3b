"""What a stage reads: the committed parts of a table, and its rows as a DataFrame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from darkhaloscope.dataset import DatasetError, Part, committed_parts, open_part
from darkhaloscope.schema import Schema, check_schema, refuse_unknown
from darkhaloscope.storage import join
from spark_jobs.session import ARROW_ROWS_PER_BATCH

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

FILE_COLUMN = "_file"  # beside a table's columns: the URL of the part that a row is in


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
                for rows in part.iter_batches(ARROW_ROWS_PER_BATCH, columns=names):
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
