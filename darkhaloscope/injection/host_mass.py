"""What a lens a galaxy would be, from what a catalogue knows of it: redshift, velocity dispersion, shape.

Stand-ins, each with its scatter: the redshift is that of the red sequence at the galaxy's colours (a **colour-redshift
relation for LRGs**, for catalogues without redshifts); the velocity dispersion that of the Faber-Jackson relation at
its luminosity; the deflector's shape that of the light.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from darkhaloscope.injection.cosmology import distance_modulus
from darkhaloscope.injection.reference import galaxy_colours, lrg_colours

Array = NDArray[np.float64]

HOST_REDSHIFTS = np.linspace(0.10, 1.00, 181)
# Beyond the spectroscopic sample the sequence goes on as an old population does (galaxy_colours.csv, elliptical).
BEYOND = {"redshift": 1.00, "g_r": 2.0, "r_z": 2.07, "g_r_scatter": 0.25, "r_z_scatter": 0.10}
MAGNITUDE_ERROR = 0.03  # of a colour, in the catalogue; added to the sequence's own width
MAX_OFFSET_SIGMA = 5.0  # a colour farther from the sequence than this says no more: the rest decides

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


@lru_cache(maxsize=1)
def red_sequence() -> dict[str, Array]:
    """Return dereddened g_r and r_z of luminous red galaxies and their scatter on `HOST_REDSHIFTS`."""
    table = lrg_colours()
    at = np.append(table["redshift"], BEYOND["redshift"])
    names = ("g_r", "r_z", "g_r_scatter", "r_z_scatter")
    found = {n: np.interp(HOST_REDSHIFTS, at, np.append(table[n], BEYOND[n])) for n in names}
    # below its first bin the sequence keeps that bin's slope
    low = at[0] > HOST_REDSHIFTS
    for n in names[:2]:
        slope = (table[n][1] - table[n][0]) / (at[1] - at[0])
        found[n][low] = table[n][0] + slope * (HOST_REDSHIFTS[low] - at[0])
    return found


def redshift_of_colours(g_r: Array, r_z: Array, u: Array) -> Array:
    """Draw a redshift for each galaxy: where on the red sequence it may be, given its dereddened colours.

    The probability of a redshift is that of the galaxy's offset from the sequence there, normal with the sequence's
    own scatter. A galaxy off the sequence gets the nearest stretch of it.

    Args:
        g_r: (n,) AB mag; NaN where not known: r - z decides alone.
        r_z: (n,) AB mag.
        u: (n,) uniform draws in (0, 1).

    Returns:
        (n,) redshift in 0.1 to 1; NaN where r - z is not finite.
    """
    g_r, r_z = np.asarray(g_r, float)[:, None], np.asarray(r_z, float)[:, None]
    line = red_sequence()
    chi2 = np.zeros((len(r_z), len(HOST_REDSHIFTS)))
    for colour, name in ((g_r, "g_r"), (r_z, "r_z")):
        width = np.hypot(line[f"{name}_scatter"], MAGNITUDE_ERROR)
        pull = np.nan_to_num((colour - line[name]) / width, nan=0.0, posinf=0.0, neginf=0.0) ** 2
        # less its own minimum, at most: an outlying colour must not outvote the other by its size
        chi2 += np.minimum(pull, pull.min(axis=1, keepdims=True) + MAX_OFFSET_SIGMA**2)
    probability = np.exp(-(chi2 - chi2.min(axis=1, keepdims=True)) / 2)
    cumulative = np.cumsum((probability[:, 1:] + probability[:, :-1]) / 2, axis=1)
    share = np.asarray(u, float) * cumulative[:, -1]
    cell = np.minimum((cumulative < share[:, None]).sum(axis=1), cumulative.shape[1] - 1)
    below = np.where(cell > 0, np.take_along_axis(cumulative, np.maximum(cell - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = (share - below) / (np.take_along_axis(cumulative, cell[:, None], 1)[:, 0] - below)
    redshift = HOST_REDSHIFTS[cell] + np.clip(inside, 0, 1) * (HOST_REDSHIFTS[1] - HOST_REDSHIFTS[0])
    return np.where(np.isfinite(r_z[:, 0]), redshift, np.nan)


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
