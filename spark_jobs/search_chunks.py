"""The second step of a search, by chunks: rows are scored, or cut for a GPU host, or joined with what it scored."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from tqdm import tqdm

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, content_hash, gc, read_table
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.task import BrickRows, StampTask, TaskResult, share_out, stamps_of_bricks
from darkhaloscope.search.best import Best
from darkhaloscope.search.scoring import GivenScores, Scored, Scoring, score_bricks, score_part
from darkhaloscope.stage import OutputRefused, StageRun
from darkhaloscope.storage import join
from spark_jobs.quarantine import Failure, write_failures
from spark_jobs.stamps import count_bricks
from spark_jobs.tasks import run_tasks


def score(
    spark: SparkSession, stage: StageRun, experiment: Experiment, scoring: Scoring, args: argparse.Namespace
) -> None:
    """Cut and score every row of the manifest."""
    root, coadds = join(args.out, "scored"), args.coadds or experiment.survey.source
    chunks = _chunks(spark, root, experiment, args)

    def with_floor(floor: float) -> Callable[[int, int, StampTask], Scored]:
        how = dataclasses.replace(scoring, floor=floor)
        return lambda index, attempt, task: score_bricks(task, index, attempt, coadds, experiment, how)

    _score_chunks(spark, stage, root, chunks, with_floor, scoring.pictures, "models")


def join_scores(
    spark: SparkSession, stage: StageRun, experiment: Experiment, scoring: Scoring, args: argparse.Namespace
) -> None:
    """Make the scored rows of stamps that a GPU host scored."""
    stamps, root = _stamps(args), join(args.out, "scored")
    found = read_table(args.scores, ["task_id", "logit"])
    ids = found.column("task_id").to_numpy().astype(bytes)
    order = np.argsort(ids)
    given = spark.sparkContext.broadcast(GivenScores(ids[order], found.column("logit").to_numpy()[order]))
    chunks = {
        number: [(number, join(stamps, part["key"])) for part in facts["parts"]]
        for number, facts in sorted(committed_chunks(stamps).items())
    }
    if not chunks:
        raise DatasetError(f"{stamps}: no stamps there; run this search with --to shards first")

    def with_floor(floor: float) -> Callable[[int, int, tuple[int, str]], Scored]:
        how = dataclasses.replace(scoring, floor=floor)

        def join_part(index: int, attempt: int, task: tuple[int, str]) -> Scored:
            where = StampTask((), root, task[0])
            return score_part(where, index, attempt, task[1], experiment, how, given.value)

        return join_part

    by = f"scores {content_hash(args.scores)}"
    _score_chunks(spark, stage, root, chunks, with_floor, scoring.pictures, by)


def cut(
    spark: SparkSession, stage: StageRun, experiment: Experiment, args: argparse.Namespace
) -> dict[str, Any]:
    """Write the stamps alone, as evaluation/score.py reads them; return how many."""
    root, coadds = _stamps(args), args.coadds or experiment.survey.source
    done = committed_chunks(root)

    def cut_bricks(index: int, attempt: int, task: StampTask) -> TaskResult:
        return stamps_of_bricks(task, index, attempt, coadds, experiment)

    for number, tasks in _progress(_chunks(spark, root, experiment, args)):
        if number not in done:
            results = run_tasks(spark, tasks, cut_bricks)
            stage.owner.check()
            commit_chunk(root, number, [r.part for r in results], {"ok": sum(r.ok for r in results)})
    gc(root)
    chunks = committed_chunks(root).values()
    return {"targets": sum(c["rows"] for c in chunks), "stamps": sum(c["ok"] for c in chunks), "shards": root}


def _stamps(args: argparse.Namespace) -> str:
    return join(args.out, "stamps", "split=test")


def _chunks(
    spark: SparkSession, root: str, experiment: Experiment, args: argparse.Namespace
) -> dict[int, list[StampTask]]:
    """Return number -> tasks of each chunk of the manifest, which write to `root`.

    Raises:
        OutputRefused: the manifest was laid out before chunks had a cost.
    """
    manifest = join(args.out, "manifest")
    bricks = count_bricks(spark, manifest, None, experiment)
    laid_out = committed_chunks(manifest)[0]
    if "cost_of_chunk" not in laid_out:
        raise OutputRefused(
            f"{args.out} holds a search that an older version began; give another --out, or --overwrite"
        )
    chunks = in_chunks(bricks, experiment.stamps.bricks_per_chunk, laid_out["cost_of_chunk"])
    return {
        number: [StampTask(tuple(share), root, number) for share in share_out(chunk, args.partitions)]
        for number, chunk in enumerate(chunks)
    }


def in_chunks(bricks: list[BrickRows], fewest: int, cost: float) -> list[list[BrickRows]]:
    """Divide bricks, in their order, into chunks of at least `fewest` bricks and at least a cost, in stamps each."""
    chunks: list[list[BrickRows]] = []
    so_far = 0.0
    for brick in bricks:
        if not chunks or (len(chunks[-1]) >= fewest and so_far >= cost):
            chunks.append([])
            so_far = 0.0
        chunks[-1].append(brick)
        so_far += brick.cost
    return chunks


def _progress(chunks: dict[int, Any]) -> Any:
    return tqdm(chunks.items(), desc="search", unit="chunk", mininterval=1, disable=None)


def _score_chunks(
    spark: SparkSession, stage: StageRun, root: str, chunks: dict[int, list[Any]],
    with_floor: Callable[[float], Callable[[int, int, Any], Scored]], pictures: int, by: str,
) -> None:  # fmt: skip
    """Score the chunks that are not committed; each learns from those before it of which rows to keep pixels."""
    done = _done(root, by)
    best = Best(pictures)
    for facts in done.values():
        best = best.with_rows(np.array(facts["best"], np.float32))
    for number, tasks in _progress(chunks):
        if number not in done:
            results = run_tasks(spark, tasks, with_floor(best.floor))
            own = Best(pictures).with_rows(np.array([v for r in results for v in r.best], np.float32))
            best = best.with_rows(own.logits)
            _commit(stage, root, number, results, {"best": own.logits.tolist(), "scored_by": by})
    gc(root)


def _done(root: str, by: str) -> dict[int, dict[str, Any]]:
    """Return the committed chunks; refuse an output whose scores came in another way."""
    chunks = committed_chunks(root)
    if others := {facts["scored_by"] for facts in chunks.values()} - {by}:
        raise OutputRefused(
            f"{root} holds scores by {', '.join(others)}, not {by}; give another --out, or --overwrite"
        )
    return chunks


def _commit(stage: StageRun, root: str, number: int, results: list[Scored], facts: dict[str, Any]) -> None:
    stage.owner.check()
    failures = [Failure("search", *f) for r in results for f in r.failures]
    write_failures(root, failures, number)
    refused = sum((r.refused for r in results), Counter())
    counts = {"scored": sum(r.scored for r in results), "refused": dict(refused)}
    commit_chunk(root, number, [r.part for r in results], counts | facts)
