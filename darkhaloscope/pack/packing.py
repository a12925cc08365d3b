"""Pack: which training shard a stamp goes to, in which place, and its pixels in the training type."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.records import BANDS, STAMPS, stamp_metadata
from darkhaloscope.schema import SchemaError, to_batch
from darkhaloscope.stored import stored

ORDER = ("brickname", "task_id")  # in which the first N rows of a dataset are counted (--test-limit)
METADATA_BYTES = 800  # of a row beside its pixels, about


@dataclass(frozen=True)
class Layout:
    """How stamp cells are laid out: dtype ("float32", "float16") and side in pixels."""

    dtype: str
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one stamp: (band, y, x)."""
        return len(BANDS), self.size, self.size

    @property
    def cell_bytes(self) -> int:
        """Length of one stamp."""
        return int(np.prod(self.shape)) * self.pixel.itemsize

    @property
    def pixel(self) -> np.dtype:
        """Type of one pixel, little endian."""
        return np.dtype(self.dtype).newbyteorder("<")


@dataclass(frozen=True)
class Shuffle:
    """Where each stamp goes. A function of this and the row alone, so the same however rows are partitioned.

    Attributes:
        seed: of the order.
        shards: (split, number of its shards) pairs; shards are numbered through all splits.
        target: layout in the shards.
        bound: (brickname, task_id) of the last row that takes part, in `ORDER`; None: all do.
    """

    seed: int
    shards: tuple[tuple[str, int], ...]
    target: Layout
    bound: tuple[str, str] | None = None

    @property
    def n_shards(self) -> int:
        """Shards of all splits."""
        return sum(n for _, n in self.shards)

    def shard_in_split(self, number: int) -> tuple[str, int]:
        """Return (split, number within it) of a shard numbered through all splits."""
        for split, n in self.shards:
            if number < n:
                return split, number
            number -= n
        raise IndexError(number)

    def place(self, keys: np.ndarray, splits: pa.Array) -> np.ndarray:
        """Return (n,) int64 shard numbers of rows with these keys and splits."""
        number = np.full(len(keys), -1, np.int64)
        start = 0
        for split, n in self.shards:
            inside = np.asarray(pc.equal(splits, split))
            number[inside] = start + shard_of(keys[inside], n)
            start += n
        if (number < 0).any():
            unknown = sorted(set(splits.filter(pa.array(number < 0)).to_pylist()))
            raise SchemaError(f"region_split has {unknown}; expected one of {[s for s, _ in self.shards]}")
        return number


def shuffle_keys(task_ids: list[str], seed: int) -> np.ndarray:
    """Return (n,) int64 keys, uniform over 0 .. 2^63-1: the global order of the packed stamps.

    A key depends on the row's id and the seed only, so the shuffle is the same however rows are partitioned.
    """
    salt = seed.to_bytes(8, "little", signed=True)
    hashes = b"".join(hashlib.blake2b(t.encode(), digest_size=8, salt=salt).digest() for t in task_ids)
    return (np.frombuffer(hashes, "<u8") >> np.uint64(1)).astype(np.int64)


def shard_of(keys: np.ndarray, n_shards: int) -> np.ndarray:
    """Return (n,) int64 shard numbers: equal slices of the range of keys, so shards follow the shuffle."""
    return (keys.astype(np.float64) / 2.0**63 * n_shards).astype(np.int64).clip(0, n_shards - 1)


def count_shards(rows: int, layout: Layout, shard_mb: float) -> int:
    """Return how many shards of about `shard_mb` (10^6 bytes before compression) hold `rows` stamps."""
    return max(1, round(rows * (layout.cell_bytes + METADATA_BYTES) / (shard_mb * 1e6)))


def layout_of(schema: pa.Schema, where: str) -> Layout:
    """Return how a file of stamps says that they are laid out.

    Raises:
        SchemaError: it does not say so, or says something else than `records.stamp_metadata` would.
    """
    found = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    try:
        layout = Layout(found["stamp_dtype"], int(found["stamp_shape"].rsplit(",", 1)[1]))
        expected = stamp_metadata(layout.dtype, layout.size)
    except (KeyError, ValueError, IndexError) as error:
        raise SchemaError(f"{where}: its metadata does not say how stamps are laid out ({error!r})") from None
    if layout.dtype not in ("float16", "float32") or any(found.get(k) != v for k, v in expected.items()):
        raise SchemaError(f"{where}: stamps are laid out as {found}; expected {expected}, float16 or float32")
    return layout


def pixels_of(rows: pa.Table | pa.RecordBatch, where: str = "stamps") -> np.ndarray:
    """Return the stamps of rows, (n, band, y, x), as the table's metadata lays them out; a view where it can be.

    Raises:
        SchemaError: no layout in the metadata, a row without a stamp, or a stamp of another length.
    """
    layout = layout_of(rows.schema, where)
    pixels = pixel_rows(rows.column("stamp"), layout.cell_bytes, where).view(layout.pixel)
    return pixels.reshape(-1, *layout.shape)


def taking_part(rows: pa.Table | pa.RecordBatch, bound: tuple[str, str] | None) -> np.ndarray:
    """Return (n,) bool: the rows up to `bound` in `ORDER`, all where it is None."""
    if bound is None:
        return np.ones(rows.num_rows, bool)
    first, second = (rows.column(name) for name in ORDER)
    same = pc.and_(pc.equal(first, bound[0]), pc.less_equal(second, bound[1]))
    return np.asarray(pc.or_(pc.less(first, bound[0]), same))


def last_of_first(rows: pa.Table, limit: int) -> tuple[str, str] | None:
    """Return the bound that lets the first `limit` rows take part; None where there are no more than these."""
    if rows.num_rows <= limit:
        return None
    at = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in ORDER])[limit - 1].as_py()
    first, second = (rows.column(name)[at].as_py() for name in ORDER)
    return first, second


def labels(rows: pa.Table | pa.RecordBatch) -> np.ndarray:
    """Return (n,) bool: the stamp shows a lens."""
    return np.asarray(rows.column("label")) == 1


def repack(batch: pa.RecordBatch, source: Layout, target: Layout) -> tuple[pa.RecordBatch, np.ndarray]:
    """Recode the pixels of stamps to the training type, both little endian.

    Args:
        batch: STAMPS rows that have a stamp.
        source: layout of its stamps.
        target: layout wanted, of the same size.

    Returns:
        (the rows whose pixels are finite in the target type, (n,) bool: which of `batch` these are).

    Raises:
        SchemaError: a cell of another length than `source` says.
    """
    pixels = pixel_rows(batch.column("stamp"), source.cell_bytes).view(source.pixel)
    recoded = stored(pixels, target.dtype)
    fits = np.isfinite(recoded).all(axis=1)
    if not fits.all():
        batch, recoded = batch.filter(pa.array(fits)), recoded[fits]
    columns = {n: batch.column(n) for n in STAMPS.names}
    columns["stamp"] = cells(recoded.view(np.uint8))
    return to_batch(STAMPS, columns, stamp_metadata(target.dtype, target.size)), fits


def packed_schema(layout: Layout) -> pa.Schema:
    """Return the Arrow schema of packed shards: the stamp table with its pixel type in the metadata."""
    return STAMPS.arrow(stamp_metadata(layout.dtype, layout.size))


def cells(rows: np.ndarray) -> pa.Array:
    """Return (n, bytes) uint8 as a binary column, without a copy."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


def cell_bytes(column: pa.Array | pa.ChunkedArray, length: int, what: str) -> pa.UInt8Array:
    """View a column of binary or text cells that all have `length` bytes as bytes, (n * length,).

    Args:
        column: the cells; copied only where it is of several chunks.
        length: bytes each should have.
        what: file and column, for messages.

    Raises:
        SchemaError: a null, or a cell of another length; the first such row is named.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(column) + 1, column.offset * 4)
    found = np.diff(offsets)
    wrong = np.flatnonzero(found != length)
    if column.null_count or len(wrong):
        first = f"row {wrong[0]} has {found[wrong[0]]}, " if len(wrong) else ""
        raise SchemaError(
            f"{what} should have {length} bytes a row; {first}{column.null_count} rows are null; make the stamps again"
        )
    if not len(column):
        return pa.array([], pa.uint8())
    return pa.Array.from_buffers(pa.uint8(), len(column) * length, [None, data], offset=int(offsets[0]))


def pixel_rows(column: pa.Array | pa.ChunkedArray, length: int, where: str = "stamps") -> np.ndarray:
    """View a column of stamps that all have `length` bytes as (n, length) uint8; errors as of `cell_bytes`."""
    return cell_bytes(column, length, f"{where}: column 'stamp'").to_numpy().reshape(-1, length)
