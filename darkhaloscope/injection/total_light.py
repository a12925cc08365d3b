"""How bright host and arc are together, before anything is rendered: what a control must be to be no fainter.

An injection only adds light, so that brightness alone tells the classes apart by some measure. The arc's flux is
estimated as that of a point source at the source's place, held at what an extended source can reach.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from darkhaloscope.injection.magnification import Lenses, point_magnification
from darkhaloscope.survey.extinction import transmission
from darkhaloscope.survey.photometry import flux, magnitude

NEEDED = (
    "theta_e_arcsec", "lens_q", "lens_phi_rad", "shear", "shear_phi_rad", "src_x_arcsec", "src_y_arcsec",
    "src_reff_arcsec", "src_mag_r", "mag_r", "ebv",
)  # fmt: skip
"""Columns of records.MANIFEST that the estimate takes."""

# An exponential disc of half-light radius R_e right behind an isothermal sphere: 2 theta_E <1/r>, <1/r> = 1.678 / R_e.
DISC_MAGNIFICATION = 3.36
ROWS = 1_024  # at a time


def total_magnitude_r(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the r magnitude of host and lensed source together as observed, (n,), from `NEEDED` columns."""
    c = {n: np.asarray(columns[n], np.float64) for n in NEEDED}
    arc = estimated_magnification(c) * flux(c["src_mag_r"]) * transmission(c["ebv"], "r")[:, 0]
    return magnitude(flux(c["mag_r"]) + arc)


def estimated_magnification(c: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the magnification of a point source, at most that of a disc of the source's size on the axis, (n,)."""
    theta_e = c["theta_e_arcsec"]
    found = np.empty(len(theta_e))
    for start in range(0, len(theta_e), ROWS):
        rows = slice(start, start + ROWS)
        lenses = Lenses.of(*(c[n][rows] for n in ("lens_q", "lens_phi_rad", "shear", "shear_phi_rad")))
        x, y = (c[n][rows, None] / theta_e[rows, None] for n in ("src_x_arcsec", "src_y_arcsec"))
        found[rows] = point_magnification(lenses, x, y)[0][:, 0]
    return np.minimum(found, DISC_MAGNIFICATION * theta_e / c["src_reff_arcsec"])
