"""The injection grids of the earlier generations, or one's own: every combination of a few values, in a fixed order.

A configuration's `config_id` is its index: the last axis (shear) runs fastest, as in `itertools.product`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from darkhaloscope.config import ConfigError
from darkhaloscope.sections import Injection

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


RANGES = {
    "theta_e_arcsec": (0.01, 8.0),  # a stamp's half width is 8.4 arcsec
    "src_dmag": (-5.0, 15.0),
    "src_reff_arcsec": (0.001, 5.0),
    "src_e": (0.0, 0.95),
    "shear": (0.0, 0.3),
}
"""What a value of `injection.custom_grid` may be."""


def axes_of(injection: Injection) -> tuple[tuple[float, ...], ...]:
    """Return the values of each axis, in the order of `AXES`.

    Raises:
        ConfigError: a value of `injection.custom_grid` that no lens or source can have.
    """
    if injection.grid != "custom":
        return GRIDS[injection.grid]
    axes = dataclasses.asdict(injection.custom_grid)
    for axis, (low, high) in RANGES.items():
        if wrong := [v for v in axes[axis] if not low <= v <= high]:
            raise ConfigError(f"injection.custom_grid.{axis} has {wrong}; expected {low:g} to {high:g}")
    return tuple(axes[axis] for axis in AXES)


def n_configurations(injection: Injection) -> int:
    """Return the number of configurations of an experiment's grid."""
    return math.prod(len(values) for values in axes_of(injection))


def configurations(injection: Injection) -> dict[str, np.ndarray]:
    """Return a grid's columns by name (`AXES`), each (n,) float64, row i being configuration i.

    Units: theta_E and half-light radius in arcsec, `src_dmag` in magnitudes (unlensed source r minus host
    r), ellipticity e with q = (1-e)/(1+e), shear dimensionless.
    """
    table = np.array(list(itertools.product(*axes_of(injection))))
    return {axis: table[:, i].copy() for i, axis in enumerate(AXES)}
