"""Fluxes, magnitudes and depths of the Legacy Surveys: each formula once.

Fluxes are nanomaggies (nmgy): AB magnitude 22.5 is 1 nmgy.
"""

from __future__ import annotations

import numpy as np

ZERO_POINT = 22.5


def magnitude(flux: np.ndarray) -> np.ndarray:
    """Return the AB magnitude, 22.5 - 2.5 log10(flux), of a flux in nmgy; NaN where flux is not positive."""
    flux = np.asarray(flux, dtype=np.float64)
    positive = flux > 0
    return np.where(positive, ZERO_POINT - 2.5 * np.log10(np.where(positive, flux, 1.0)), np.nan)


def flux(mag: np.ndarray) -> np.ndarray:
    """Return the flux in nmgy of an AB magnitude: 10^((22.5 - mag) / 2.5)."""
    return 10.0 ** ((ZERO_POINT - np.asarray(mag, dtype=np.float64)) / 2.5)


def depth_magnitude(inverse_variance: np.ndarray) -> np.ndarray:
    """Return the 5-sigma AB magnitude of a depth given as inverse variance, 22.5 - 2.5 log10(5 / sqrt(ivar)).

    PSFDEPTH_* and GALDEPTH_* of Tractor and sweep catalogues are such inverse variances (nmgy^-2); the
    columns of the same name in the survey-bricks tables are magnitudes already and must not come here
    (legacysurvey.org/dr10/catalogs, legacysurvey.org/dr10/files).

    Args:
        inverse_variance: any shape, nmgy^-2.

    Returns:
        The same shape, AB mag; NaN where the inverse variance is not positive (no exposure).
    """
    ivar = np.asarray(inverse_variance, dtype=np.float64)
    return magnitude(np.where(ivar > 0, 5.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0))
