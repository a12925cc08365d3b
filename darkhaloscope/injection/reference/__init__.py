"""Published facts that the natural prior rests on, as a small table.

- ``galaxy_colours.csv``: colours of redshifted galaxy spectra through DECam's filters (AB mag), and ``k_r``, the
  observed r less distance modulus less rest-frame r (AB). Spectra: the templates of BPZ, made from Coleman, Wu
  & Weedman (1980, ApJS 43, 393) and Kinney et al. (1996, ApJ 467, 38), recalibrated by Benitez et al. (2004,
  ApJS 150, 1), with the young population of Coe et al. (2006, AJ 132, 926); filters: Abbott et al. (2018, ApJS
  239, 18); intergalactic hydrogen: Madau (1995, ApJ 441, 18).

Rebuilt by ``build.py``.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib import resources

import numpy as np

TYPES = (
    "El_B2004a",
    "Sbc_B2004a",
    "Scd_B2004a",
    "Im_B2004a",
    "SB3_B2004a",
    "SB2_B2004a",
    "ssp_25Myr_z008",
)
"""Galaxy spectra from red to blue: an elliptical, two spirals, and four irregulars and starbursts."""


@lru_cache(maxsize=1)
def galaxy_colours() -> dict[str, np.ndarray]:
    """Return `redshift` (k,), and g_r, r_i, r_z, k_r as (type, k), types in the order of `TYPES`."""
    rows = _rows("galaxy_colours.csv")
    redshift = np.array([float(row["redshift"]) for row in rows if row["type"] == TYPES[0]])
    table = {
        name: np.array([[float(row[name]) for row in rows if row["type"] == kind] for kind in TYPES])
        for name in ("g_r", "r_i", "r_z", "k_r")
    }
    return table | {"redshift": redshift}


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files(__name__).joinpath(name).read_text()
    return list(csv.DictReader(text.splitlines()))
