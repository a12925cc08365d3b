"""Stage 4b: the coadds of the manifest's bricks -> the cache that stage 4c reads.

1. List the bricks of the manifest.
2. Fetch each into `<root>/coadd_cache` in the survey's layout, checked, never half a file.
3. Write one row a brick: cached, missing in the survey, or failed with its reason.
"""

from __future__ import annotations

import argparse
from typing import Any

from pyspark.sql import SparkSession

from darkhaloscope.dataset import commit_chunk, committed_chunks, read_table, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import ASSETS, MANIFEST
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from darkhaloscope.survey.fetch import fetch_brick
from spark_jobs.session import read_committed, run_tasks

SECTIONS = ("variant", "experiment_id", "survey")


def cache_url(root: str) -> str:
    """Return the base URL of the coadd cache, shared by every experiment under a root."""
    return join(root, "coadd_cache")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Cache the coadds of a manifest; return the stage's record.

    A brick that is missing or broken costs its rows later, not this stage.
    """
    source = place(args.output_s3, "phase4a", experiment)
    output = place(args.output_s3, "phase4b", experiment)
    inputs, options = {"manifest": input_hash(source)}, {"test_limit": args.test_limit}
    with StageRun(
        output, "4b", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        if not committed_chunks(output):
            ids = ("brickname", "task_id")
            frame = read_committed(spark, source, MANIFEST, args.test_limit, order=ids, columns=ids)
            bricks = sorted(r.brickname for r in frame.select("brickname").distinct().collect())
            rows = _fetch(spark, bricks, experiment, cache_url(args.output_s3))
            columns = {name: [row[name] for row in rows] for name in ASSETS.names}
            part = write_part(output, 0, 0, [to_batch(ASSETS, columns)], ASSETS.arrow())
            commit_chunk(output, 0, [part])
        assets = read_table(output).to_pylist()
        by_status = {s: sum(a["status"] == s for a in assets) for s in ("cached", "missing", "failed")}
        reasons = {a["brickname"]: a["reason"] for a in assets if a["reason"]}
        return stage.finish(
            rows=len(assets), **by_status, bytes=sum(a["bytes"] for a in assets), reasons=reasons
        )


def _fetch(
    spark: SparkSession, bricks: list[str], experiment: Experiment, cache: str
) -> list[dict[str, Any]]:
    source, bands = experiment.survey.source, experiment.survey.bands

    def fetch(index: int, attempt: int, brick: str) -> dict[str, Any]:
        return fetch_brick(source, cache, brick, bands)

    return run_tasks(spark, bricks, fetch)
