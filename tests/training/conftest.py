"""Small shards to train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_shards import make_columns, write_shards


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads of two programs that share two cores wait for each other more than they compute."""
    torch.set_num_threads(1)


@pytest.fixture
def shards(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a packed dataset with a train and a val split and returns its root."""

    def write(train: int = 96, val: int = 48, files: int = 2, dtype: str = "float16", **how: Any) -> str:
        root = tmp_path / "pack"
        columns = [make_columns(train // files, i, dtype) for i in range(files)]
        write_shards(root / "split=train", columns, dtype, **how)
        write_shards(root / "split=val", [make_columns(val, 1000, dtype, "val")], dtype, **how)
        return str(root)

    return write
