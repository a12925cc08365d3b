"""Stage 4a with --catalogue: a table of positions -> a manifest without injections.

1. Read the table; check units, positions and types; mark duplicates (`survey.positions`).
2. Find each position's brick and split (`injection.catalogue`); rows that cannot be cut go to `quarantine`, with why.
3. Write the rest as one chunk. Stages 4b, 4c and pack then run on it as on any manifest.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.balance import Tally, balance_table
from darkhaloscope.injection.catalogue import lay_out_catalogue, place_on_sky
from darkhaloscope.injection.manifest_task import count_rows, tallies_of
from darkhaloscope.records import MANIFEST
from darkhaloscope.stage import StageRun, place
from darkhaloscope.storage import join, read_bytes
from darkhaloscope.survey.bricks import BrickTable, read_brick_table
from darkhaloscope.survey.positions import Positions, mark_duplicates, read_positions
from darkhaloscope.survey.targets import brick_splits_of
from spark_jobs.quarantine import Failure, refuse_too_many, write_failures

SECTIONS = ("seed", "variant", "experiment_id", "survey", "targets", "splits", "psf", "stamps")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Make the manifest of `args.catalogue`; return the stage's record. `spark` is not needed: catalogues are small.

    Raises:
        CatalogueError: the table cannot be used, or its positions may not be degrees.
        DatasetError: too many faulty rows, or no row that can be cut.
    """
    output = place(args.output_s3, "phase4a", experiment)
    table = join(experiment.survey.source, experiment.survey.bricks_table)
    inputs = {name: _hash(url) for name, url in (("catalogue", args.catalogue), ("bricks", table))}
    options = {"catalogue_units": args.catalogue_units, "catalogue_type": args.catalogue_type}
    with StageRun(
        output, "4a", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        stage.record["catalogue"] = args.catalogue
        if not committed_chunks(output):
            found = mark_duplicates(read_positions(args.catalogue, args.catalogue_units, args.catalogue_type))
            _write(found, read_brick_table(table), experiment, output, stage)
        facts = committed_chunks(output)[0]
        stage.record["balance"] = balance_table({a: Tally.from_json(t) for a, t in facts["tallies"].items()})
        keys = ("catalogue_rows", "rows", "bricks", "rows_by", "types", "left_out")
        return stage.finish(**{k: facts[k] for k in keys})


def _hash(url: str) -> str:
    return hashlib.sha256(read_bytes(url)).hexdigest()[:16]


def _write(
    positions: Positions, bricks: BrickTable, experiment: Experiment, output: str, stage: StageRun
) -> None:
    of_brick = brick_splits_of(bricks, experiment.targets, experiment.splits, experiment.seed)
    host, left_out = place_on_sky(positions, bricks, experiment.splits, experiment.seed, of_brick)
    write_failures(output, _failures(positions, left_out))
    faulty = int(np.count_nonzero([f and not f.startswith("duplicate") for f in positions.fault]))
    refuse_too_many(stage, faulty, len(positions), "rows of the catalogue", experiment)
    kept = np.flatnonzero(left_out == "")
    reasons = Counter(_short(reason) for reason in left_out.tolist() if reason)
    if not len(kept):
        raise DatasetError(
            f"{positions.source}: none of its {len(positions)} rows can be cut: {dict(reasons)}; the reasons row by "
            f"row are in {output}/quarantine"
        )
    rows = Positions({k: v[kept] for k, v in positions.columns.items()}, left_out[kept], positions.source)
    table = lay_out_catalogue(rows, {k: v[kept] for k, v in host.items()}, experiment)
    part = write_part(output, 0, 0, table.to_batches(), MANIFEST.arrow())
    facts = {
        "catalogue_rows": len(positions),
        "bricks": len(table.column("brickname").unique()),
        "rows_by": count_rows(table),
        "types": dict(Counter(table.column("object_type").to_pylist())),
        "left_out": dict(reasons),
        "tallies": {axis: t.as_json() for axis, t in tallies_of(table, experiment.seed, 1.0).items()},
    }
    commit_chunk(output, 0, [part], facts)


def _failures(positions: Positions, left_out: np.ndarray) -> list[Failure]:
    names = positions.columns["object_name"]
    return [
        Failure("4a", f"row {i} {names[i]}".strip(), 1, "LeftOut", left_out[i])
        for i in np.flatnonzero(left_out != "").tolist()
    ]


def _short(reason: str) -> str:
    """Return a reason without the row's own numbers, to count by."""
    if reason.startswith("position"):
        return "position not on the sky"
    if reason.startswith("rows"):
        return "rows of one place that disagree"
    return reason.split(":")[0]
