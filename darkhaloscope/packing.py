"""Pack: which training shard a stamp goes to, in which place, and its pixels in the training type."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from darkhaloscope.records import STAMPS, stamp_metadata
from darkhaloscope.schema import SchemaError, to_batch


def shuffle_keys(task_ids: list[str], seed: int) -> np.ndarray:
    """Return (n,) int64 keys, uniform over 0 .. 2^63-1: the global order of the packed stamps.

    A key depends on the row's id and the seed only, so the shuffle is the same however rows are partitioned.
    """
    salt = seed.to_bytes(8, "little", signed=True)
    hashes = (hashlib.blake2b(t.encode(), digest_size=8, salt=salt).digest() for t in task_ids)
    return np.array([int.from_bytes(h, "little") >> 1 for h in hashes], np.int64)


def shard_of(keys: np.ndarray, n_shards: int) -> np.ndarray:
    """Return (n,) int32 shard numbers: equal slices of the range of keys, so shards follow the shuffle."""
    return (keys.astype(np.float64) / 2.0**63 * n_shards).astype(np.int32).clip(0, n_shards - 1)


def training_pixels(stamps: pa.Array, source: str, target: str) -> pa.Array:
    """Recode stamp cells from one dtype to another ("float32", "float16"), both little endian.

    float16 keeps 11 bits: 1/2000 of a pixel's own value, below its noise from about 1e-4 to 6e4 nmgy.

    Raises:
        SchemaError: a pixel is outside float16's range.
    """
    if source == target:
        return stamps
    cells = []
    for cell in stamps:
        pixels = np.frombuffer(cell.as_buffer(), np.dtype(source).newbyteorder("<"))
        with np.errstate(over="ignore"):
            recoded = pixels.astype(np.dtype(target).newbyteorder("<"))
        if not np.isfinite(recoded).all():
            raise SchemaError(f"stamp with a pixel of {np.abs(pixels).max():g} nmgy does not fit {target}")
        cells.append(recoded.tobytes())
    return pa.array(cells, pa.binary())


def packed_schema(dtype: str, size: int) -> pa.Schema:
    """Return the Arrow schema of packed shards: the stamp table with its pixel type in the metadata."""
    return STAMPS.arrow(stamp_metadata(dtype, size))


def repack(batch: pa.RecordBatch, source: str, target: str, size: int) -> pa.RecordBatch:
    """Return a batch of stamps with their pixels in the training type."""
    columns = {n: batch.column(n) for n in STAMPS.names}
    columns["stamp"] = training_pixels(batch.column("stamp"), source, target)
    return to_batch(STAMPS, columns, stamp_metadata(target, size))
