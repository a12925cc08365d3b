"""The steps of a search.

1. Lay out what is to be cut: the targets of stage 3 in the area, or every position of a table (`search_rows`).
2. Chunk by chunk, some bricks a task: cut stamps, score them, write a row a target, commit. Or, for a GPU host, write
   stamps only, and in a second run join the scores it made (`search_chunks`).
3. Merge what is there twice, rank, look up known lenses, and write candidates, catalogues and a summary.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from darkhaloscope.dataset import DatasetError, committed_chunks
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import BANDS
from darkhaloscope.search.area import square_degrees
from darkhaloscope.search.conditions import release_of
from darkhaloscope.search.known import lenscat_file, read_known
from darkhaloscope.search.model import Model, ModelError, load_model, refuse_disagreement
from darkhaloscope.search.ranking import merge, rank
from darkhaloscope.search.reference import Reference, read_reference
from darkhaloscope.search.scoring import Scoring
from darkhaloscope.search.summary import summary_of
from darkhaloscope.search.write_out import read_scored, write_candidates, write_catalogues, write_summary
from darkhaloscope.stage import StageRun
from darkhaloscope.storage import join, read_bytes, resolve
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.targets import good_bricks
from spark_jobs import search_chunks
from spark_jobs.search_rows import lay_out_area, lay_out_positions

# So many times the rows whose pixels are wanted have theirs kept: rows of one galaxy are merged later.
SPARE = 2
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
    scoring = Scoring(urls, reference, release_of(experiment.survey), args.force, SPARE * args.candidates)
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
            return stage.finish(**search_chunks.cut(spark, stage, experiment, args))
        give_scores = search_chunks.join_scores if args.scores else search_chunks.score
        give_scores(spark, stage, experiment, scoring, args)
        good = good_bricks(bricks, experiment.targets)
        size = square_degrees(args.area, bricks, good) if args.area else 0.0
        return stage.finish(**_finish(stage, reference, known, size, args))


def _hash(url: str) -> str:
    return hashlib.sha256(read_bytes(url)).hexdigest()[:16]


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
