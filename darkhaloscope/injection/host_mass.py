"""What a lens a galaxy would be, from what a catalogue knows of it: velocity dispersion, shape.

Stand-ins, each with its scatter: the velocity dispersion is that of the Faber-Jackson relation at its luminosity, the
deflector's shape that of the light. Its redshift is stage 3's (`survey.redshifts`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from darkhaloscope.injection.cosmology import distance_modulus
from darkhaloscope.injection.reference import galaxy_colours

Array = NDArray[np.float64]

# Hyde & Bernardi (2009, MNRAS 394, 1978): log10(sigma / km/s) as a quadratic in rest-frame M_r of 46,410 early-type
# galaxies, evolution removed; coefficients second hand, from two independent codes that follow Collett (2015, ApJ 811,
# 20). Scatter: Bernardi et al. (2003, AJ 125, 1849). Evolution in r: 0.85 mag per unit redshift (the same).
HYDE_BERNARDI = (-2.97, -0.37, -0.006)
EVOLUTION_MAG = 0.85
LOG_SIGMA_SCATTER = 0.07
# What has to be added at z = 0.5: 34 DES luminous red galaxies with measured dispersions (median 235 km/s) lie 0.056
# dex above the relation with that evolution, and 0.014 above it without.
LOG_SIGMA_OFFSET = 0.04
BRIGHTEST, FAINTEST = -25.0, -18.0  # where the quadratic is held: beyond, it has no data
SIGMA_RANGE = (80.0, 420.0)  # km/s

Q_RANGE = (0.3, 1.0)


def absolute_r(mag_z: Array, redshift: Array) -> Array:
    """Return rest-frame M_r of a red galaxy of dereddened z magnitude, faded to what it would be today.

    The K correction from observed z to rest-frame r is an elliptical's (Hogg et al. 2002, astro-ph/0210394, eq. 2); at
    redshift 0.44 the one band becomes the other and the spectrum hardly matters.
    """
    table = galaxy_colours()
    rest_r_less_z = np.asarray(np.interp(redshift, table["redshift"], (table["r_z"] - table["k_r"])[0]))
    return mag_z - distance_modulus(redshift) + rest_r_less_z + EVOLUTION_MAG * np.asarray(redshift)


def log_velocity_dispersion(mag_r: Array) -> Array:
    """Return the mean log10(sigma / km/s) of early-type galaxies of rest-frame, faded M_r (Hyde & Bernardi 2009)."""
    zero, slope, curvature = HYDE_BERNARDI
    mag = np.clip(mag_r, BRIGHTEST, FAINTEST)
    return zero + LOG_SIGMA_OFFSET + slope * mag + curvature * mag**2


def shape_of_light(e1: Array, e2: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return axis ratio and major axis from +x of a catalogue's ellipticity components, and whether it has any.

    |e| = (1-q)/(1+q), position angle atan2(e2, e1) / 2 from north through east (legacysurvey.org/dr10/catalogs). In a
    coadd north is +y and east is -x: the angle from +x is 90 degrees more. Components of exactly 0 are those of a model
    that is round by construction (types PSF and REX), not of a measurement.

    Args:
        e1: (n,); NaN where unknown.
        e2: see `e1`.

    Returns:
        (q, phi_rad in 0 to pi, known), each (n,); q = 1 and phi = 0 where not known.
    """
    e1, e2 = np.asarray(e1, float), np.asarray(e2, float)
    e = np.hypot(e1, e2)
    known = np.isfinite(e) & (e > 0)
    e = np.where(known, np.minimum(e, 1.0), 0.0)
    phi = np.where(known, np.arctan2(np.where(known, e2, 0), np.where(known, e1, 1)) / 2 + np.pi / 2, 0.0)
    return (1 - e) / (1 + e), phi % np.pi, known


def drawn_axis_ratio(sigma: Array, u: Array) -> Array:
    """Draw axis ratios of early-type galaxies: 1 - q is Rayleigh, of scale 0.378 - 0.000572 sigma, q above 0.3.

    Collett (2015, ApJ 811, 20), there cut at q = 0.2; second hand, from its published code.

    Args:
        sigma: (n,) velocity dispersion, km/s.
        u: (n,) uniform draws.
    """
    scale = 0.378 - 0.000572 * np.asarray(sigma, float)
    whole = 1 - np.exp(-0.5 * ((1 - Q_RANGE[0]) / scale) ** 2)
    return 1 - scale * np.sqrt(-2 * np.log1p(-np.asarray(u, float) * whole))


def follow_light(q: Array, scatter: Array) -> Array:
    """Return the deflector's axis ratio: the light's plus scatter, folded back at 1 and held at 0.3."""
    q = np.asarray(q) + np.asarray(scatter)
    return np.clip(1 - np.abs(1 - q), *Q_RANGE)
