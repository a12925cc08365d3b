"""Pack: stamps -> training shards, split by split, in one global shuffle.

1. Give each good stamp its place in the shuffle: a key from its task_id and the seed, a shard from the key.
2. Bring each shard's stamps together, in the order of the keys; recode the pixels; one part a shard.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from darkhaloscope.dataset import commit_chunk, committed_chunks, content_hash
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.hosts import SPLITS
from darkhaloscope.packing import packed_schema, repack, shard_of, shuffle_keys
from darkhaloscope.records import STAMPS
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from spark_jobs.session import read_committed, spark_schema, write_frame

SECTIONS = ("seed", "variant", "experiment_id", "pack")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Pack the stamps of an experiment; return the stage's record."""
    source = place(args.output_s3, "phase4c", experiment)
    output = place(args.output_s3, "pack", experiment)
    inputs, options = {"stamps": input_hash(source)}, {"test_limit": args.test_limit}
    with StageRun(
        output, "pack", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        order = ("brickname", "task_id")
        stamps = read_committed(spark, source, STAMPS, args.test_limit, order)
        labels = (*order, "region_split", "cutout_ok", "is_control")
        table = read_committed(spark, source, STAMPS, args.test_limit, order, labels)
        table = table.groupBy("region_split", "cutout_ok", "is_control").count().collect()
        good = stamps.where("cutout_ok = 1").select(*STAMPS.names)
        splits = {}
        for split in SPLITS:
            counts = {r.is_control: r["count"] for r in table if r.region_split == split and r.cutout_ok}
            root = join(output, f"split={split}")
            if not committed_chunks(root):
                _pack_split(good.where(f"region_split = '{split}'"), sum(counts.values()), root, experiment)
            splits[split] = {"rows": sum(counts.values()), "controls": counts.get(1, 0),
                             "shards": len(committed_chunks(root)[0]["parts"]),
                             "content": content_hash(root)}  # fmt: skip
        failed = sum(r["count"] for r in table if not r.cutout_ok)
        rows = sum(s["rows"] for s in splits.values())
        return stage.finish(rows=rows, left_out_failed=failed, splits=splits)


def _pack_split(frame: DataFrame, rows: int, root: str, experiment: Experiment) -> None:
    n_shards = max(1, -(-rows // experiment.pack.rows_per_shard))
    target, size, seed = experiment.pack.dtype, experiment.stamps.size, experiment.seed
    schema = packed_schema(target, size)
    extra = [("_key", pa.int64()), ("_shard", pa.int32())]

    def of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            keys = shuffle_keys(batch.column("task_id").to_pylist(), seed)
            packed = repack(batch, "float32", target, size)
            columns = [*packed.columns, pa.array(keys), pa.array(shard_of(keys, n_shards))]
            yield pa.RecordBatch.from_arrays(columns, names=[*packed.schema.names, "_key", "_shard"])

    placed = frame.mapInArrow(of_batches, spark_schema(pa.schema([*schema, *(pa.field(*e) for e in extra)])))
    ordered = placed.repartition(n_shards, "_shard").sortWithinPartitions("_shard", "_key")
    how = {"codec": experiment.pack.codec, "rows_per_group": experiment.pack.rows_per_group}
    commit_chunk(root, 0, write_frame(ordered, root, 0, schema, part_by="_shard", **how))
