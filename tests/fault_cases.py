"""What the tests of faults write, and look at afterwards."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from darkhaloscope import dataset as ds

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.binary())])


def rows(n: int) -> list[pa.RecordBatch]:
    noise = np.random.default_rng(0).bytes(1000 * n)
    cells = [noise[i * 1000 : (i + 1) * 1000] for i in range(n)]
    return [pa.record_batch({"a": np.arange(n), "b": cells}, schema=SCHEMA)]


def write(root: str, n: int = 300, chunk: int = 0) -> ds.Part:
    return ds.write_part(root, chunk, 0, rows(n), SCHEMA)


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def wait_until(true, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.01)
