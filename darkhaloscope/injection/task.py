"""What one task of stage 4c does: its bricks one after the other, their stamps into one part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import Part, open_part, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.psfs import load_kernels
from darkhaloscope.injection.stamps import failed_stamps, gains_of, make_stamps, stamp_schema
from darkhaloscope.records import MANIFEST
from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.errors import BrickUnreadable

ROWS_PER_BATCH = 500  # bounds the memory of a task: 500 stamps are 25 MB, and as much again for invvar


@dataclass(frozen=True)
class BrickRows:
    """A brick of a task: how many manifest rows it has, in which files, and the brick table's PSF sizes."""

    name: str
    rows: int
    files: tuple[str, ...]
    psf: dict[str, float] | None = None


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


def stamps_of_bricks(
    task: StampTask, index: int, attempt: int, coadds: str, experiment: Experiment
) -> TaskResult:
    """Make and write the stamps of a task's bricks.

    Args:
        task: the bricks.
        index: number of the task in its chunk.
        attempt: number of the attempt.
        coadds: base URL of the coadds.
        experiment: the config.

    A brick that cannot be read costs its own rows only: they are written as failed, with the reason.
    """
    result = TaskResult(Part("", 0, 0, ""))
    batches = (
        batch for brick in task.bricks for batch in _stamps_of_brick(brick, coadds, experiment, result)
    )
    schema = stamp_schema(experiment)
    result.part = write_part(
        task.output, task.chunk, index, batches, schema, attempt, experiment.stamps.codec, ROWS_PER_BATCH
    )
    return result


def _stamps_of_brick(
    brick: BrickRows, coadds: str, experiment: Experiment, result: TaskResult
) -> Iterator[pa.RecordBatch]:
    rows, kernels, done = read_manifest_rows(brick), load_kernels(experiment), 0
    try:
        with BrickReader(
            coadds, brick.name, experiment.survey.bands, brick_row=brick.psf, n_cuts=rows.num_rows
        ) as reader:
            gains = gains_of(reader, experiment)
            while done < rows.num_rows:
                batch = make_stamps(reader, rows.slice(done, ROWS_PER_BATCH), experiment, kernels, gains)
                done += batch.num_rows
                _count(batch, result)
                yield batch
    except BrickUnreadable as error:
        left = rows.slice(done)
        result.failures.append((brick.name, left.num_rows, type(error).__name__, str(error)))
        batch = failed_stamps(left, str(error), experiment, kernels)
        _count(batch, result)
        yield batch


def read_manifest_rows(brick: BrickRows) -> pa.Table:
    """Return a brick's manifest rows, sorted by task_id, at most `brick.rows` of them."""
    tables = []
    for url in brick.files:
        with open_part(url) as part:
            mine = pc.field("brickname") == brick.name
            tables.append(part.read(columns=MANIFEST.names).filter(mine))
    return pa.concat_tables(tables).sort_by("task_id").slice(0, brick.rows)


def _count(batch: pa.RecordBatch, result: TaskResult) -> None:
    ok = np.asarray(batch.column("cutout_ok")) == 1
    result.ok += int(ok.sum())
    reasons = batch.column("failure_reason").to_pylist()
    result.reasons.update(r for r, good in zip(reasons, ok, strict=True) if not good)
