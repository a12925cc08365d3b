"""What the mini sky is measured against: small summary tables of the real sky, each with its source.

- ``lrg_sample.json``: quantiles of magnitude and colours, their rank correlations, Tractor type shares and
  the surface density of a real DR10 LRG sample (rebuilt by ``summarise.py``).
- ``conditions.json``: quantiles of seeing, depth and reddening over 2,693 real DR10 regions (same).
- ``galaxy_counts.csv``: published r-band galaxy counts, corrected for Galactic extinction. Rows up to r = 21
  are Yasuda et al. (2001, AJ 122, 1104), Table 2, SDSS r*, 0.5 mag bins, second hand: two transcriptions that
  agree with each other (their sum over 12 < r < 21 is the table's 3,370 per square degree). Rows beyond are
  the deep R counts of Hogg et al. (1997, MNRAS 288, 404) in the form of Bloom et al. (2002, AJ 123, 1111),
  dN/dm = 10^(0.334 (R - 22.963) + 4.320) per mag and square degree, with r = R + 0.20 (Lupton 2005
  transformation at g-r = 0.56). At r = 21.5 to 23.5 they agree within 15 % with COSMOS2020 (Weaver et al.
  2022, ApJS 258, 11) i-band counts shifted by the median r-i.
"""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np


@lru_cache(maxsize=2)
def _table(name: str) -> dict[str, Any]:
    return json.loads(resources.files(__name__).joinpath(name).read_text())


def lrg_sample() -> dict[str, Any]:
    """Return the summary of the real LRG sample."""
    return _table("lrg_sample.json")


def conditions() -> dict[str, Any]:
    """Return the summary of real seeing, depth and reddening."""
    return _table("conditions.json")


@lru_cache(maxsize=1)
def galaxy_counts() -> tuple[np.ndarray, np.ndarray]:
    """Return (r, n): AB magnitude at bin centres, published galaxies per square degree and magnitude."""
    text = resources.files(__name__).joinpath("galaxy_counts.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    return np.array([float(r["r_mag"]) for r in rows]), np.array([float(r["n_per_deg2_mag"]) for r in rows])
