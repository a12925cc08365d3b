"""The first step of a search: what is to be cut, as one committed table of manifest rows."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_files, open_part, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.task import TASK_COST
from darkhaloscope.records import MANIFEST, TARGETS
from darkhaloscope.search.area import AreaError, bricks_in, sweeps_in
from darkhaloscope.search.conditions import release_of
from darkhaloscope.search.reasons import short
from darkhaloscope.search.rows import rows_of_positions, rows_of_targets
from darkhaloscope.stage import StageRun, place
from darkhaloscope.storage import filesystem, is_local, join
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import read_positions
from darkhaloscope.survey.sweeps import list_sweeps
from darkhaloscope.writing import replace_file
from spark_jobs import targets
from spark_jobs.quarantine import Failure, write_failures
from spark_jobs.tasks import run_tasks

ROWS_PER_PART = 200_000


def lay_out_area(
    spark: SparkSession, stage: StageRun, experiment: Experiment, bricks: BrickTable, root: str,
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Select the targets of the sweeps that the area touches, as stage 3 does, and lay out those inside."""
    chosen = bricks_in(args.area, bricks)
    sweeps = sweeps_in([s.url for s in list_sweeps(experiment.survey)], bricks, chosen)
    if not sweeps:
        raise AreaError(f"{args.area}: no sweep file of {experiment.survey.sweeps} has objects there")
    listed = join(args.out, "sweeps.txt")
    if is_local(listed):
        listed = filesystem(listed)[1]  # absolute: another would be looked for below the survey's source
    replace_file(listed, "\n".join(sweeps).encode())
    there = dataclasses.replace(experiment, survey=dataclasses.replace(experiment.survey, sweeps=listed))
    options = {"output_s3": args.out, "test_limit": None, "overwrite": False, "take_over": args.take_over}
    targets.run(spark, there, argparse.Namespace(**options))
    area = args.area

    def lay_out(index: int, attempt: int, url: str) -> Any:
        with open_part(url) as part:
            rows = rows_of_targets(part.read(columns=TARGETS.names), area, there)
        return write_part(root, 0, index, rows.to_batches(), MANIFEST.arrow(), attempt)

    parts = run_tasks(spark, committed_files(place(args.out, "phase3", there)), lay_out)
    if not sum(part.rows for part in parts):
        raise AreaError(
            f"{args.area}: {len(chosen)} bricks, but no galaxy there passes the cuts of {experiment.targets.variant}; "
            "widen the area, or list positions (--positions)"
        )
    stage.owner.check()
    commit_chunk(root, 0, parts, _facts(args))


def lay_out_positions(
    spark: SparkSession, stage: StageRun, experiment: Experiment, bricks: BrickTable, root: str,
    args: argparse.Namespace,
) -> None:  # fmt: skip
    """Lay out every listed position; rows that cannot be cut go to `quarantine`, with why."""
    positions = read_positions(args.positions, args.catalogue_units, labelled=False)
    _refuse_other_release(positions.columns["release"], experiment, args)
    table, listed, refused = rows_of_positions(positions, bricks, experiment)
    names = positions.columns["object_name"]
    failures = [
        Failure("search", f"row {i} {names[i]}".strip(), 1, "LeftOut", refused[i])
        for i in np.flatnonzero(refused != "").tolist()
    ]
    write_failures(args.out, failures)
    left_out = Counter(short(reason) for reason in refused.tolist() if reason)
    if not table.num_rows:
        raise DatasetError(
            f"{args.positions}: none of its {len(positions)} rows can be cut: {dict(left_out)}; the reasons row by row "
            f"are in {args.out}/quarantine"
        )
    stage.owner.check()
    parts = [  # a task reads the files that its bricks are in
        write_part(root, 0, i, table.slice(first, ROWS_PER_PART).to_batches(), MANIFEST.arrow())
        for i, first in enumerate(range(0, table.num_rows, ROWS_PER_PART))
    ]
    commit_chunk(root, 0, parts, _facts(args, left_out, listed))


def _facts(
    args: argparse.Namespace, left_out: Mapping[str, int] | None = None, listed: Mapping[int, int] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Return what later steps need to know; chunks stay what they are, whatever --partitions says next time."""
    return {"left_out": left_out or {}, "listed": listed or {}, "cost_of_chunk": args.partitions * TASK_COST}


def _refuse_other_release(found: np.ndarray, experiment: Experiment, args: argparse.Namespace) -> None:
    here = release_of(experiment.survey)
    known = found[np.isfinite(found)]
    numbers = sorted({int(v // 1000 if v >= 1000 else v) for v in known.tolist()})
    if here and numbers and f"dr{numbers[0]}-" not in here and not args.force:
        raise CatalogueError(
            f"{args.positions}: its column RELEASE says data release {', '.join(map(str, numbers))}, the images are of "
            f"{here}: are these positions meant? They hold for stars and galaxies alike in any release; --force "
            "searches them"
        )
