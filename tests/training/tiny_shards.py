"""Small random stamps with a signal that a network can learn, and datasets of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.records import STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch

SIZE = 16


def make_columns(
    n: int, seed: int, dtype: str = "float32", split: str = "train", size: int = SIZE
) -> dict[str, Any]:
    """Return columns of `n` stamps: noise, and in positives a bright square at the centre."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for column in STAMPS.columns:
        if pa.types.is_string(column.type):
            columns[column.name] = [column.name[:3]] * n
        elif pa.types.is_floating(column.type):
            columns[column.name] = rng.uniform(0.5, 1.5, n)
        else:
            columns[column.name] = np.ones(n, int)
    label = np.arange(n) % 2
    stamps = rng.normal(0, 0.01, (n, 3, size, size))
    stamps[label == 1, :, size // 4 : -size // 4, size // 4 : -size // 4] += 0.02
    columns |= {"is_control": 1 - label, "label": label, "region_split": [split] * n}
    columns["sample"] = [("random_negative", "synthetic_positive")[one] for one in label]
    columns["control_kind"] = [("unpaired", "none")[one] for one in label]
    columns["host_id"] = rng.integers(1 << 60, size=n)
    columns |= {"ra": rng.uniform(0, 360, n), "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n)))}
    columns["source_kind"] = ["sersic"] * n
    columns |= {f"sky_sigma_{b}": rng.uniform(0.008, 0.012, n) for b in "grz"}
    columns["task_id"] = [rng.bytes(16).hex() for _ in range(n)]
    columns["stamp"] = [s.tobytes() for s in stamps.astype(dtype)]
    return columns


def write_shards(
    root: str | Path, shards: list[dict[str, Any]], dtype: str = "float32", rows_per_group: int = 8,
    codec: str = "none", size: int = SIZE,
) -> None:  # fmt: skip
    """Write and commit one file for each dict of columns."""
    metadata = stamp_metadata(dtype, size)
    how = {"schema": STAMPS.arrow(metadata), "codec": codec, "rows_per_group": rows_per_group}
    parts = [
        write_part(str(root), 0, i, [to_batch(STAMPS, columns, metadata)], **how)
        for i, columns in enumerate(shards)
    ]
    commit_chunk(str(root), 0, parts)
