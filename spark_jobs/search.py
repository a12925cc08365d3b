"""The steps of a search.

1. Lay out what is to be cut: the targets of stage 3 in the area, or every position of a table.
2. Chunk by chunk, some bricks a task: cut stamps, score them, write a row a target, commit. Or, for a GPU host, write
   stamps only, and in a second run join the scores it made.
3. Merge what is there twice, rank, look up known lenses, and write candidates, catalogues and a summary.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from collections import Counter
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from tqdm import tqdm

from darkhaloscope.dataset import (
    DatasetError,
    commit_chunk,
    committed_chunks,
    content_hash,
    gc,
    read_table,
)
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.task import StampTask, TaskResult, share_out, stamps_of_bricks
from darkhaloscope.records import BANDS
from darkhaloscope.search.area import square_degrees
from darkhaloscope.search.conditions import release_of
from darkhaloscope.search.known import lenscat_file, read_known
from darkhaloscope.search.model import Model, ModelError, load_model, refuse_disagreement
from darkhaloscope.search.ranking import merge, rank
from darkhaloscope.search.reference import Reference, read_reference
from darkhaloscope.search.scoring import GivenScores, Scored, Scoring, score_bricks, score_part
from darkhaloscope.search.summary import summary_of
from darkhaloscope.search.write_out import read_scored, write_candidates, write_catalogues, write_summary
from darkhaloscope.stage import OutputRefused, StageRun
from darkhaloscope.storage import join, read_bytes, resolve
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.targets import good_bricks
from spark_jobs.quarantine import Failure, write_failures
from spark_jobs.search_rows import lay_out_area, lay_out_positions
from spark_jobs.stamps import count_bricks
from spark_jobs.tasks import run_tasks

SECTIONS = ("seed", "survey", "targets", "splits", "psf", "stamps")


def experiment_of(args: argparse.Namespace) -> Experiment:
    """Return the experiment of the model, with the survey that is searched.

    A search draws no noise and trains nothing: no photon noise, no guard between splits.

    Raises:
        ModelError: a model that cannot be used, or of another release than the images.
    """
    models = [load_model(url) for url in args.model]
    refuse_disagreement(models)
    config = models[0].experiment
    given = {"source": args.survey_source, "bricks_table": args.bricks_table}
    survey = dataclasses.replace(config.survey, **{k: v for k, v in given.items() if v})
    for model in models:
        _refuse_other_stamps(model, config)
        trained, here = release_of(model.experiment.survey), release_of(survey)
        if trained and here and trained != here and not args.force:
            raise ModelError(
                f"{model.url} was trained on {trained}, the images are of {here}: other filters, depth and reduction; "
                "train on these, or --force (every row then says so)"
            )
    return dataclasses.replace(
        config,
        survey=survey,
        splits=dataclasses.replace(config.splits, guard_arcsec=0.0),
        stamps=dataclasses.replace(config.stamps, poisson_noise=False),
    )


def _refuse_other_stamps(model: Model, config: Experiment) -> None:
    cut, taken = (BANDS, config.stamps.size), (model.bands, model.size)
    if taken != cut:
        raise ModelError(
            f"{model.url}: takes (bands, pixels) {taken}, but its config cuts stamps of {cut}: a model of another "
            "preprocessing; export the checkpoint again"
        )


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Search; return the record.

    Raises:
        AreaError, CatalogueError, DatasetError, ModelError, ReferenceRefused: see there; each says what to do.
    """
    models = [load_model(url) for url in args.model]
    reference = read_reference(args.reference, models) if args.reference else None
    known_url = args.known or lenscat_file()
    known = read_known(known_url) if known_url else None
    urls = tuple((m.url, m.hash) for m in models)
    scoring = Scoring(urls, reference, release_of(experiment.survey), args.force, args.candidates)
    bricks = read_brick_table(resolve(experiment.survey.source, experiment.survey.bricks_table))
    files = {
        "bricks": bricks.source,
        "positions": args.positions,
        "reference": args.reference,
        "known": known_url,
    }
    inputs = {name: _hash(url) for name, url in files.items() if url}
    inputs |= {f"model {i}": m.hash for i, m in enumerate(models)}
    area = [args.area.kind, *args.area.values] if args.area else []
    options = {"area": area, "force": args.force, "prevalence": args.prevalence,
               "candidates": args.candidates, "units": args.catalogue_units}  # fmt: skip
    with StageRun(
        args.out, "search", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        manifest = join(args.out, "manifest")
        if not committed_chunks(manifest):
            lay_out = lay_out_area if args.area else lay_out_positions
            lay_out(spark, stage, experiment, bricks, manifest, args)
        if args.to == "shards":
            return stage.finish(**_cut(spark, stage, experiment, manifest, args))
        if args.scores:
            _join_scores(spark, stage, experiment, scoring, args)
        else:
            _score(spark, stage, experiment, scoring, manifest, args)
        good = good_bricks(bricks, experiment.targets)
        size = square_degrees(args.area, bricks, good) if args.area else 0.0
        return stage.finish(**_finish(stage, reference, known, size, args))


def _hash(url: str) -> str:
    return hashlib.sha256(read_bytes(url)).hexdigest()[:16]


def _chunks(
    spark: SparkSession, manifest: str, experiment: Experiment, args: argparse.Namespace
) -> list[Any]:
    """Return (number, tasks' bricks) of each chunk."""
    bricks = count_bricks(spark, manifest, None, experiment)
    size = experiment.stamps.bricks_per_chunk
    chunks = [bricks[i : i + size] for i in range(0, len(bricks), size)]
    return [(number, share_out(chunk, args.partitions)) for number, chunk in enumerate(chunks)]


def _score(
    spark: SparkSession, stage: StageRun, experiment: Experiment, scoring: Scoring, manifest: str,
    args: argparse.Namespace,
) -> None:  # fmt: skip
    root, coadds = join(args.out, "scored"), args.coadds or experiment.survey.source
    done = _done(root, "models")

    def score(index: int, attempt: int, task: StampTask) -> Scored:
        return score_bricks(task, index, attempt, coadds, experiment, scoring)

    for number, shares in tqdm(
        _chunks(spark, manifest, experiment, args), desc="search", unit="chunk", disable=None
    ):
        if number not in done:
            tasks = [StampTask(tuple(share), root, number) for share in shares]
            _commit(stage, root, number, run_tasks(spark, tasks, score), "models")
    gc(root)


def _done(root: str, by: str) -> set[int]:
    """Return the committed chunks; refuse an output whose scores came in another way."""
    chunks = committed_chunks(root)
    if others := {facts["scored_by"] for facts in chunks.values()} - {by}:
        raise OutputRefused(
            f"{root} holds scores by {', '.join(others)}, not {by}; give another --out, or --overwrite"
        )
    return set(chunks)


def _commit(stage: StageRun, root: str, number: int, results: list[Scored], by: str) -> None:
    stage.owner.check()
    failures = [Failure("search", *f) for r in results for f in r.failures]
    write_failures(root, failures, number)
    refused = sum((r.refused for r in results), Counter())
    facts = {"scored": sum(r.scored for r in results), "refused": dict(refused), "scored_by": by}
    commit_chunk(root, number, [r.part for r in results], facts)


def _cut(
    spark: SparkSession, stage: StageRun, experiment: Experiment, manifest: str, args: argparse.Namespace
) -> dict[str, Any]:  # fmt: skip
    """Write the stamps alone, as evaluation/score.py reads them."""
    root, coadds = join(args.out, "stamps", "split=test"), args.coadds or experiment.survey.source
    done = committed_chunks(root)

    def cut(index: int, attempt: int, task: StampTask) -> TaskResult:
        return stamps_of_bricks(task, index, attempt, coadds, experiment)

    for number, shares in _chunks(spark, manifest, experiment, args):
        if number not in done:
            results = run_tasks(spark, [StampTask(tuple(s), root, number) for s in shares], cut)
            stage.owner.check()
            commit_chunk(root, number, [r.part for r in results], {"ok": sum(r.ok for r in results)})
    chunks = committed_chunks(root).values()
    return {"targets": sum(c["rows"] for c in chunks), "stamps": sum(c["ok"] for c in chunks), "shards": root}


def _join_scores(
    spark: SparkSession, stage: StageRun, experiment: Experiment, scoring: Scoring, args: argparse.Namespace
) -> None:  # fmt: skip
    """Make the scored rows of stamps that a GPU host scored."""
    stamps, root = join(args.out, "stamps", "split=test"), join(args.out, "scored")
    found = read_table(args.scores, ["task_id", "logit"])
    ids = found.column("task_id").to_numpy().astype(str)
    order = np.argsort(ids)
    by = f"scores {content_hash(args.scores)}"
    given = spark.sparkContext.broadcast(GivenScores(ids[order], found.column("logit").to_numpy()[order]))
    done = _done(root, by)

    def join_part(index: int, attempt: int, task: tuple[int, str]) -> Scored:
        where = StampTask((), root, task[0])
        return score_part(where, index, attempt, task[1], experiment, scoring, given.value)

    chunks = committed_chunks(stamps)
    if not chunks:
        raise DatasetError(f"{stamps}: no stamps there; run this search with --to shards first")
    for number, facts in sorted(chunks.items()):
        if number not in done:
            tasks = [(number, join(stamps, part["key"])) for part in facts["parts"]]
            _commit(stage, root, number, run_tasks(spark, tasks, join_part), by)


def _finish(
    stage: StageRun, reference: Reference | None, known: dict[str, np.ndarray] | None, size: float,
    args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    laid_out = committed_chunks(join(args.out, "manifest"))[0]
    listed = {int(i): n for i, n in laid_out["listed"].items()}
    scored = join(args.out, "scored")
    table = rank(merge(read_scored(scored), listed), reference, args.prevalence, size, known)
    stage.owner.check()
    write_candidates(join(args.out, "candidates"), scored, table, args.candidates)
    what = str(args.area) if args.area else f"positions of {args.positions.rsplit('/', 1)[-1]}"
    summary = summary_of(table, laid_out["left_out"], what, size, reference)
    if not summary["scored"]:
        raise DatasetError(f"{args.out}: no target could be scored: {summary['refused']}; the rows say why")
    urls = list(write_catalogues(args.out, table, args.formats))
    facts = {"models": ", ".join(args.model), "known lenses": "matched" if known is not None else "none given",
             "catalogues": ", ".join(url.rsplit("/", 1)[-1] for url in urls)}  # fmt: skip
    write_summary(args.out, summary, table, reference, facts)
    counts = ("targets", "scored", "refused", "merged", "forced", "known", "square_degrees")
    return {k: summary[k] for k in counts}
