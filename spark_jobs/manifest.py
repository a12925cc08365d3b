"""Stage 4a: targets -> injection manifest.

1. Rank the hosts of each split by hash and take as many as the experiment asks for.
2. Lay out their rows on the executors, each target on its own (`lay_out_injections`).
3. Sort by brick, so that stage 4c finds a brick's rows in one place; write; check that ids are unique.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.hosts import select_hosts
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.prior import check_prior
from darkhaloscope.records import MANIFEST, TARGETS
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from spark_jobs.session import read_committed, read_files, refuse_repeated_ids, spark_schema, write_frame

SECTIONS = ("seed", "variant", "experiment_id", "injection", "prior", "psf", "stamps")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Make the manifest of an experiment; return the stage's record.

    Raises:
        ConfigError: the prior cannot be drawn from.
        DatasetError: stage 3 has not finished, no target is in a split, or a task_id occurs twice.
    """
    check_prior(experiment.prior)
    source = place(args.output_s3, "phase3", experiment)
    output = place(args.output_s3, "phase4a", experiment)
    inputs, options = {"targets": input_hash(source)}, {"test_limit": args.test_limit}
    with StageRun(
        output, "4a", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        targets = read_committed(spark, source, TARGETS, args.test_limit, ("brickname", "host_id"))
        hosts = targets.select("host_id", "region_split").toPandas()
        chosen = select_hosts(hosts["host_id"].to_numpy(), hosts["region_split"].to_numpy(), experiment)
        if not chosen.any():
            raise DatasetError(f"{source}: none of the {len(hosts)} targets is in train, val or test")
        if not committed_chunks(output):
            rows = _lay_out(spark, targets, hosts["host_id"].to_numpy()[chosen], experiment)
            by_brick = rows.repartitionByRange(args.partitions, "brickname")
            by_brick = by_brick.sortWithinPartitions("brickname", "task_id")
            parts = write_frame(by_brick, output, 0, MANIFEST.arrow())
            written = [join(output, part.key) for part in parts if part.rows]
            refuse_repeated_ids(read_files(spark, written, MANIFEST, ("task_id",)), output)
            commit_chunk(output, 0, parts)
        rows = read_committed(spark, output, MANIFEST, columns=("region_split", "is_control"))
        return stage.finish(**_counts(rows, len(hosts), int(chosen.sum())))


def _lay_out(
    spark: SparkSession, targets: DataFrame, chosen: np.ndarray, experiment: Experiment
) -> DataFrame:
    hosts = spark.sparkContext.broadcast(chosen)

    def of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = batch.filter(pa.array(np.isin(batch.column("host_id").to_numpy(), hosts.value)))
            if rows.num_rows:
                yield lay_out_injections(rows, experiment)

    return targets.select(*TARGETS.names).mapInArrow(of_batches, spark_schema(MANIFEST.arrow()))


def _counts(manifest: DataFrame, targets: int, hosts: int) -> dict[str, Any]:
    """Return rows by split and class, and the realised share of each split."""
    table = manifest.groupBy("region_split", "is_control").count().collect()
    rows = sum(r["count"] for r in table)
    by_split = {s: sum(r["count"] for r in table if r.region_split == s) for s in ("train", "val", "test")}
    return {
        "targets": targets,
        "hosts": hosts,
        "rows": rows,
        "controls": sum(r["count"] for r in table if r.is_control),
        "rows_by_split": by_split,
        "split_fractions": {s: round(n / rows, 4) for s, n in by_split.items()},
    }
