"""Numba compilation, cached where one can write (also for a read-only install) and never stale.

Numba looks only at a function's own file to see whether its cached code is current, not at the files of the
functions it calls; so the cache folder carries a digest of all of this package's sources.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

PACKAGE = Path(__file__).parent


def cache_directory(package: Path = PACKAGE) -> Path:
    """Folder for compiled code: under NUMBA_CACHE_DIR, else beside the package, else the user's in tmp."""
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.read_bytes())
    name = f"numba-{digest.hexdigest()[:16]}"
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"]) / name
    beside = package / "__pycache__"
    if os.access(beside if beside.exists() else package, os.W_OK):
        return beside / name
    return Path(tempfile.gettempdir()) / f"darkhaloscope-{os.getuid()}" / name


config: Any = numba.config
CACHE = str(cache_directory())

# No "nnan" and "ninf": a ray that is not finite must stay visible. "contract" (fused multiply-add) is why
# CPU targets differ in the last bits; the target is recorded with the data.
FAST = {"contract", "arcp", "afn", "nsz", "reassoc"}


def _compiler(**options: Any) -> Callable[[Any], Any]:
    def compiler(function: Any) -> Any:
        previous, config.CACHE_DIR = config.CACHE_DIR, CACHE
        try:
            return numba.njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True, **options)(function)
        finally:
            config.CACHE_DIR = previous

    return compiler


njit = _compiler()
inline = _compiler(inline="always")
