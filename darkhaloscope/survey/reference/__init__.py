"""Published facts about luminous red galaxies, as a small table.

``lrg_colours.csv``: median colours, outside the Galaxy, of the lens galaxies and candidates of Stein et al. (2022,
ApJ 932, 107; DECam magnitudes) that have a spectroscopic redshift, in bins of redshift, with their robust scatter.
They are lenses: arcs make some bluer. Rebuilt by ``build.py``.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib import resources

import numpy as np


@lru_cache(maxsize=1)
def lrg_colours() -> dict[str, np.ndarray]:
    """Return the columns of lrg_colours.csv, by increasing redshift."""
    text = resources.files(__name__).joinpath("lrg_colours.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
