"""Rows as a network takes them: what training, validation and scoring all go through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from darkhaloscope.pack.packing import Layout, cell_bytes, layout_of
from darkhaloscope.records import BANDS, STAMPS
from darkhaloscope.schema import check_schema
from training.preprocess import Preprocessing, check_stamps
from training.selection import DataError

LEFT_OUT = -1.0  # label of a row that takes no part in the loss


class Batch(NamedTuple):
    """Some rows, as the network takes them; every field has the same first axis."""

    stamps: torch.Tensor  # (n, band, y, x) float16 or float32, nmgy/pixel
    label: torch.Tensor  # (n,) float32: 1 a lens, added or real; 0 none; `LEFT_OUT`
    sky_sigma: torch.Tensor  # (n, band) float32, nmgy/pixel; (n, 0) where the preprocessing does not need it
    meta: torch.Tensor  # (n, column) float32: raw values of the metadata columns
    task_id: torch.Tensor  # (n, 16) uint8: the digest
    extra: torch.Tensor  # (n, column) float64, NaN for null: what else was asked for; (n, 0) where nothing

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(t.to(device, non_blocking=True) for t in self))

    def task_ids(self) -> list[str]:
        """Return the ids as hex digits."""
        return [bytes(row).hex() for row in self.task_id.tolist()]


def batch_columns(preprocessing: Preprocessing) -> list[str]:
    """Return the columns of the stamps table that a batch is made of."""
    return ["task_id", "label", "stamp", *preprocessing.columns]


def make_batch(
    table: pa.Table | pa.RecordBatch, preprocessing: Preprocessing, where: str, extra: Sequence[str] = ()
) -> Batch:
    """Turn rows that have a stamp into a batch: what training, validation and scoring all go through.

    Args:
        table: rows with at least `batch_columns`; its metadata says how stamps are laid out.
        preprocessing: of the network that the batch is for.
        where: file (and row group) for messages.
        extra: further columns of numbers.

    Raises:
        SchemaError: a column is missing or of another type, a null or a stamp of another length, or the file does
            not say how stamps are laid out.
        PreprocessingError: stamps of another shape or other bands than the network takes.
        DataError: pixels that are NaN or infinite (rows are named).
    """
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    layout = layout_of(table.schema, where)
    check_stamps(preprocessing, layout.shape, BANDS, where)
    check_schema(STAMPS, table.schema, where, list(dict.fromkeys([*batch_columns(preprocessing), *extra])))
    task_id = _task_ids(table, where)
    stamps = _stamps(table, layout, where)
    _check_finite(stamps.numpy(), task_id, where)
    sky = [f"sky_sigma_{b}" for b in preprocessing.bands if f"sky_sigma_{b}" in preprocessing.columns]
    return Batch(
        stamps,
        torch.from_numpy(table.column("label").to_numpy().astype(np.float32)),
        _numbers(table, sky, where),
        _numbers(table, list(preprocessing.meta_cols), where),
        task_id,
        torch.from_numpy(
            np.stack([table.column(n).to_numpy().astype(np.float64) for n in extra], axis=1)
            if extra
            else np.empty((table.num_rows, 0))
        ),
    )


def _stamps(table: pa.Table, layout: Layout, where: str) -> torch.Tensor:
    """View the stamps as numbers, (n, band, y, x); by DLPack, since NumPy's view of Arrow's memory is read-only."""
    cells = cell_bytes(table.column("stamp"), layout.cell_bytes, f"{where}: column 'stamp'")
    return torch.from_dlpack(cells).view(getattr(torch, layout.dtype)).reshape(-1, *layout.shape)


def _task_ids(table: pa.Table, where: str) -> torch.Tensor:
    """Return the digests as bytes, (n, 16) uint8."""
    digits = cell_bytes(table.column("task_id"), 32, f"{where}: column 'task_id'").to_numpy().tobytes()
    try:
        return torch.frombuffer(bytearray.fromhex(digits.decode()), dtype=torch.uint8).reshape(-1, 16)
    except ValueError as error:
        raise DataError(f"{where}: task_id is not 32 hex digits: {error}") from None


def _numbers(table: pa.Table, names: list[str], where: str) -> torch.Tensor:
    """Return float columns side by side, (n, column) float32."""
    values = np.empty((table.num_rows, len(names)), np.float32)
    for i, name in enumerate(names):
        values[:, i] = table.column(name).to_numpy()
    if not np.isfinite(values).all():
        bad = [n for n, v in zip(names, values.T, strict=True) if not np.isfinite(v).all()]
        raise DataError(f"{where}: columns {bad} are null or NaN in rows that have a stamp")
    return torch.from_numpy(values)


def _check_finite(pixels: np.ndarray, task_id: torch.Tensor, where: str) -> None:
    """Refuse NaN and infinity, by comparing bit patterns: two maxima, no temporary of the stamps' size."""
    signed, unsigned = (np.int16, np.uint16) if pixels.itemsize == 2 else (np.int32, np.uint32)
    infinity = np.array(np.inf, pixels.dtype).view(unsigned)
    minus_infinity = np.array(-np.inf, pixels.dtype).view(unsigned)
    if not pixels.size or (
        pixels.view(signed).max() < infinity and pixels.view(unsigned).max() < minus_infinity
    ):
        return
    bad = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))
    names = [bytes(task_id[i].tolist()).hex() for i in bad[:5]]
    raise DataError(
        f"{where}: {len(bad)} stamps have NaN or infinite pixels, task_id {', '.join(names)}"
        f"{' and more' if len(bad) > 5 else ''}; stage 4c marks such cutouts cutout_ok = 0: make them again"
    )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Return the rows of several batches as one."""
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


class Pool:
    """Rows that are mixed with each other, in buffers that are filled again and again.

    Asking the system for fresh memory and touching it costs more than decoding a stamp.
    """

    def __init__(self, capacity: int, shared: bool) -> None:
        """Make an empty pool.

        Args:
            capacity: rows it holds at most; given once, so that it never grows.
            shared: batches go to another process, and are put into shared memory.
        """
        self.capacity, self.shared = capacity, shared
        self._buffers: Batch | None = None

    def fill(self, rows: int, batches: Iterable[Batch]) -> None:
        """Replace the content by the rows of `batches`, `rows` in all."""
        at = 0
        for batch in batches:
            if self._buffers is None:
                self._buffers = Batch(*(t.new_empty((self.capacity, *t.shape[1:])) for t in batch))
            stop = at + len(batch.label)
            for buffer, values in zip(self._buffers, batch, strict=True):
                buffer[at:stop] = values
            at = stop
        assert at == rows, f"{at} rows read, {rows} planned"

    def take(self, rows: np.ndarray) -> Batch:
        """Return some of the rows, as a batch of their own."""
        assert self._buffers is not None
        index = torch.from_numpy(rows)
        return Batch(*(torch.index_select(b, 0, index, out=self._empty(b, len(rows))) for b in self._buffers))

    def _empty(self, like: torch.Tensor, rows: int) -> torch.Tensor:
        shape = (rows, *like.shape[1:])
        if not self.shared:
            return like.new_empty(shape)
        size = rows * int(np.prod(like.shape[1:])) * like.element_size()
        return torch.tensor([], dtype=like.dtype).set_(torch.UntypedStorage._new_shared(size), 0, shape)
