"""Numba compilation, cached where one can write (also for a read-only install) and never stale.

Numba looks only at a function's own file to see whether its cached code is current, not at the files of the
functions it calls; so the cache folder carries a digest of all of a package's sources.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_config: Any = numba.config


def cache_directory(package: Path) -> Path:
    """Folder for a package's compiled code: under NUMBA_CACHE_DIR, else beside the package, else in tmp."""
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.read_bytes())
    name = f"numba-{digest.hexdigest()[:16]}"
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"]) / name
    beside = package / "__pycache__"
    if os.access(beside if beside.exists() else package, os.W_OK):
        return beside / name
    return _own_folder() / name


def _own_folder() -> Path:
    """Return a folder in tmp that nobody else can write to: what numba finds in its cache it unpickles, and so runs."""
    folder = Path(tempfile.gettempdir()) / f"darkhaloscope-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        return Path(tempfile.mkdtemp(prefix="darkhaloscope-"))
    return folder


def compiler(package: Path, **options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles functions of a package: cached, and without the interpreter's lock.

    Args:
        package: folder of the sources that decide the code.
        options: of `numba.njit`.
    """
    directory = str(cache_directory(package))

    def compiled(function: Any) -> Any:
        previous, _config.CACHE_DIR = _config.CACHE_DIR, directory
        try:
            return numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)
        finally:
            _config.CACHE_DIR = previous

    return compiled
