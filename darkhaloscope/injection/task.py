"""What one task of stage 4c does: its bricks one after the other, their stamps into one part."""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from darkhaloscope.dataset import Part, open_part, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.psfs import load_kernels
from darkhaloscope.injection.stamps import failed_stamps, gains_of, make_stamps, stamp_schema
from darkhaloscope.injection.visit import Visit, ahead
from darkhaloscope.records import MANIFEST
from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.errors import BrickUnreadable

ROWS_PER_BATCH = 500  # bounds the memory of a task: 500 stamps are 25 MB, and as much again for invvar
# What a brick costs beside its stamps (opening ten files, the gain), in stamps: benchmarks/stamps.py measures it.
BRICK_COST = 16.0
TASK_COST = 4000.0  # in stamps


@dataclass(frozen=True)
class BrickRows:
    """A brick of a task: how many manifest rows it has, in which files, and the brick table's PSF sizes."""

    name: str
    rows: int
    files: tuple[str, ...]
    psf: dict[str, float] | None = None

    @property
    def cost(self) -> float:
        """Expected time, in that of one stamp."""
        return BRICK_COST + self.rows


@dataclass(frozen=True)
class StampTask:
    """The bricks of one task, and the chunk of the output it belongs to."""

    bricks: tuple[BrickRows, ...]
    output: str
    chunk: int


@dataclass
class TaskResult:
    """What a task reports: its part, rows made, rows failed by reason, and bricks that could not be read."""

    part: Part
    ok: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, int, str, str]] = field(default_factory=list)


def share_out(bricks: list[BrickRows], n_tasks: int) -> list[list[BrickRows]]:
    """Put bricks into tasks of about equal cost: dearest first, to the cheapest task.

    There are `n_tasks`, fewer where there are fewer bricks, and more where each would cost more than `TASK_COST` on
    average: so a part stays below about 200 MB, and a task that must be repeated loses half a minute.
    """
    wanted = max(n_tasks, math.ceil(sum(b.cost for b in bricks) / TASK_COST))
    tasks: list[list[BrickRows]] = [[] for _ in range(min(wanted, len(bricks)))]
    load = [0.0] * len(tasks)
    for brick in sorted(bricks, key=lambda b: (-b.cost, b.name)):
        lightest = load.index(min(load))
        tasks[lightest].append(brick)
        load[lightest] += brick.cost
    return tasks


def imbalance(tasks: list[list[BrickRows]]) -> float:
    """Return the largest over the mean cost of tasks, 1 at best: how much longer they take than they must."""
    costs = [sum(b.cost for b in task) for task in tasks]
    return max(costs) * len(costs) / sum(costs)


def stamps_of_bricks(
    task: StampTask, index: int, attempt: int, coadds: str, experiment: Experiment
) -> TaskResult:
    """Make and write the stamps of a task's bricks.

    One brick is worked on at a time, and the next is opened meanwhile; where the coadds are not on this machine,
    opening copies them to a scratch folder, so that it holds two bricks at most. The folder is deleted at the end.

    A brick that cannot be read costs its own rows only: they are written as failed, with the reason. The same
    holds for a brick that does not come in `limits.brick_seconds`: it is left behind (see `Visit`).

    Args:
        task: the bricks.
        index: number of the task in its chunk.
        attempt: number of the attempt.
        coadds: base URL of the coadds.
        experiment: the config.
    """
    result = TaskResult(Part("", 0, 0, ""))
    batches = stamp_batches(task.bricks, coadds, experiment, result)
    schema, codec = stamp_schema(experiment), experiment.stamps.codec
    result.part = write_part(task.output, task.chunk, index, batches, schema, attempt, codec, ROWS_PER_BATCH)
    return result


def _scratch() -> str | None:
    """Return the first of YARN's or Spark's scratch disks for this executor, or None: the system's folder."""
    folders = os.environ.get("LOCAL_DIRS") or os.environ.get("SPARK_LOCAL_DIRS") or ""
    return folders.split(",")[0] or None


def stamp_batches(
    bricks: tuple[BrickRows, ...], coadds: str, experiment: Experiment, result: TaskResult
) -> Iterator[pa.RecordBatch]:
    """Yield the STAMPS of bricks, at most 500 rows at a time, and count them in `result`; see `stamps_of_bricks`."""
    rows, kernels, limit = (
        read_manifest_rows(bricks),
        load_kernels(experiment),
        experiment.limits.brick_seconds,
    )
    bands = experiment.survey.bands
    with tempfile.TemporaryDirectory(prefix="stamps-", dir=_scratch(), ignore_cleanup_errors=True) as folder:
        readers = (BrickReader(coadds, b.name, bands, folder, b.psf, n_cuts=b.rows) for b in bricks)
        for visit in ahead(Visit(reader, limit) for reader in readers):
            yield from stamps_of_brick(visit, rows[visit.reader.brickname], experiment, kernels, result)


def stamps_of_brick(
    visit: Visit, rows: pa.Table, experiment: Experiment, kernels: np.ndarray | None, result: TaskResult
) -> Iterator[pa.RecordBatch]:
    """Yield STAMPS of one brick's manifest rows, and count them in `result`; the brick is closed by the caller."""
    done = 0
    try:
        visit.opened()
        gains = visit.work(lambda brick: gains_of(brick, rows, experiment))
        while done < rows.num_rows:
            part = rows.slice(done, ROWS_PER_BATCH)
            batch = visit.work(
                partial(make_stamps, rows=part, experiment=experiment, kernels=kernels, gains=gains)
            )
            done += batch.num_rows
            _count(batch, result)
            yield batch
    except BrickUnreadable as error:
        left = rows.slice(done)
        result.failures.append((visit.reader.brickname, left.num_rows, type(error).__name__, str(error)))
        batch = failed_stamps(left, str(error), experiment, kernels)
        _count(batch, result)
        yield batch


def read_manifest_rows(bricks: tuple[BrickRows, ...]) -> dict[str, pa.Table]:
    """Return each brick's manifest rows, sorted by task_id, at most `rows` of them.

    The manifest is in the order of bricks: of its files only the row groups that have these bricks are read.
    """
    names, tables = [b.name for b in bricks], []
    for url in sorted({file for brick in bricks for file in brick.files}):
        with open_part(url) as part:
            groups = [i for i in range(part.num_row_groups) if _may_hold(part.metadata.row_group(i), names)]
            tables.append(part.read_row_groups(groups, columns=MANIFEST.names))
    rows = pa.concat_tables(tables).sort_by("task_id")
    return {b.name: rows.filter(pc.equal(rows["brickname"], b.name)).slice(0, b.rows) for b in bricks}


def _may_hold(group: pq.RowGroupMetaData, bricks: list[str]) -> bool:
    column = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "brickname")
    known = column.statistics is not None and column.statistics.has_min_max
    return not known or any(column.statistics.min <= b <= column.statistics.max for b in bricks)


def _count(batch: pa.RecordBatch, result: TaskResult) -> None:
    ok = np.asarray(batch.column("cutout_ok")) == 1
    result.ok += int(ok.sum())
    reasons = batch.column("failure_reason").to_pylist()
    result.reasons.update(r for r, good in zip(reasons, ok, strict=True) if not good)
