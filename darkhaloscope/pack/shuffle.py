"""The two passes of the pack, each a task's work in bounded memory.

    count    one file of stamps: what its row groups hold, from a few narrow columns
    scatter  some row groups -> one scratch file, each shard's rows together as one Arrow message
    gather   one shard's messages out of every scratch file -> one part, in the order of the shuffle

A shard's bytes depend on its rows and the seed only: not on the order of files, their number, or retries.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import DatasetError, Part, open_part, part_key, write_part
from darkhaloscope.pack.packing import (
    ORDER,
    Layout,
    Shuffle,
    cells,
    labels,
    layout_of,
    packed_schema,
    pixel_rows,
    repack,
    shuffle_keys,
    taking_part,
)
from darkhaloscope.records import STAMPS
from darkhaloscope.schema import check_schema, refuse_unknown
from darkhaloscope.storage import join, read_range
from darkhaloscope.writing import atomic_output

_READERS = 8  # ranges fetched at a time: object stores answer slowly but in parallel


@dataclass(frozen=True)
class Piece:
    """One row group of a file of stamps, and how many of its rows have a stamp and take part."""

    url: str
    group: int
    rows: int


@dataclass(frozen=True)
class Counted:
    """What is in a file of stamps, of the rows that take part.

    Attributes:
        layout: of its stamps.
        pieces: its row groups that have any row with a stamp.
        good: split -> rows with a stamp.
        failed: rows without.
    """

    layout: Layout
    pieces: tuple[Piece, ...]
    good: dict[str, int]
    failed: int


@dataclass(frozen=True)
class Scattered:
    """A scratch file.

    Attributes:
        part: the file.
        offsets: (shard + 1,) where each shard's message starts in it; the last is its length.
        left_out: task_ids of rows whose pixels are not finite in the training type.
    """

    part: Part
    offsets: tuple[int, ...]
    left_out: tuple[str, ...]


def count(url: str, bound: tuple[str, str] | None) -> Counted:
    """Count the rows of one file of stamps.

    Raises:
        DatasetError: it is not readable.
        SchemaError: a missing, mistyped or unknown column, or stamps laid out in another way; all are named.
    """
    good: dict[str, int] = {}
    pieces, failed = [], 0
    with open_part(url) as part:
        check_schema(STAMPS, part.schema_arrow, url)
        refuse_unknown(STAMPS, part.schema_arrow, url)
        for group in range(part.num_row_groups):
            rows = part.read_row_group(group, columns=[*ORDER, "region_split", "cutout_ok"])
            rows = rows.filter(pa.array(taking_part(rows, bound)))
            made = rows.filter(pc.equal(rows["cutout_ok"], 1))
            failed += rows.num_rows - made.num_rows
            if made.num_rows:
                pieces.append(Piece(url, group, made.num_rows))
            for counted in pc.value_counts(made["region_split"]).to_pylist():
                good[counted["values"]] = good.get(counted["values"], 0) + counted["counts"]
        return Counted(layout_of(part.schema_arrow, url), tuple(pieces), good, failed)


class Held:
    """Rows of stamps held in memory in the order they came, given back in another.

    Pixels stay where they were read: only the rows asked for are copied, so that sorting needs no second copy.
    """

    def __init__(self, schema: pa.Schema, cell: int) -> None:
        self.schema, self.cell = schema, cell
        self._narrow = pa.schema([f for f in schema if f.name != "stamp"])
        self._batches: list[pa.RecordBatch] = []
        self._pixels: list[np.ndarray] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Hold some more rows."""
        self._pixels.append(pixel_rows(batch.column("stamp"), self.cell))
        self._batches.append(batch.select(self._narrow.names))

    def narrow(self) -> pa.Table:
        """Return all columns but the pixels, in the order the rows came."""
        return pa.Table.from_batches(self._batches, self._narrow).combine_chunks()

    def ordered(self, order: np.ndarray) -> Callable[[int, int], pa.RecordBatch]:
        """Return a function of (start, stop): the rows `order[start:stop]`."""
        rows = pa.concat_batches(self.narrow().take(pa.array(order)).to_batches() or [self._empty()])
        sizes = [len(p) for p in self._pixels]
        block = np.repeat(np.arange(len(sizes)), sizes)[order]
        row = np.concatenate([np.arange(n) for n in sizes] or [np.empty(0, np.int64)])[order]

        def between(start: int, stop: int) -> pa.RecordBatch:
            pixels = np.empty((stop - start, self.cell), np.uint8)
            for i in range(start, stop):
                pixels[i - start] = self._pixels[block[i]][row[i]]
            columns = {n: rows.column(n).slice(start, stop - start) for n in self._narrow.names}
            columns["stamp"] = cells(pixels)
            return pa.RecordBatch.from_arrays([columns[n] for n in self.schema.names], schema=self.schema)

        return between

    def _empty(self) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([], self._narrow)


def scatter(pieces: tuple[Piece, ...], root: str, chunk: int, attempt: int, shuffle: Shuffle) -> Scattered:
    """Write the rows of some row groups into one scratch file, shard by shard.

    Args:
        pieces: what to read; their rows, in the target's type, are held in memory.
        root: URL of the scratch dataset.
        chunk: its chunk that the file is for.
        attempt: number of the attempt.
        shuffle: where rows go.
    """
    schema = packed_schema(shuffle.target)
    held, left_out = Held(schema, shuffle.target.cell_bytes), []
    for batch, source in _good_rows(pieces, shuffle.bound):
        packed, fits = repack(batch, source, shuffle.target)
        left_out += batch.column("task_id").filter(pa.array(~fits)).to_pylist()
        held.add(packed)
    narrow = held.narrow()
    keys = shuffle_keys(narrow["task_id"].to_pylist(), shuffle.seed)
    shard = shuffle.place(keys, narrow["region_split"])
    order = np.argsort(shard, kind="stable")
    edges = np.searchsorted(shard[order], np.arange(shuffle.n_shards + 1))
    between, offsets = held.ordered(order), [0]
    key = part_key(chunk, 0, attempt, "arrow")
    with atomic_output(join(root, key)) as sink:
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                sink.write(between(int(start), int(stop)).serialize())
            offsets.append(sink.size)
    part = Part(key, len(order), sink.size, sink.sha.hexdigest())
    return Scattered(part, tuple(offsets), tuple(left_out))


def _good_rows(
    pieces: tuple[Piece, ...], bound: tuple[str, str] | None
) -> Iterator[tuple[pa.RecordBatch, Layout]]:
    for url in dict.fromkeys(p.url for p in pieces):
        with open_part(url) as part:
            layout = layout_of(part.schema_arrow, url)
            for group in (p.group for p in pieces if p.url == url):
                rows = part.read_row_group(group, columns=STAMPS.names)
                keep = taking_part(rows, bound) & (np.asarray(rows["cutout_ok"]) == 1)
                if not keep.all():
                    rows = rows.filter(pa.array(keep))
                for batch in rows.combine_chunks().to_batches():
                    yield batch, layout


def gather(
    number: int,
    ranges: list[tuple[str, int, int]],
    root: str,
    attempt: int,
    shuffle: Shuffle,
    codec: str,
    rows_per_group: int,
) -> tuple[Part, dict[str, Any]]:
    """Write one shard: its rows out of the scratch files, in the order of the shuffle.

    Args:
        number: of the shard, counted through all splits.
        ranges: (URL, start, stop) of its messages; they are held in memory.
        root: URL of the split's dataset; the shard's number in the split is its chunk.
        attempt: number of the attempt.
        shuffle: the order.
        codec: gzip, zstd or none.
        rows_per_group: rows of a row group.

    Returns:
        the part, and the facts of it that the index has (see `records.SHARDS`).

    Raises:
        DatasetError: a task_id occurs twice.
        StorageError: a scratch file is truncated or cannot be read.
    """
    schema = packed_schema(shuffle.target)
    split, chunk = shuffle.shard_in_split(number)
    held = Held(schema, shuffle.target.cell_bytes)
    with ThreadPoolExecutor(_READERS) as readers:
        for message in readers.map(lambda r: read_range(*r), [r for r in ranges if r[2] > r[1]]):
            held.add(pa.ipc.read_record_batch(pa.py_buffer(message), schema))
    narrow = held.narrow()
    order = shuffled_order(narrow["task_id"].to_pylist(), shuffle.seed)
    between, rows = held.ordered(order), len(order)
    batches = (between(a, min(a + rows_per_group, rows)) for a in range(0, rows, rows_per_group))
    part = write_part(root, chunk, 0, batches, schema, attempt, codec, rows_per_group)
    return part, {"split": split, "shard": chunk, **_facts(narrow.take(pa.array(order)))}


def shuffled_order(task_ids: list[str], seed: int) -> np.ndarray:
    """Return (n,) places of rows in the order of their keys; equal keys in the order of the ids.

    Raises:
        DatasetError: a task_id occurs twice: two rows would be the same stamp.
    """
    keys = pa.table({"key": shuffle_keys(task_ids, seed), "task_id": pa.array(task_ids, pa.string())})
    if twice := [t for t, n in Counter(task_ids).items() if n > 1]:
        raise DatasetError(f"task_ids that occur more than once, e.g. {twice[:3]}: remake the stamps")
    return np.asarray(pc.sort_indices(keys, sort_keys=[("key", "ascending"), ("task_id", "ascending")]))


def _facts(rows: pa.Table) -> dict[str, Any]:
    """Return the classes of a shard's rows, and how often a brick follows itself: no more than chance has it."""
    bricks = rows["brickname"].combine_chunks().dictionary_encode()
    code = np.asarray(bricks.indices)
    of_brick = np.bincount(code, minlength=1).astype(float)
    lenses = int(labels(rows).sum())
    return {
        "lenses": lenses,
        "others": rows.num_rows - lenses,
        "bricks": len(bricks.dictionary),
        "same_brick_neighbours": int((code[1:] == code[:-1]).sum()),
        "same_brick_by_chance": float((of_brick * (of_brick - 1)).sum() / max(len(code), 1)),
    }
