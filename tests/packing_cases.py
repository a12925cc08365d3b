"""Tables of stamps out of nothing, for tests and benchmarks that need rows and not physics."""

import numpy as np
import pyarrow as pa

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.pack.packing import Layout, cells
from darkhaloscope.records import STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch

SPLITS = ("train", "val", "test")


def stamp_rows(start: int, n: int, layout: Layout = Layout("float32", 64), failed: int = 0) -> pa.RecordBatch:
    """Rows `start` to `start + n` of an endless table: 50 to a brick, two of three splits train, noise as pixels.

    The last `failed` rows have no stamp.
    """
    number = np.arange(start, start + n)
    rng = np.random.default_rng(start)
    pixels = rng.normal(0, 0.01, (n, 3 * layout.size**2)).astype(np.dtype(layout.dtype))
    stamps = cells(pixels.view(np.uint8))
    made = np.arange(n) < n - failed
    split = np.where(number % 3 < 2, "train", np.where(number % 2, "val", "test"))
    known = {
        "task_id": [f"{i:032x}" for i in number],
        "brickname": [f"{i // 50:04d}p000" for i in number],
        "region_split": split.tolist(),
        "is_control": (number % 2).astype(np.int8),
        "label": (1 - number % 2).astype(np.int8),
        "cutout_ok": made.astype(np.int8),
        "stamp": stamps
        if not failed
        else pa.array([s.as_py() if m else None for s, m in zip(stamps, made, strict=True)]),
    }
    columns = {c.name: known[c.name] if c.name in known else _values(c.type, rng, n) for c in STAMPS.columns}
    return to_batch(STAMPS, columns, stamp_metadata(layout.dtype, layout.size))


def _values(kind: pa.DataType, rng: np.random.Generator, n: int) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array(["word"] * n)
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(0, 100, n)).cast(kind)
    return pa.array(rng.uniform(0, 1, n)).cast(kind)


def write_stamps(root: str, sizes: list[int], layout: Layout = Layout("float32", 64), codec="gzip", failed=0):
    """Write a table of stamps, one chunk a size, row groups of at most 100; return its rows' ids that have one."""
    start, ids = 0, []
    for chunk, n in enumerate(sizes):
        batch = stamp_rows(start, n, layout, failed)
        part = write_part(root, chunk, 0, [batch], batch.schema, codec=codec, rows_per_group=min(100, n))
        commit_chunk(root, chunk, [part])
        start += n
        ids += batch.column("task_id").to_pylist()[: n - failed]
    return ids
