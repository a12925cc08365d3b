"""Which rows there are to train on: committed files, their row groups, and what a selection keeps of them.

`open_shards` reads footers and a few narrow columns, never pixels. What it finds is all that the order of an
epoch depends on, so that the order is known before a stamp is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from darkhaloscope.dataset import committed_chunks, committed_files, content_hash, open_part
from darkhaloscope.records import STAMPS
from darkhaloscope.schema import check_schema
from darkhaloscope.storage import join

_OPENERS = 8  # files opened at a time: object stores answer slowly but in parallel


class DataError(RuntimeError):
    """Training data that cannot be used; the message names file, column or row and says what to do."""


@dataclass(frozen=True)
class Selection:
    """Which rows take part. A bound holds for both classes: controls carry their virtual injection.

    Attributes:
        split: value of region_split to keep; empty: all (the dataset holds one split only).
        minimum: (column, least value) pairs; a row with a null there does not take part.
    """

    split: str = ""
    minimum: tuple[tuple[str, float], ...] = ()

    @property
    def columns(self) -> list[str]:
        """Columns it reads."""
        return ["cutout_ok", *(["region_split"] if self.split else []), *(c for c, _ in self.minimum)]

    def keeps(self, table: pa.Table) -> np.ndarray:
        """Return which rows of `table` take part, (row,) bool."""
        keep = table.column("cutout_ok").to_numpy() == 1
        if self.split:
            keep &= pc.equal(table.column("region_split"), self.split).to_numpy()
        for column, least in self.minimum:
            # Rows without a stamp have nulls here: as NaN they fail the comparison.
            keep &= table.column(column).to_numpy() >= least
        return keep

    def __str__(self) -> str:
        bounds = [f"{column} >= {least:g}" for column, least in self.minimum]
        return " and ".join([*([f"region_split = {self.split}"] if self.split else []), "cutout_ok", *bounds])


@dataclass(frozen=True)
class Layout:
    """How a file's stamps are laid out."""

    dtype: str
    shape: tuple[int, ...]
    bands: str

    @property
    def cell_bytes(self) -> int:
        """Length of one stamp."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape))


@dataclass(frozen=True)
class Shards:
    """The rows of one split, row group by row group.

    Attributes:
        root: URL of the dataset.
        content_hash: of its committed parts.
        selection: which rows take part.
        layout: of the stamps.
        files: URLs.
        file: (group,) index into `files`.
        group: (group,) number of the row group in its file.
        rows: (group,) rows that the selection keeps; groups of which it keeps none are left out.
        total_rows: rows of the dataset, kept or not.
        positives: (before, after) the selection's bounds, of the rows with a stamp.
        negatives: the same for controls.
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
    rows: np.ndarray
    total_rows: int
    positives: tuple[int, int]
    negatives: tuple[int, int]
    meta_mean: tuple[float, ...]
    meta_std: tuple[float, ...]

    def facts(self) -> dict[str, object]:
        """Return what a log or checkpoint says of the data."""
        return {
            "root": self.root,
            "content_hash": self.content_hash,
            "selection": str(self.selection),
            "rows": int(self.rows.sum()),
            "rows_in_dataset": self.total_rows,
            "row_groups": len(self.rows),
            "positives": self.positives[1],
            "negatives": self.negatives[1],
            "positives_before_bounds": self.positives[0],
            "negatives_before_bounds": self.negatives[0],
        }


@dataclass(frozen=True)
class _File:
    layout: Layout
    group_rows: np.ndarray  # rows kept, per row group
    label: np.ndarray  # of the rows with a stamp
    keep: np.ndarray  # of the rows with a stamp
    meta: np.ndarray  # (row kept, column)
    total_rows: int


def open_split(
    root: str, split: str, minimum: Sequence[tuple[str, float]] = (), meta_cols: Sequence[str] = ()
) -> Shards:
    """Open one split of packed shards (`<root>/split=<split>/`), or of stage 4c's output by `region_split`.

    Raises:
        DataError, DatasetError, SchemaError: see `open_shards`.
    """
    packed = join(root, f"split={split}")
    if committed_chunks(packed):
        return open_shards(packed, Selection("", tuple(minimum)), meta_cols)
    if committed_chunks(root):
        return open_shards(root, Selection(split, tuple(minimum)), meta_cols)
    raise DataError(
        f"{root}: neither {packed} nor the place itself holds a committed chunk; "
        "run the pack stage first, or give --data the folder that has split=train below it"
    )


def open_shards(root: str, selection: Selection, meta_cols: Sequence[str] = ()) -> Shards:
    """Find what there is to read.

    Args:
        root: URL of a committed dataset of the STAMPS schema.
        selection: which rows take part.
        meta_cols: metadata columns to take mean and spread of.

    Raises:
        DataError: files that differ in layout, metadata that is null or NaN, no rows left, or one class only.
        DatasetError: nothing is committed there, or a file is not readable.
        SchemaError: a file lacks a column or has it with another type.
    """
    files = committed_files(root)
    with ThreadPoolExecutor(_OPENERS) as opener:
        found = list(opener.map(partial(_scan, selection=selection, meta_cols=meta_cols), files))
    for url, one in zip(files, found, strict=True):
        if one.layout != found[0].layout:
            raise DataError(f"{url}: stamps are {one.layout}, those of {files[0]} are {found[0].layout}")
    label, keep = np.concatenate([f.label for f in found]), np.concatenate([f.keep for f in found])
    meta = np.concatenate([f.meta for f in found])
    spread = meta.std(axis=0) if len(meta) else np.ones(len(meta_cols))
    rows = np.concatenate([f.group_rows for f in found])
    used = rows > 0
    shards = Shards(
        root=root,
        content_hash=content_hash(root),
        selection=selection,
        layout=found[0].layout,
        files=tuple(files),
        file=np.repeat(np.arange(len(found)), [len(f.group_rows) for f in found])[used],
        group=np.concatenate([np.arange(len(f.group_rows)) for f in found])[used],
        rows=rows[used],
        total_rows=sum(f.total_rows for f in found),
        positives=(int(label.sum()), int((label & keep).sum())),
        negatives=(int((~label).sum()), int((~label & keep).sum())),
        meta_mean=tuple(map(float, meta.mean(axis=0))) if len(meta) else (),
        # A column that never varies says nothing: leave it at 0 rather than divide by 0.
        meta_std=tuple(map(float, np.where(spread > 0, spread, 1.0))),
    )
    _check_classes(shards)
    return shards


def _check_classes(shards: Shards) -> None:
    positives, negatives = shards.positives[1], shards.negatives[1]
    if positives and negatives:
        return
    raise DataError(
        f"{shards.root}: {positives} positives and {negatives} negatives with {shards.selection} "
        f"(of {shards.total_rows} rows; {shards.positives[0]} and {shards.negatives[0]} before the bounds); "
        "training and validation need both: relax the bounds or make more stamps"
    )


def _scan(url: str, selection: Selection, meta_cols: Sequence[str]) -> _File:
    """Read footer and narrow columns of one file."""
    columns = list(dict.fromkeys(["is_control", *selection.columns, *meta_cols]))
    with open_part(url) as part:
        layout = read_layout(url, part.schema_arrow)
        check_schema(STAMPS, part.schema_arrow, url, [*columns, "stamp", "task_id"])
        try:
            table = part.read(columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{url}: damaged: {error}; remake the chunk it is in") from error
        sizes = group_sizes(part.metadata)
    keep = selection.keeps(table)
    made = table.column("cutout_ok").to_numpy() == 1
    if selection.split:
        made &= pc.equal(table.column("region_split"), selection.split).to_numpy()
    meta = np.stack(
        [table.column(c).to_numpy()[keep] for c in meta_cols], axis=1, dtype=np.float64
    ) if meta_cols else np.empty((int(keep.sum()), 0))  # fmt: skip
    if bad := [c for c, values in zip(meta_cols, meta.T, strict=True) if not np.isfinite(values).all()]:
        raise DataError(
            f"{url}: columns {bad} are null or NaN in rows that have a stamp; a network cannot take them"
        )
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    group_rows = np.diff(kept_before[np.cumsum([0, *sizes])])
    label = table.column("is_control").to_numpy() == 0
    return _File(layout, group_rows, label[made], keep[made], meta, table.num_rows)


def group_sizes(metadata: pq.FileMetaData) -> list[int]:
    """Return the rows of each row group of a file."""
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def read_layout(url: str, schema: pa.Schema) -> Layout:
    """Return how a file says its stamps are laid out.

    Raises:
        DataError: it does not say so, or says it in another way than `records.stamp_metadata`.
    """
    raw = {
        k.decode(): v.decode()
        for k, v in (schema.metadata or {}).items()
        if k.startswith((b"stamp_", b"bands"))
    }
    try:
        shape = tuple(int(n) for n in raw["stamp_shape"].split(","))
        layout = Layout(raw["stamp_dtype"], shape, raw["bands"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{url}: its metadata does not say how stamps are laid out ({error!r}); found {raw}; "
            "expected stamp_dtype, stamp_shape and bands, as stages 4c and pack write them"
        ) from None
    if layout.dtype not in ("float16", "float32"):
        raise DataError(f"{url}: stamp_dtype is {layout.dtype}; expected float16 or float32")
    return layout
