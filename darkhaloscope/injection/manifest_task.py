"""What a task of stage 4a does: look through some files of targets, or lay out the rows of a range of bricks.

A range of bricks is read from the target files that have hosts there, laid out, sorted by brick and task_id, and
written as one part. No task holds more than one range, and the driver none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import DatasetError, Part, open_part, write_part
from darkhaloscope.draws import digest, digests, uniforms
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.balance import AXES, Tallies, Tally
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.selection import Selection, columns_of
from darkhaloscope.injection.total_light import NEEDED, total_magnitude_r
from darkhaloscope.records import MANIFEST, SPLITS, TARGETS
from darkhaloscope.schema import check_schema, refuse_unknown

ROWS_AT_A_TIME = 50_000  # targets read or rows laid out together


@dataclass(frozen=True)
class Targets:
    """Some of the targets' files; hosts after `last`, a (brick, host_id), are left out."""

    urls: tuple[str, ...]
    last: tuple[str, int] | None = None


@dataclass(frozen=True)
class BrickRange:
    """Bricks `first` to `last` by name, and the files that have their hosts."""

    first: str
    last: str
    targets: Targets


@dataclass
class RangeResult:
    """What was laid out of a range: its part, rows by split and class, hosts, and the classes' tallies."""

    part: Part
    rows: Counter[str] = field(default_factory=Counter)
    hosts: int = 0
    bricks: int = 0
    tallies: Tallies = field(default_factory=dict)


@dataclass(frozen=True)
class FileBricks:
    """The bricks of one file: names, catalogue numbers (of the host ids) and hosts of each, (n,) each."""

    url: str
    name: np.ndarray
    number: np.ndarray
    hosts: np.ndarray


def bricks_of(url: str) -> FileBricks:
    """Count a file's targets by brick.

    Raises:
        SchemaError: it is no target table.
    """
    with open_part(url) as part:
        check_schema(TARGETS, part.schema_arrow, url)
        refuse_unknown(TARGETS, part.schema_arrow, url)
    counted: Counter[tuple[str, int]] = Counter()
    for batch in pieces(Targets((url,)), ["brickname", "host_id"]):
        number = pc.bit_wise_and(pc.shift_right(batch.column("host_id"), 16), (1 << 24) - 1)
        table = pa.table({"name": batch.column("brickname"), "number": number}).group_by(["name", "number"])
        found = table.aggregate([([], "count_all")]).to_pydict()
        names = zip(found["name"], found["number"], strict=True)
        counted.update(dict(zip(names, found["count_all"], strict=True)))
    return FileBricks(
        url,
        np.array([name for name, _ in counted], "U8"),
        np.array([number for _, number in counted], np.int64),
        np.array(list(counted.values()), np.int64),
    )


def pieces(
    targets: Targets, columns: list[str], bricks: tuple[str, str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the targets' rows, some thousands at a time; those of a range of bricks where one is given."""
    names = list(dict.fromkeys([*columns, "brickname", "host_id"]))
    for url in targets.urls:
        with open_part(url) as part:
            groups = [g for g in range(part.num_row_groups) if bricks is None or _overlaps(part, g, bricks)]
            if not groups:
                continue
            for batch in part.iter_batches(ROWS_AT_A_TIME, row_groups=groups, columns=names):
                kept = _kept(batch, targets.last, bricks)
                batch = batch if kept is None else batch.filter(kept)
                if batch.num_rows:
                    yield batch


def _overlaps(part: Any, group: int, bricks: tuple[str, str]) -> bool:
    at = part.schema_arrow.get_field_index("brickname")
    found = part.metadata.row_group(group).column(at).statistics
    return found is None or not found.has_min_max or (found.min <= bricks[1] and found.max >= bricks[0])


def _kept(
    batch: pa.RecordBatch, last: tuple[str, int] | None, bricks: tuple[str, str] | None
) -> pa.Array | None:
    kept = None
    name = batch.column("brickname")
    if bricks is not None:
        kept = pc.and_(pc.greater_equal(name, bricks[0]), pc.less_equal(name, bricks[1]))
    if last is not None:
        of_last = pc.and_(pc.equal(name, last[0]), pc.less_equal(batch.column("host_id"), last[1]))
        early = pc.or_(pc.less(name, last[0]), of_last)
        kept = early if kept is None else pc.and_(kept, early)
    return kept


def look_through(
    targets: Targets, columns: list[str], function: Callable[[pa.RecordBatch], Any]
) -> list[Any]:
    """Return `function` of every piece of the targets."""
    return [function(batch) for batch in pieces(targets, columns)]


def taken_by_brick(targets: pa.RecordBatch, selection: Selection) -> dict[str, int]:
    """Return how many hosts are taken of each brick that has any."""
    taken = targets.column("brickname").filter(pa.array(selection.takes(columns_of(targets))))
    found = pc.value_counts(taken)
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


def total_magnitude(hosts: pa.RecordBatch, experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Return the host (its place) and the host-plus-arc r magnitude of every injection on these hosts."""
    rows = lay_out_injections(hosts, experiment)
    order = np.argsort(hosts.column("host_id").to_numpy(), kind="stable")
    host = order[
        np.searchsorted(hosts.column("host_id").to_numpy()[order], rows.column("host_id").to_numpy())
    ]
    return host, total_magnitude_r({n: rows.column(n).to_numpy() for n in NEEDED})


def lay_out_range(
    bricks: BrickRange, selection: Selection, output: str, chunk: int, index: int, attempt: int, sample: float
) -> RangeResult:
    """Lay out and write the rows of a range of bricks.

    Args:
        bricks: the range.
        selection: which of its hosts make rows.
        output: URL of the dataset.
        chunk: number of the chunk.
        index: number of the task in it.
        attempt: number of the attempt.
        sample: share of the hosts whose total magnitude is estimated for the classes' balance.

    Raises:
        DatasetError: a host or a task_id occurs twice.
    """
    experiment = selection.experiment
    batches, hosts = [], []
    for piece in pieces(bricks.targets, TARGETS.names, (bricks.first, bricks.last)):
        chosen = piece.filter(pa.array(selection.takes(columns_of(piece))))
        hosts.append(chosen.column("host_id").to_numpy())
        if chosen.num_rows:
            batches.append(lay_out_injections(chosen, experiment))
    _refuse_repeated(np.concatenate([*hosts, np.zeros(0, np.int64)]), "host_id", bricks)
    table = pa.Table.from_batches(batches, MANIFEST.arrow())
    table = table.sort_by([("brickname", "ascending"), ("task_id", "ascending")])
    _refuse_repeated(table.column("task_id"), "task_id", bricks)
    part = write_part(output, chunk, index, table.to_batches(), MANIFEST.arrow(), attempt)
    result = RangeResult(part, hosts=sum(map(len, hosts)), bricks=len(table.column("brickname").unique()))
    result.rows.update(count_rows(table))
    result.tallies = tallies_of(table, experiment.seed, sample)
    return result


def _refuse_repeated(values: Any, name: str, bricks: BrickRange) -> None:
    found = pc.value_counts(values if isinstance(values, pa.ChunkedArray) else pa.array(values))
    repeated = found.filter(pc.greater(found.field("counts"), 1)).field("values").to_pylist()
    if repeated:
        raise DatasetError(
            f"bricks {bricks.first} to {bricks.last}: {len(repeated)} values of {name} occur more than once, e.g. "
            f"{repeated[:3]}: two rows would be the same stamp; drop the duplicates of the target table"
        )


def count_rows(table: pa.Table) -> dict[str, int]:
    """Return rows by "split/sample"."""
    found = table.group_by(["region_split", "sample"]).aggregate([([], "count_all")]).to_pydict()
    names = zip(found["region_split"], found["sample"], strict=True)
    return {f"{s}/{c}": n for (s, c), n in zip(names, found["count_all"], strict=True)}


def tallies_of(table: pa.Table, seed: int, sample: float) -> Tallies:
    """Count a manifest's quantities by class, once a host and class; total magnitudes of a `sample` of the hosts."""
    host, label = (table.column(n).to_numpy() for n in ("host_id", "label"))
    order = np.lexsort((label, host))
    again = (np.diff(host[order]) == 0) & (np.diff(label[order]) == 0)
    once = table.take(pa.array(np.sort(np.delete(order, np.flatnonzero(again) + 1))))
    positive = once.column("label").to_numpy().astype(np.int64)
    split = pc.index_in(once.column("region_split"), pa.array(SPLITS)).to_numpy()
    tallies = {
        axis: Tally.of(axis, once.column(axis).to_numpy(), split, positive)
        for axis in AXES
        if axis != "total_mag_r"
    }
    lot = digests(digest("total magnitude sample", seed), once.column("host_id").to_numpy())
    some = uniforms(lot, 0, 1)[:, 0] < sample
    total = once.column("mag_r").to_numpy().astype(np.float64)
    lit = np.flatnonzero(some & (once.column("is_control").to_numpy() == 0))
    total[lit] = total_magnitude_r({n: once.column(n).to_numpy()[lit] for n in NEEDED})
    tallies["total_mag_r"] = Tally.of("total_mag_r", total[some], split[some], positive[some])
    return tallies
