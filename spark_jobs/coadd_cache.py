"""Stage 4b: the coadds of the manifest's bricks -> the cache that stage 4c reads.

1. List the bricks of the manifest; leave out those that earlier runs have cached or found missing.
2. Check that the rest will fit on the disk, at the start and again before every chunk.
3. Chunk by chunk, share the bricks and the connections out to tasks; each fetches its bricks into
   `<root>/coadd_cache` in the survey's layout, checked, never half a file.
4. Commit one row a brick: cached, missing in the survey, or failed with its reason. A later row replaces an earlier.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession
from tqdm import tqdm

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import ASSETS, MANIFEST
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from darkhaloscope.survey.cache import (
    DAY_S,
    bricks_to_fetch,
    bytes_in_cache,
    check_space,
    clear_incoming,
    mean_brick_bytes,
    read_assets,
)
from darkhaloscope.survey.fetch import fetch_brick
from darkhaloscope.survey.transfer import client_of
from spark_jobs.inputs import read_committed
from spark_jobs.tasks import run_tasks

SECTIONS = ("variant", "experiment_id", "survey")
Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class FetchTask:
    """Bricks of one task, and how many of the run's connections are its own."""

    bricks: tuple[str, ...]
    connections: int


def cache_url(root: str) -> str:
    """Return the base URL of the coadd cache, shared by every experiment under a root."""
    return join(root, "coadd_cache")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Cache the coadds of a manifest; return the stage's record.

    A brick that is missing or broken costs its rows later, not this stage; failed ones are tried again by the next
    run.

    Raises:
        DatasetError: stage 4a has not finished, or every brick of a whole chunk failed.
        StorageError: the cache cannot be written, or will not fit.
    """
    source = place(args.output_s3, "phase4a", experiment)
    output, cache = place(args.output_s3, "phase4b", experiment), cache_url(args.output_s3)
    inputs, options = {"manifest": input_hash(source)}, {"test_limit": args.test_limit}
    with StageRun(
        output, "4b", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        ids = ("brickname", "task_id")
        frame = read_committed(spark, source, MANIFEST, args.test_limit, order=ids, columns=ids)
        bricks = sorted(r.brickname for r in frame.select("brickname").distinct().collect())
        clear_incoming(cache)
        assets = read_assets(output)
        there = bytes_in_cache(cache, assets, experiment.survey.bands)
        due = bricks_to_fetch(bricks, assets, time.time(), experiment.fetch.ask_again_days * DAY_S, there)
        visited = _fetch_all(spark, due, experiment, cache, stage, assets, args.partitions)
        return stage.finish(**_totals([assets[b] for b in bricks]), visited=visited)


def _fetch_all(
    spark: SparkSession,
    due: list[str],
    experiment: Experiment,
    cache: str,
    stage: StageRun,
    assets: Rows,
    partitions: int,
) -> int:
    """Fetch bricks, a chunk at a time; note them in `assets` and commit them. Return how many."""
    survey, size = experiment.survey, experiment.fetch.bricks_per_chunk
    tasks_at_a_time = min(partitions, spark.sparkContext.defaultParallelism)
    number = max(committed_chunks(stage.root), default=-1) + 1
    mean, moved, cached = mean_brick_bytes(survey.source, due, survey.bands, assets.values()), 0, 0
    start = time.monotonic()
    with tqdm(total=len(due), desc="4b", unit="brick", disable=None) as progress:
        for first in range(0, len(due), size):
            check_space(cache, len(due) - first, mean)
            tasks = share_out(due[first : first + size], experiment.fetch.connections, tasks_at_a_time)
            rows = [row for part in run_tasks(spark, tasks, _fetch_task(experiment, cache)) for row in part]
            stage.owner.check()
            _commit(stage.root, number, rows)
            number += 1
            assets |= {row["brickname"]: row for row in rows}
            moved += sum(row["bytes"] for row in rows)
            cached += sum(row["status"] == "cached" for row in rows)
            mean = moved / cached if cached else mean
            rate = moved / 1e6 / (time.monotonic() - start)
            progress.set_postfix_str(f"{moved / 1e9:.2f} GB, {rate:.1f} MB/s", refresh=False)
            progress.update(len(rows))
            _refuse_dead_server(rows, size)
    return len(due)


def share_out(bricks: list[str], connections: int, tasks: int) -> list[FetchTask]:
    """Divide a chunk's bricks and the run's connections between at most `tasks` tasks.

    Every task has at least one connection, and all together no more than `connections`.
    """
    n = min(tasks, connections, len(bricks))
    return [FetchTask(tuple(bricks[i::n]), connections // n + (i < connections % n)) for i in range(n)]


def _fetch_task(experiment: Experiment, cache: str) -> Any:
    survey, fetch = experiment.survey, experiment.fetch

    def of_task(index: int, attempt: int, task: FetchTask) -> list[dict[str, Any]]:
        client = client_of(fetch, task.connections)
        pool = ThreadPoolExecutor(task.connections)
        try:
            return list(
                pool.map(lambda b: fetch_brick(survey.source, cache, b, survey.bands, client), task.bricks)
            )
        finally:
            pool.shutdown(cancel_futures=True)  # a full disk stops the task, not only one of its bricks

    return of_task


def _commit(output: str, number: int, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in ASSETS.names}
    part = write_part(output, number, 0, [to_batch(ASSETS, columns)], ASSETS.arrow())
    commit_chunk(output, number, [part])


def _refuse_dead_server(rows: list[dict[str, Any]], size: int) -> None:
    if len(rows) == size and all(row["status"] == "failed" for row in rows):
        raise DatasetError(
            f"every one of the last {size} bricks failed, the first with: {rows[0]['reason']}; is the source in order? "
            "All of them are tried again by the next run"
        )


def _totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    status, files = Counter(row["status"] for row in rows), sum(row["files"] for row in rows)
    by_checksum = sum(row["by_checksum"] for row in rows)
    return {
        "rows": len(rows),
        **{name: status[name] for name in ("cached", "missing", "failed")},
        "files": files,
        "by_checksum": by_checksum,
        "by_structure": files - by_checksum,
        "bytes": sum(row["bytes"] for row in rows),
        "reasons": dict(Counter(f"{row['status']}: {row['cause']}" for row in rows if row["cause"])),
    }
