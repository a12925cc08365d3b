"""Which rows there are to train on: committed files, their row groups, and what a selection keeps of them.

`open_split` reads footers and a few narrow columns, never pixels. What it finds is all that the order of an
epoch depends on, so that the order is known before a stamp is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import committed_chunks, committed_files, content_hash, open_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.pack.packing import Layout, layout_of
from darkhaloscope.records import SAMPLES, STAMPS
from darkhaloscope.schema import check_schema
from darkhaloscope.storage import join
from training import hard_negatives
from training.hard_negatives import HardNegatives, Matches
from training.selection import POSITIVE, DataError, Selection

_OPENERS = 8  # files opened at a time: object stores answer slowly but in parallel
_HARD = SAMPLES.index("hard_negative")


@dataclass(frozen=True)
class Shards:
    """The rows of one split, row group by row group.

    Attributes:
        root: URL of the dataset, or several with " + " between them.
        content_hash: of the committed parts.
        selection: which rows take part.
        layout: of the stamps.
        files: URLs.
        file: (group,) index into `files`.
        group: (group,) number of the row group in its file.
        first: (group + 1,) first of each group's rows in `row` and `kind`. Groups without rows are left out.
        row: (row,) int32 number of each row that takes part in its row group.
        kind: (row,) int8 what it is: index into `records.SAMPLES`.
        total_rows: rows of the dataset, kept or not.
        before_bounds: (kind,) rows with a stamp, before the selection's bounds.
        matches: of the list of hard negatives, where one was given.
        meta_mean: mean of each metadata column over the kept rows.
        meta_std: standard deviation of each.
    """

    root: str
    content_hash: str
    selection: Selection
    layout: Layout
    files: tuple[str, ...]
    file: np.ndarray
    group: np.ndarray
    first: np.ndarray
    row: np.ndarray
    kind: np.ndarray
    total_rows: int
    before_bounds: np.ndarray
    matches: Matches | None
    meta_mean: tuple[float, ...]
    meta_std: tuple[float, ...]

    @property
    def rows(self) -> np.ndarray:
        """Rows of each row group that take part, (group,)."""
        return np.diff(self.first)

    @property
    def kind_rows(self) -> np.ndarray:
        """Rows of each kind that take part, (kind,)."""
        return np.bincount(self.kind, minlength=len(SAMPLES))

    def facts(self) -> dict[str, object]:
        """Return what a log or checkpoint says of the data."""
        kinds = self.kind_rows
        facts: dict[str, object] = {
            "root": self.root,
            "content_hash": self.content_hash,
            "selection": str(self.selection),
            "rows": len(self.kind),
            "rows_in_dataset": self.total_rows,
            "row_groups": len(self.rows),
            "positives": int(kinds[POSITIVE].sum()),
            "negatives": int(kinds[~POSITIVE].sum()),
            "positives_before_bounds": int(self.before_bounds[POSITIVE].sum()),
            "negatives_before_bounds": int(self.before_bounds[~POSITIVE].sum()),
            "samples": dict(zip(SAMPLES, kinds.tolist(), strict=True)),
        }
        if self.matches is not None:
            matched = int(self.matches.entry.sum())
            facts["hard_negatives"] = {
                "entries": len(self.matches.entry),
                "matched": matched,
                "unmatched": len(self.matches.entry) - matched,
                "rows": self.matches.rows,
            }
        return facts


@dataclass(frozen=True)
class _File:
    layout: Layout
    group_rows: np.ndarray  # rows kept, per row group
    row: np.ndarray  # of each row kept, its number in its row group
    kind: np.ndarray  # of each row kept
    before_bounds: np.ndarray  # rows with a stamp, per kind
    meta: np.ndarray  # (row kept, column)
    total_rows: int
    matches: Matches | None


def open_split(
    data: str | Sequence[str],
    split: str,
    minimum: Sequence[tuple[str, float]] = (),
    meta_cols: Sequence[str] = (),
    metrics_ok: bool = False,
    hard_negatives: HardNegatives | None = None,
    live: Experiment | None = None,
) -> Shards:
    """Open one split of one or several datasets.

    Args:
        data: URLs of packed shards (`<root>/split=<split>/`) or of stage 4c's output, of which rows are taken by
            `region_split`. Several are read as one.
        split: train, val or test.
        minimum: see `Selection`.
        meta_cols: metadata columns to take mean and spread of.
        metrics_ok: see `Selection`.
        hard_negatives: mined negatives: rows on this list are of the kind hard_negative.
        live: see `Selection`.

    Raises:
        DataError: no committed chunk; files that differ in layout; metadata that is null or NaN; rows whose
            label is not their sample's; no rows left, or one class only; no hard negative found.
        DatasetError: a file is not readable.
        SchemaError: a file lacks a column or has it with another type.
    """
    places = []
    for root in [data] if isinstance(data, str) else data:
        packed = join(root, f"split={split}")
        if committed_chunks(packed):
            places.append((packed, Selection("", tuple(minimum), metrics_ok, live)))
        elif committed_chunks(root):
            places.append((root, Selection(split, tuple(minimum), metrics_ok, live)))
        else:
            raise DataError(
                f"{root}: neither {packed} nor the place itself holds a committed chunk; "
                "run the pack stage first, or give --data the folder that has split=train below it"
            )
    return open_shards(places, meta_cols, hard_negatives)


def open_shards(
    places: Sequence[tuple[str, Selection]],
    meta_cols: Sequence[str] = (),
    hard: HardNegatives | None = None,
) -> Shards:
    """Find what there is to read at (URL of a committed dataset, selection) pairs; see `open_split`."""
    files = [(url, selection) for root, selection in places for url in committed_files(root)]
    with ThreadPoolExecutor(_OPENERS) as opener:
        found = list(opener.map(partial(_scan, meta_cols=meta_cols, hard=hard), *zip(*files, strict=True)))
    for (url, _), one in zip(files, found, strict=True):
        if one.layout != found[0].layout:
            raise DataError(
                f"{url}: stamps are {one.layout}, those of {files[0][0]} are {found[0].layout}; "
                "pack both with the same pack.dtype and size"
            )
    meta = np.concatenate([f.meta for f in found])
    spread = meta.std(axis=0) if len(meta) else np.ones(len(meta_cols))
    rows = np.concatenate([f.group_rows for f in found])
    used = rows > 0
    root = " + ".join(root for root, _ in places)
    shards = Shards(
        root=root,
        content_hash=_hash_of([content_hash(root) for root, _ in places]),
        selection=places[0][1],
        layout=found[0].layout,
        files=tuple(url for url, _ in files),
        file=np.repeat(np.arange(len(found)), [len(f.group_rows) for f in found])[used],
        group=np.concatenate([np.arange(len(f.group_rows)) for f in found])[used],
        first=np.concatenate([[0], np.cumsum(rows[used])]),
        row=np.concatenate([f.row for f in found]),
        kind=np.concatenate([f.kind for f in found]),
        total_rows=sum(f.total_rows for f in found),
        before_bounds=np.sum([f.before_bounds for f in found], axis=0),
        matches=_merged(hard, [f.matches for f in found], root),
        meta_mean=tuple(map(float, meta.mean(axis=0))) if len(meta) else (),
        # A column that never varies says nothing: leave it at 0 rather than divide by 0.
        meta_std=tuple(map(float, np.where(spread > 0, spread, 1.0))),
    )
    _check_classes(shards)
    return shards


def _hash_of(hashes: list[str]) -> str:
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def _merged(hard: HardNegatives | None, found: list[Matches | None], where: str) -> Matches | None:
    """Return the counts of all files together, None where there is no list."""
    if hard is None:
        return None
    total = Matches(np.zeros(len(hard), bool))
    for one in found:
        if one is not None:
            total.add(one)
    hard_negatives.check_matches(hard, total, where)
    return total


def _check_classes(shards: Shards) -> None:
    facts = shards.facts()
    if facts["positives"] and facts["negatives"]:
        return
    advice = "relax the bounds or make more stamps"
    if shards.selection.live:
        advice += (
            "; a host whose control is unpaired never gets an arc: make bare stamps of all hosts with "
            "training/make_shards.py, or with injection.control_frac = 1, or pack paired controls"
        )
    elif not facts["positives"]:
        advice += "; bare stamps, as training/make_shards.py makes, need --live_injection"
    raise DataError(
        f"{shards.root}: {facts['positives']} positives and {facts['negatives']} negatives with "
        f"{shards.selection} (of {shards.total_rows} rows; {facts['positives_before_bounds']} and "
        f"{facts['negatives_before_bounds']} before the bounds); "
        f"training and validation need both: {advice}"
    )


def _scan(url: str, selection: Selection, meta_cols: Sequence[str], hard: HardNegatives | None) -> _File:
    """Read footer and narrow columns of one file."""
    matching = hard_negatives.COLUMNS if hard else ()
    columns = list(dict.fromkeys(["label", "sample", *selection.columns, *meta_cols, *matching]))
    with open_part(url) as part:
        layout = layout_of(part.schema_arrow, url)
        check_schema(STAMPS, part.schema_arrow, url, [*columns, "stamp", "task_id"])
        try:
            table = part.read(columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{url}: damaged: {error}; remake the chunk it is in") from error
        meta = part.metadata
        sizes = np.array([meta.row_group(i).num_rows for i in range(meta.num_row_groups)], np.int64)
    candidates, keep, kind = (
        selection.candidates(table),
        selection.keeps(table),
        selection.classed(table, _kinds(table, url)),
    )
    matches = None
    if hard:
        marked, matches = hard_negatives.match(hard, table, keep)
        kind[marked] = _HARD
    number = np.arange(table.num_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    return _File(
        layout,
        np.diff(kept_before[np.concatenate([[0], np.cumsum(sizes)])]),
        number[keep].astype(np.int32),
        kind[keep],
        np.bincount(kind[candidates], minlength=len(SAMPLES)),
        _metadata(table, keep, meta_cols, url),
        table.num_rows,
        matches,
    )


def _kinds(table: pa.Table, url: str) -> np.ndarray:
    """Return what each row is, (row,) int8 index into SAMPLES."""
    kind = pc.index_in(table.column("sample"), pa.array(SAMPLES)).fill_null(-1).to_numpy().astype(np.int8)
    label = table.column("label").to_numpy()
    if (wrong := (kind < 0) | (POSITIVE[kind] != (label == 1))).any():
        example = table.column("sample")[int(np.flatnonzero(wrong)[0])].as_py()
        raise DataError(
            f"{url}: {wrong.sum()} rows whose sample is unknown or contradicts their label, such as "
            f"{example!r} with label {label[wrong][0]}; expected one of {list(SAMPLES)}: make the stamps again"
        )
    return kind


def _metadata(table: pa.Table, keep: np.ndarray, meta_cols: Sequence[str], url: str) -> np.ndarray:
    """Return the metadata columns of the rows kept, (row, column) float64."""
    meta = np.empty((int(keep.sum()), len(meta_cols)))
    for i, name in enumerate(meta_cols):
        meta[:, i] = table.column(name).to_numpy()[keep]
    if bad := [c for c, values in zip(meta_cols, meta.T, strict=True) if not np.isfinite(values).all()]:
        raise DataError(
            f"{url}: columns {bad} are null or NaN in rows that have a stamp; a network cannot take them: "
            "leave them out of --meta_cols"
        )
    return meta
