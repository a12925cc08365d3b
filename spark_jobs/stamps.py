"""Stage 4c: manifest + cached coadds -> stamps.

1. Count the manifest's rows a brick; put bricks into chunks, and a chunk's bricks into tasks of equal cost.
2. A task opens one brick at a time and makes its stamps (`stamps_of_bricks`), into one part.
3. Commit chunk by chunk: a run that is started again makes only the chunks that are not committed.
4. A brick that cannot be read yields its rows as failed, with the reason; too many fail the stage.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from pyspark.sql import SparkSession
from tqdm import tqdm

from darkhaloscope.dataset import Part, commit_chunk, committed_chunks, gc
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.task import (
    BrickRows,
    StampTask,
    TaskResult,
    imbalance,
    share_out,
    stamps_of_bricks,
)
from darkhaloscope.records import MANIFEST
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from darkhaloscope.survey.bricks import read_brick_table
from spark_jobs.coadd_cache import cache_url
from spark_jobs.inputs import FILE_COLUMN, read_committed, refuse_repeated_ids
from spark_jobs.quarantine import Failure, refuse_too_many, write_failures
from spark_jobs.tasks import run_tasks

SECTIONS = ("seed", "variant", "experiment_id", "survey", "injection", "psf", "stamps")
INPUTS = {"manifest": "phase4a", "coadds": "phase4b"}  # name in the record -> stage


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Make the stamps of a manifest; return the stage's record.

    Raises:
        DatasetError: stages 4a or 4b have not finished, or too many rows failed.
    """
    source = place(args.output_s3, "phase4a", experiment)
    output = place(args.output_s3, "phase4c", experiment)
    inputs = {n: input_hash(place(args.output_s3, s, experiment)) for n, s in INPUTS.items()}
    options = {"test_limit": args.test_limit}
    with StageRun(
        output, "4c", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        bricks = count_bricks(spark, source, args.test_limit, experiment)
        _make(spark, bricks, experiment, output, stage, args)
        gc(output)
        counts = _totals(output)
        expected = sum(b.rows for b in bricks)
        if counts["rows"] != expected:
            raise RuntimeError(
                f"{output}: {counts['rows']} rows for {expected} manifest rows: rows were lost"
            )
        refuse_too_many(stage, counts["failed"], counts["rows"], "rows", experiment)
        return stage.finish(**counts)


def _make(
    spark: SparkSession, bricks: list[BrickRows], experiment: Experiment, output: str, stage: StageRun,
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Make the stamps of every chunk of bricks that is not committed."""
    done, size = committed_chunks(output), experiment.stamps.bricks_per_chunk
    chunks = [bricks[i : i + size] for i in range(0, len(bricks), size)]
    for number, chunk in enumerate(tqdm(chunks, desc="4c chunks", unit="chunk", mininterval=1, disable=None)):
        if number in done:
            continue
        shares = share_out(chunk, args.partitions)
        tasks = [StampTask(tuple(share), output, number) for share in shares]
        results = run_tasks(spark, tasks, _stamp_task(experiment, cache_url(args.output_s3)))
        stage.owner.check()
        write_failures(output, [Failure("4c", *f) for r in results for f in r.failures], number)
        commit_chunk(output, number, [r.part for r in results], _facts(results, shares))


def count_bricks(
    spark: SparkSession, manifest: str, limit: int | None, experiment: Experiment
) -> list[BrickRows]:
    """Return each brick with its number of rows and the manifest files that have them, sorted by name.

    With a limit, the bricks of the first `limit` rows in the order of brick and task_id.
    """
    ids = ("brickname", "task_id")
    frame = read_committed(spark, manifest, MANIFEST, limit, order=ids, columns=ids)
    refuse_repeated_ids(frame, manifest)
    files: dict[str, dict[str, int]] = {}
    for row in frame.groupBy("brickname", FILE_COLUMN).count().collect():
        files.setdefault(row.brickname, {})[row[FILE_COLUMN]] = row["count"]
    psf = _brick_psf(experiment)
    return [
        BrickRows(name, sum(of.values()), tuple(sorted(of)), psf.get(name))
        for name, of in sorted(files.items())
    ]


def _brick_psf(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Return the brick table's PSF sizes, the fall-back where a brick has no psfsize map.

    Nothing where the source has no such table: rows then fall back to their catalogue's, and say so.
    """
    try:
        table = read_brick_table(join(experiment.survey.source, experiment.survey.bricks_table))
    except FileNotFoundError:
        return {}
    names = [f"psfsize_{b}" for b in experiment.survey.bands]
    rows = zip(table.columns["brickname"].tolist(), *(table.columns[n].tolist() for n in names), strict=True)
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}


def _stamp_task(experiment: Experiment, coadds: str) -> Any:
    def make(index: int, attempt: int, task: StampTask) -> TaskResult:
        return stamps_of_bricks(task, index, attempt, coadds, experiment)

    return make


def _facts(results: list[TaskResult], shares: list[list[BrickRows]]) -> dict[str, Any]:
    reasons = sum((Counter(r.reasons) for r in results), Counter())
    return {"ok": sum(r.ok for r in results), "failed": sum(reasons.values()), "reasons": dict(reasons),
            "tasks": len(shares), "max_over_mean_cost": round(imbalance(shares), 4)}  # fmt: skip


def _totals(output: str) -> dict[str, Any]:
    chunks = committed_chunks(output).values()
    reasons = sum((Counter(c["reasons"]) for c in chunks), Counter())
    parts = [Part(**p) for c in chunks for p in c["parts"]]
    return {
        "rows": sum(c["rows"] for c in chunks),
        "ok": sum(c["ok"] for c in chunks),
        "failed": sum(c["failed"] for c in chunks),
        "reasons": dict(sorted(reasons.items())),
        "chunks": len(chunks),
        "tasks": sum(c["tasks"] for c in chunks),
        "max_over_mean_cost": max((c["max_over_mean_cost"] for c in chunks), default=1.0),
        "bytes": sum(p.bytes for p in parts),
    }
