"""The injection grids of the earlier generations: every combination of a few values, in a fixed order.

A configuration's `config_id` is its index: the last axis (shear) runs fastest, as in `itertools.product`.
"""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np

AXES = ("theta_e_arcsec", "src_dmag", "src_reff_arcsec", "src_e", "shear")

GRIDS: dict[str, tuple[tuple[float, ...], ...]] = {
    "grid_small": ((0.3, 0.6, 1.0), (1.0, 2.0), (0.08, 0.15), (0.0, 0.3), (0.0, 0.03)),
    "grid_medium": (
        (0.25, 0.35, 0.5, 0.8, 1.2),
        (0.5, 1.0, 1.5, 2.0),
        (0.05, 0.1, 0.2),
        (0.0, 0.2, 0.4),
        (0.0, 0.03),
    ),
    "grid_sota": (
        (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5),
        (0.5, 1.0, 1.5, 2.0),
        (0.06, 0.1, 0.15, 0.2),
        (0.0, 0.2, 0.4),
        (0.0, 0.02, 0.04),
    ),
}


def n_configurations(name: str) -> int:
    """Return the number of configurations of a grid.

    Raises:
        ValueError: no grid has this name.
    """
    return len(_rows(name))


def configurations(name: str) -> dict[str, np.ndarray]:
    """Return a grid's columns by name (`AXES`), each (n,) float64, row i being configuration i.

    Units: theta_E and half-light radius in arcsec, `src_dmag` in magnitudes (unlensed source r minus host
    r), ellipticity e with q = (1-e)/(1+e), shear dimensionless.

    Raises:
        ValueError: no grid has this name.
    """
    table = np.array(_rows(name))
    return {axis: table[:, i].copy() for i, axis in enumerate(AXES)}


@cache
def _rows(name: str) -> tuple[tuple[float, ...], ...]:
    if name not in GRIDS:
        raise ValueError(f"grid {name!r} is unknown; there are {sorted(GRIDS)}")
    return tuple(itertools.product(*GRIDS[name]))
