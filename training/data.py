"""The loader: streams stamps from committed files, each row exactly once an epoch, in a repeatable order.

Requirement: at least as many row groups as lanes (ranks x workers). Promise: the batches of an epoch are a
function of (seed, epoch, ranks, workers, batch size) and the files alone; a stream started at (epoch,
position) goes on with the very next batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from darkhaloscope.dataset import open_part
from darkhaloscope.records import STAMPS
from darkhaloscope.schema import check_schema
from training import order
from training.preprocess import Preprocessing, check_stamps
from training.shards import DataError, Shards, read_layout

_POOL_ROWS = 2_048  # rows that are mixed with each other: 50 MB of float16 stamps
_PREFETCH = 4  # batches a worker prepares ahead
_OPEN_FILES = 8  # files a worker keeps open


class Batch(NamedTuple):
    """Some rows, as the network takes them; every field has the same first axis."""

    stamps: torch.Tensor  # (n, band, y, x) float16 or float32, nmgy/pixel
    label: torch.Tensor  # (n,) float32: 1 an injection, 0 a control
    sky_sigma: torch.Tensor  # (n, band) float32, nmgy/pixel; (n, 0) where the preprocessing does not need it
    meta: torch.Tensor  # (n, column) float32: raw values of the metadata columns
    task_id: torch.Tensor  # (n, 16) uint8: the digest

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(*(t.to(device, non_blocking=True) for t in self))

    def task_ids(self) -> list[str]:
        """Return the ids as hex digits."""
        return [bytes(row).hex() for row in self.task_id.tolist()]


def batch_columns(preprocessing: Preprocessing) -> list[str]:
    """Return the columns of the stamps table that a batch is made of."""
    return ["task_id", "is_control", "stamp", *preprocessing.columns]


def make_batch(table: pa.Table | pa.RecordBatch, preprocessing: Preprocessing, where: str) -> Batch:
    """Turn rows that have a stamp into a batch: what training, validation and scoring all go through.

    Args:
        table: rows with at least `batch_columns`; its metadata says how stamps are laid out.
        preprocessing: of the network that the batch is for.
        where: file (and row group) for messages.

    Raises:
        SchemaError: a column is missing or of another type.
        PreprocessingError: stamps of another shape or other bands than the network takes.
        DataError: a null or a stamp of another length, or pixels that are NaN or infinite (rows are named).
    """
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    layout = read_layout(where, table.schema)
    check_stamps(preprocessing, layout.shape, layout.bands, where)
    check_schema(STAMPS, table.schema, where, batch_columns(preprocessing))
    task_id = _task_ids(table, where)
    stamps = _cells(table, "stamp", layout.cell_bytes, layout.dtype, where).reshape(-1, *layout.shape)
    _check_finite(stamps.numpy(), task_id, where)
    sky = [f"sky_sigma_{b}" for b in preprocessing.bands if f"sky_sigma_{b}" in preprocessing.columns]
    return Batch(
        stamps,
        torch.from_numpy(1 - table.column("is_control").to_numpy().astype(np.float32)),
        _numbers(table, sky, where),
        _numbers(table, list(preprocessing.meta_cols), where),
        task_id,
    )


def _cells(table: pa.Table, name: str, length: int, dtype: str, where: str) -> torch.Tensor:
    """View a binary column whose cells all have `length` bytes as numbers, (n * length / itemsize,)."""
    column = table.column(name)
    cells = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    _, offset_buffer, data = cells.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(cells) + 1, cells.offset * 4)
    wrong = np.flatnonzero(np.diff(offsets) != length)
    if cells.null_count or len(wrong):
        found = f"row {wrong[0]} has {np.diff(offsets)[wrong[0]]}" if len(wrong) else "they have"
        raise DataError(
            f"{where}: cells of {name!r} should have {length} bytes; {found}, {cells.null_count} are null; "
            "make the stamps again"
        )
    numbers = pa.type_for_alias(dtype)
    width = numbers.bit_width // 8
    view = pa.Array.from_buffers(
        numbers, len(cells) * length // width, [None, data], offset=int(offsets[0]) // width
    )
    return torch.from_dlpack(view)


def _task_ids(table: pa.Table, where: str) -> torch.Tensor:
    """Return the digests as bytes, (n, 16) uint8."""
    digits = _cells(table, "task_id", 32, "uint8", where).numpy().tobytes()
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


@dataclass(frozen=True)
class World:
    """How many processes train together, and which of them this is."""

    rank: int = 0
    ranks: int = 1


class StampStream(IterableDataset[Batch]):
    """Batches of one split, epoch after epoch, for `DataLoader(batch_size=None)`; see `make_loader`."""

    def __init__(
        self,
        shards: Shards,
        preprocessing: Preprocessing,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        epochs: tuple[int, int] = (0, 1),
        position: int = 0,
        workers: int = 0,
        world: World = World(),
        pool_rows: int = _POOL_ROWS,
    ) -> None:
        """Plan a stream.

        Args:
            shards: the rows.
            preprocessing: decides which columns are read.
            batch_size: rows a batch has at most.
            seed: of the order.
            shuffle: False: the order of the files.
            epochs: first epoch, and the one after the last.
            position: batches of this rank already delivered in the first epoch.
            workers: worker processes of the DataLoader; 0: none.
            world: ranks.
            pool_rows: rows that are mixed with each other.

        Raises:
            DataError: fewer row groups than lanes, or a batch size below 2.
            PreprocessingError: stamps that the network does not take.
        """
        check_stamps(preprocessing, shards.layout.shape, shards.layout.bands, shards.root)
        self.shards, self.preprocessing, self.batch_size = shards, preprocessing, batch_size
        self.seed, self.shuffle, self.epochs, self.position = seed, shuffle, epochs, position
        self.workers, self.world, self.pool_rows = max(workers, 1), world, pool_rows
        self.lanes = self.world.ranks * self.workers
        if batch_size < 2:
            raise DataError(f"batch_size = {batch_size}; expected at least 2")
        if len(shards.rows) < self.lanes:
            raise DataError(
                f"{shards.root}: {len(shards.rows)} row groups for {self.lanes} readers "
                f"({self.world.ranks} ranks x {self.workers} workers); each needs at least one: "
                f"set --num_workers to at most {max(len(shards.rows) // self.world.ranks, 1)}, or pack "
                "again with fewer rows in a row group (pack.rows_per_group)"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one rank in an epoch; the same for every rank."""
        return self.workers * order.steps_per_lane(int(self.shards.rows.sum()), self.lanes, self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        if (info.num_workers if info else 1) != self.workers:
            raise DataError(f"planned for {self.workers} workers, run by {info.num_workers if info else 0}")
        # A DataLoader asks its worker 0 first; in mid-epoch the next batch may be another worker's.
        worker = ((info.id if info else 0) + self.position) % self.workers
        skip = order.delivered(self.position, worker, self.workers)
        for epoch in range(*self.epochs):
            yield from self._lane(epoch, self.world.rank * self.workers + worker, skip)
            skip = 0

    def _lane(self, epoch: int, lane: int, skip: int) -> Iterator[Batch]:
        """Yield one lane's batches of an epoch from its batch number `skip` on."""
        rows = self.shards.rows
        groups = order.group_order(len(rows), self.seed, epoch) if self.shuffle else np.arange(len(rows))
        segments = order.share(rows, groups, lane, self.lanes)
        steps = order.steps_per_lane(int(rows.sum()), self.lanes, self.batch_size)
        edges = order.edges(int((segments[:, 2] - segments[:, 1]).sum()), steps)
        batch, first, held = skip, 0, []  # held: slices of the batch that is being filled
        for number, pool in enumerate(order.pools(segments, self.pool_rows)):
            last = first + int((pool[:, 2] - pool[:, 1]).sum())
            if last > edges[batch]:  # else resumed beyond it: nothing to read
                stamps = self._read_pool(pool)
                mixed = torch.arange(last - first)
                if self.shuffle:
                    mixed = torch.from_numpy(order.pool_order(last - first, self.seed, epoch, lane, number))
                while batch < steps and edges[batch] < last:
                    start, stop = max(edges[batch], first), min(edges[batch + 1], last)
                    chosen = mixed[start - first : stop - first]
                    held.append(Batch(*(t[chosen] for t in stamps)))
                    if edges[batch + 1] > last:
                        break  # the rest of it is in the next pool
                    yield held[0] if len(held) == 1 else _concatenate(held)
                    batch, held = batch + 1, []
                del stamps
            first = last

    def _read_pool(self, pool: np.ndarray) -> Batch:
        return _concatenate([self._read_segment(*map(int, segment)) for segment in pool])

    def _read_segment(self, index: int, start: int, stop: int) -> Batch:
        """Read the rows start to stop of what the selection keeps of a row group."""
        shards = self.shards
        url, group = shards.files[shards.file[index]], int(shards.group[index])
        where = f"{url} row group {group}"
        wanted = list(dict.fromkeys([*batch_columns(self.preprocessing), *shards.selection.columns]))
        try:
            table = _open(url, os.getpid()).read_row_group(group, columns=wanted, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{where}: damaged: {error}; remake the chunk it is in") from error
        keep = shards.selection.keeps(table)
        if not keep.all():
            table = table.filter(pa.array(keep))
        if table.num_rows != shards.rows[index]:
            raise DataError(
                f"{where}: {table.num_rows} rows, {shards.rows[index]} when training began; it changed"
            )
        return make_batch(table.slice(start, stop - start), self.preprocessing, where)


@lru_cache(_OPEN_FILES)
def _open(url: str, process: int) -> pq.ParquetFile:
    """Open a file once per process: a forked worker that shared its parent's would share its position too."""
    return open_part(url)


def _concatenate(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))


def make_loader(stream: StampStream, num_workers: int, pin_memory: bool = False) -> DataLoader[Batch]:
    """Return the DataLoader of a stream planned for `num_workers`."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=_PREFETCH if num_workers else None,
        # Its own: a loader without one draws from torch's, and a resumed run would drop out other features.
        generator=torch.Generator().manual_seed(stream.seed),
    )
