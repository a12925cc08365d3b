"""What runs: the code's version, the package it came in, and the checksum of a file.

Needs nothing but Python: `bootstrap.package` runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE_FACTS = (
    "darkhaloscope-package.json"  # at the root of a packed environment: its wheel, checksum and commit
)


def code_version() -> str:
    """Return the installed version of the library."""
    try:
        return version("darkhaloscope")
    except PackageNotFoundError:
        return "not installed"


def package_facts() -> dict[str, Any] | None:
    """Return what the packed environment this runs in says of itself (wheel, checksum, commit); None outside one."""
    path = Path(sys.prefix, PACKAGE_FACTS)
    return json.loads(path.read_text()) if path.exists() else None


def sha256_of(path: Path) -> str:
    """Return the sha256 of a local file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
