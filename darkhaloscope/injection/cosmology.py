"""Distances of a flat universe (H0 = 70 km/s/Mpc, Omega_m = 0.3), and the Einstein radius they give a galaxy.

Of the formulas in Hogg (1999, astro-ph/9905116); radiation is left out. Only numpy: whoever renders live, on a host
without astropy, can draw lenses.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

HUBBLE = 70.0  # km/s/Mpc
OMEGA_M = 0.3
SPEED_OF_LIGHT = 299_792.458  # km/s
ARCSEC_PER_RAD = 180 * 3_600 / np.pi
MAX_REDSHIFT = 20.0

_GRID = np.linspace(0.0, np.log1p(MAX_REDSHIFT), 3_001)  # ln(1 + z): steps that suit the integrand


def _integral() -> Array:
    """Integral of dz / E(z) from 0 to the grid's redshifts, by Simpson's rule on each step."""
    ends, middles = _GRID, (_GRID[1:] + _GRID[:-1]) / 2

    def integrand(s: Array) -> Array:
        return np.exp(s) / np.sqrt(OMEGA_M * np.exp(3 * s) + 1 - OMEGA_M)

    f, m = integrand(ends), integrand(middles)
    return np.concatenate([[0.0], np.cumsum((f[1:] + f[:-1] + 4 * m) / 6 * np.diff(_GRID))])


_COMOVING = _integral() * SPEED_OF_LIGHT / HUBBLE


def comoving_distance(redshift: ArrayLike) -> Array:
    """Return the line-of-sight comoving distance in Mpc, to 1e-5 (Hogg 1999, eq. 15).

    Args:
        redshift: 0 to `MAX_REDSHIFT`; NaN gives NaN.
    """
    return np.asarray(np.interp(np.log1p(redshift), _GRID, _COMOVING))


def distance_modulus(redshift: ArrayLike) -> Array:
    """Return apparent less absolute bolometric magnitude, 5 log10(D_L / 10 pc) (Hogg 1999, eq. 25)."""
    return np.asarray(5 * np.log10((1 + np.asarray(redshift, float)) * comoving_distance(redshift) * 1e5))


def distance_ratio(z_lens: ArrayLike, z_source: ArrayLike) -> Array:
    """Return D_ls / D_s, of angular diameter distances (Hogg 1999, eq. 19, flat); 0 for a source in front.

    Args:
        z_lens: redshift of the lens.
        z_source: redshift of the source, larger than 0.
    """
    return np.maximum(1 - comoving_distance(z_lens) / comoving_distance(z_source), 0.0)


def einstein_radius(sigma: ArrayLike, z_lens: ArrayLike, z_source: ArrayLike) -> Array:
    """Return theta_E = 4 pi (sigma / c)^2 D_ls / D_s in arcsec (Kormann, Schneider & Bartelmann 1994).

    That of the isothermal sphere; the ellipsoid's circularised radius is taken to be the same, as in the mass
    models of SLACS (Bolton et al. 2008, ApJ 682, 964), whose sigma agrees with the stars' to a few per cent.

    Args:
        sigma: velocity dispersion, km/s.
        z_lens: redshift of the lens.
        z_source: redshift of the source.
    """
    return (
        4
        * np.pi
        * (np.asarray(sigma) / SPEED_OF_LIGHT) ** 2
        * distance_ratio(z_lens, z_source)
        * ARCSEC_PER_RAD
    )
