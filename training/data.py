"""The loader: streams stamps from committed files, each row exactly once an epoch, in a repeatable order.

Requirement: at least as many row groups as lanes (ranks x workers). Promise: the order of an epoch is a
function of (seed, epoch), the batches one of that and (ranks, workers, batch size, mixture) alone; a stream
started at (epoch, position) goes on with the very next batch, whatever had been prefetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from darkhaloscope.dataset import open_part
from darkhaloscope.records import BANDS, SAMPLES
from darkhaloscope.storage import is_local
from training import order
from training.batch import Batch, Pool, batch_columns, concatenate, make_batch
from training.live import HOST_COLUMNS, LiveBatch, LiveInjection
from training.mixture import Mixture, Visits, plan_visits, showings
from training.preprocess import Preprocessing, check_stamps
from training.selection import POSITIVE, DataError
from training.shards import Shards

_POOL_BYTES = 64 << 20  # of the rows that are mixed with each other: 2,730 float16 stamps
_PIECE_BYTES = 4 << 20  # of the rows decoded at a time
_PREFETCH = 4  # batches a worker prepares ahead
_OPEN_FILES = 8  # files a worker keeps open
_LONG = 16  # rows of a run, on average, from which views of runs cost less than a copy of all


@dataclass(frozen=True)
class World:
    """How many processes train together, and which of them this is."""

    rank: int = 0
    ranks: int = 1


class StampStream(IterableDataset[Batch | LiveBatch]):
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
        mixture: Mixture | None = None,
        pool_rows: int | None = None,
        live: LiveInjection | None = None,
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
            mixture: how often an epoch shows what; None: every row once.
            pool_rows: rows that are mixed with each other; None: 64 MiB of stamps.
            live: what plans the arcs of bare stamps; the stream then gives a `LiveBatch` for each batch.

        Raises:
            DataError: fewer row groups (or rows to show) than lanes, a batch size below 2, or a mixture that
                leaves one class empty.
            PreprocessingError: stamps that the network does not take.
        """
        check_stamps(preprocessing, shards.layout.shape, BANDS, shards.root)
        self.shards, self.preprocessing, self.batch_size = shards, preprocessing, batch_size
        self.seed, self.shuffle, self.epochs, self.position = seed, shuffle, epochs, position
        self.workers, self.world = max(workers, 1), world
        self.live, self.extra = live, HOST_COLUMNS if live else ()
        self.pool_rows = pool_rows or max(_POOL_BYTES // shards.layout.cell_bytes, 1)
        self.lanes = self.world.ranks * self.workers
        self.shown = showings(mixture, shards.kind_rows, shards.root) if mixture else shards.kind_rows
        self._check()

    def _check(self) -> None:
        """Refuse a plan in which a lane has nothing to do, or a batch has no two rows."""
        if self.batch_size < 2:
            raise DataError(f"batch_size = {self.batch_size}; expected at least 2")
        if len(self.shards.rows) < self.lanes:
            raise DataError(
                f"{self.shards.root}: {len(self.shards.rows)} row groups for {self.lanes} readers "
                f"({self.world.ranks} ranks x {self.workers} workers); each needs at least one: "
                f"set --num_workers to at most {max(len(self.shards.rows) // self.world.ranks, 1)}, or pack "
                "again with fewer rows in a row group (pack.rows_per_group)"
            )
        if self.shown.sum() < self.lanes:
            raise DataError(
                f"{self.shards.root}: an epoch shows {self.shown.sum()} rows, to {self.lanes} readers; "
                "use fewer workers, or raise the weights"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one rank in an epoch; the same for every rank and epoch."""
        return self.workers * order.steps_per_lane(int(self.shown.sum()), self.lanes, self.batch_size)

    def facts(self) -> dict[str, object]:
        """Return what a log says of an epoch: rows shown of each kind, repeats counted, and their ratio."""
        positives, negatives = int(self.shown[POSITIVE].sum()), int(self.shown[~POSITIVE].sum())
        return {
            "shown": dict(zip(SAMPLES, self.shown.tolist(), strict=True)),
            "negatives_per_positive": negatives / positives if positives else None,
            "steps_per_epoch": self.steps_per_epoch,
        }

    def __iter__(self) -> Iterator[Batch | LiveBatch]:
        info = get_worker_info()
        if (info.num_workers if info else 1) != self.workers:
            raise DataError(f"planned for {self.workers} workers, run by {info.num_workers if info else 0}")
        # A DataLoader asks its worker 0 first; in mid-epoch the next batch may be another worker's.
        worker = ((info.id if info else 0) + self.position) % self.workers
        skip = order.delivered(self.position, worker, self.workers)
        most = min(self.pool_rows + int(self.shards.rows.max()), int(self.shown.sum()))
        pool = Pool(most, shared=info is not None)
        for epoch in range(*self.epochs):
            batches = self._lane(epoch, self.world.rank * self.workers + worker, skip, pool)
            yield from batches if self.live is None else (self.live.plan(b, epoch) for b in batches)
            skip = 0

    def _lane(self, epoch: int, lane: int, skip: int, pool: Pool) -> Iterator[Batch]:
        """Yield one lane's batches of an epoch from its batch number `skip` on."""
        groups = len(self.shards.rows)
        place = order.group_places(groups, self.seed, epoch) if self.shuffle else np.arange(groups) / groups
        visits = plan_visits(self.shards, self.shown, place, self.seed, epoch)
        segments = order.deal(visits.sizes, self.lanes)[lane]
        lengths = segments[:, 2] - segments[:, 1]
        steps = order.steps_per_lane(int(self.shown.sum()), self.lanes, self.batch_size)
        edges = order.edges(int(lengths.sum()), steps)
        batch, first, held = skip, 0, []  # held: slices of the batch that is being filled
        for number, part in enumerate(order.pools(lengths, visits.order[segments[:, 0], 0], self.pool_rows)):
            last = first + int(lengths[part].sum())
            if last > edges[batch]:  # else resumed beyond it: nothing to read
                pool.fill(
                    last - first, (b for s in segments[part].tolist() for b in self._read(visits, epoch, *s))
                )
                mixed = np.arange(last - first)
                if self.shuffle:
                    mixed = order.pool_order(last - first, self.seed, epoch, lane, number)
                while batch < steps and edges[batch] < last:
                    start, stop = max(edges[batch], first), min(edges[batch + 1], last)
                    held.append(pool.take(mixed[start - first : stop - first]))
                    if edges[batch + 1] > last:
                        break  # the rest of it is in the next pool
                    yield held[0] if len(held) == 1 else concatenate(held)
                    batch, held = batch + 1, []
            first = last

    def _read(self, visits: Visits, epoch: int, visit: int, start: int, stop: int) -> Iterator[Batch]:
        """Read the rows start to stop of those that a visit shows, in pieces that fit a processor's cache."""
        shards, index = self.shards, int(visits.order[visit, 0])
        url, group = shards.files[shards.file[index]], int(shards.group[index])
        where = f"{url} row group {group}"
        rows = shards.first[index] + visits.rows(visit)[start:stop]
        wanted, kind = shards.row[rows], shards.kind[rows]
        size, before = max(_PIECE_BYTES // shards.layout.cell_bytes, 1), 0
        try:
            part = _open(url, os.getpid())
            metadata = part.schema_arrow.metadata
            columns = list(dict.fromkeys([*batch_columns(self.preprocessing), *self.extra]))
            for piece in part.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
                at, end = np.searchsorted(wanted, (before, before + piece.num_rows))
                for own in _runs(piece.replace_schema_metadata(metadata), wanted[at:end] - before):
                    batch = make_batch(own, self.preprocessing, where, self.extra)
                    if self.live is not None:
                        batch = self.live.classed(batch, kind[at : at + own.num_rows], epoch)
                    yield batch
                    at += own.num_rows
                before += piece.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{where}: damaged: {error}; remake the chunk it is in") from error
        if wanted[-1] >= before:
            raise DataError(f"{where}: {before} rows, more when training began; it changed")


def _runs(piece: pa.RecordBatch, rows: np.ndarray) -> list[pa.RecordBatch]:
    """Return some rows of a piece: as views of their runs where these are long, or a copy costs a tenth of decoding."""
    if not len(rows):
        return []
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    if len(rows) < _LONG * len(runs):
        return [piece.take(pa.array(rows))]
    return [piece.slice(int(run[0]), len(run)) for run in runs]


@lru_cache(_OPEN_FILES)
def _open(url: str, process: int) -> pq.ParquetFile:
    """Open a file once per process: a forked worker that shared its parent's would share its position too."""
    return open_part(url)


def make_loader(stream: StampStream, num_workers: int, pin_memory: bool = False) -> DataLoader[Any]:
    """Return the DataLoader of a stream planned for `num_workers`."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=_PREFETCH if num_workers else None,
        # Clients of object stores have threads, which a fork leaves behind: the worker would wait for ever.
        multiprocessing_context="spawn" if num_workers and not is_local(stream.shards.files[0]) else None,
        # Its own: a loader without one draws from torch's, and a resumed run would drop out other features.
        generator=torch.Generator().manual_seed(stream.seed),
    )
