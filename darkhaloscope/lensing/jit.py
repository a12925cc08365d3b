"""Numba compilation, cached where one can write: also for a read-only install."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numba


def _cache_directory() -> str:
    """A writable folder for compiled code: NUMBA_CACHE_DIR, else beside the package, else per user in tmp."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return os.environ["NUMBA_CACHE_DIR"]
    beside = Path(__file__).parent / "__pycache__"
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return ""  # numba's own default
    return str(Path(tempfile.gettempdir()) / f"darkhaloscope-numba-{os.getuid()}")


if not numba.config.CACHE_DIR:
    numba.config.CACHE_DIR = _cache_directory()

# nnan/ninf are left out: a non-finite ray must stay visible. Contraction is what makes targets differ in the
# last bit; the target is recorded with the data.
FAST = {"contract", "arcp", "afn", "nsz", "reassoc"}

njit = numba.njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True)
inline = numba.njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True, inline="always")
