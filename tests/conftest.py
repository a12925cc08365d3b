"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of shared survey data; skips, saying so, where it is absent."""
    folder = Path(os.environ.get("DARKHALOSCOPE_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip(f"no shared survey data at {folder} (set DARKHALOSCOPE_REAL_DATA)")
    return folder
