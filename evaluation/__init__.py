"""Proof and use of a finder: scores, figures, and `load_finder` for a few lines of Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.finder import Finder


def load_finder(path: str | Path, reference: str | Path = "") -> Finder:
    """Load a finder from a folder of `training.export`; see `evaluation.finder.load_finder`."""
    # Not at the top: a GPU host that only scores has no astropy.
    from evaluation import finder

    return finder.load_finder(path, reference)
