"""Galaxies far behind a lens, as the sky has them: how many, how far, how large, of what shape and colour.

Magnitudes are DECam AB outside the Galaxy, unlensed. A galaxy's type runs from 0 (elliptical) over spirals (1, 2) and
irregulars (3) to starbursts (4 to 6), the order of `reference.TYPES`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from darkhaloscope.injection.reference import TYPES, galaxy_colours

Array = NDArray[np.float64]

# Galaxies per square degree and magnitude: Hogg et al. (1997, MNRAS 288, 404), R of 21 to 25, in the form of Bloom et
# al. (2002, AJ 123, 1111, sec. 6), with r = R + 0.20. Second hand.
COUNTS_SLOPE, COUNTS_AT, COUNTS_LOG = 0.334, 23.163, 4.320

# Benitez (2000, ApJ 536, 571), Table 1, HDF-N: p(T, z | I), I = F814W AB of 20 and fainter; groups elliptical, spiral,
# irregular. Second hand, from the published code of BPZ.
GROUP = np.array([0, 1, 1, 2, 2, 2, 2])
ALPHA = np.array([2.465, 1.806, 0.906])
Z0 = np.array([0.431, 0.390, 0.0626])
K_MAG = np.array([0.0913, 0.0636, 0.123])
SHARE_AT_20, SHARE_DECLINE = np.array([0.35, 0.50]), np.array([0.450, 0.147])
I_RANGE = (20.0, 32.0)
I_SLOPE = 0.31  # d log10 N / d mag in i (LSST Science Book 2009, arXiv:0912.0201, eq. 3.7; second hand)

CELL = 0.05  # of redshift
Z_CELLS = np.arange(0.0, 5.0, CELL).round(2)
R_BIN = 0.25
R_BINS = np.arange(20.0, 28.01, R_BIN)

COLOUR_SCATTER = 0.15  # mag, of each colour about the templates: dust, age, and what templates do not have

# Half-light radii of 62 COSMOS galaxies (HST F814W, r of 22 to 27, redshift above 0.3), SExtractor's less the PSF's:
# log10 of the median at r = 24.5 in arcsec, slope per mag, scatter in dex. Van der Wel et al. (2014, ApJ 788, 28) have
# a scatter of at most 0.2 dex; redshift makes no difference beyond 0.3 at a given magnitude.
LOG_SIZE, SIZE_SLOPE, SIZE_SCATTER = -0.679, -0.0885, 0.17
SIZE_RANGE = (0.03, 1.5)  # arcsec

# Star-forming galaxies are exponential and quiescent ones are cuspy, out to redshift 2.5 (Wuyts et al. 2011, ApJ 742,
# 96). The scatter is an assumption.
SERSIC_N_DISC, SERSIC_N_ELLIPTICAL, SERSIC_N_SCATTER = 1.1, 3.5, 0.15  # dex
SERSIC_N_RANGE = (0.5, 5.0)

FLATTENING_SCALE, MIN_Q = 0.3, 0.2


def galaxy_counts(mag_r: Array) -> Array:
    """Return galaxies per square degree and magnitude at r; measured for 21 to 25, carried on to 26."""
    return 10 ** (COUNTS_SLOPE * (np.asarray(mag_r, float) - COUNTS_AT) + COUNTS_LOG)


def magnitudes_of_counts(u: Array, bright: float, faint: float) -> Array:
    """Return r magnitudes between `bright` and `faint` that are distributed as `galaxy_counts`, from uniform draws."""
    low, high = 10 ** (COUNTS_SLOPE * bright), 10 ** (COUNTS_SLOPE * faint)
    return np.log10(low + np.asarray(u) * (high - low)) / COUNTS_SLOPE


def type_and_redshift_density(mag_r: float) -> Array:
    """Return p(type, redshift | r) as (type, cell of `Z_CELLS`), sum 1 (Benitez 2000, sec. 5).

    The published prior is for an i magnitude: each type and redshift is taken at the i its colour gives it.
    """
    middles = Z_CELLS + CELL / 2
    table = galaxy_colours()
    r_i = np.stack([np.interp(middles, table["redshift"], line) for line in table["r_i"]])
    i = np.clip(mag_r - r_i, *I_RANGE)
    beyond = i - I_RANGE[0]
    share = np.stack([s * np.exp(-k * beyond) for s, k in zip(SHARE_AT_20, SHARE_DECLINE, strict=True)])
    share = np.concatenate([share, 1 - share.sum(axis=0, keepdims=True)])
    members = np.bincount(GROUP)
    of_type = share[GROUP, np.arange(len(TYPES))] / members[GROUP][:, None]
    a, peak = ALPHA[GROUP][:, None], Z0[GROUP][:, None] + K_MAG[GROUP][:, None] * beyond
    scaled = middles / peak
    density = scaled**a * np.exp(-(scaled**a)) * a / (peak * gamma(1 + 1 / a))
    weight = 10 ** (-I_SLOPE * r_i) * of_type * density
    return weight / weight.sum()


@lru_cache(maxsize=1)
def _cumulative() -> Array:
    """Cumulative of p(type, redshift | r), one row per bin of r, each raised by its number: sorted as a whole."""
    rows = [np.cumsum(type_and_redshift_density(float(r)).ravel()) for r in R_BINS]
    table = np.stack(rows)
    table[:, -1] = 1.0
    return (table + np.arange(len(R_BINS))[:, None]).ravel()


def draw_type_and_redshift(mag_r: Array, u: Array) -> tuple[NDArray[np.int64], Array]:
    """Draw type (0 to 6) and redshift (0 to 5) of galaxies of r magnitude `mag_r` from uniform draws, any shape.

    Magnitudes beyond 20 to 28 are taken at the end of that range.
    """
    table = _cumulative()
    number = np.clip(np.rint((np.asarray(mag_r) - R_BINS[0]) / R_BIN), 0, len(R_BINS) - 1).astype(np.int64)
    cells = len(TYPES) * len(Z_CELLS)
    at = number + np.asarray(u)
    index = np.clip(np.searchsorted(table, at), number * cells, number * cells + cells - 1)
    below = np.where(index % cells > 0, table[index - 1], number.astype(float))
    inside = np.clip((at - below) / np.maximum(table[index] - below, 1e-300), 0.0, 1.0)
    kind, cell = np.divmod(index % cells, len(Z_CELLS))
    return kind, Z_CELLS[cell] + CELL * inside


def colours(kind: Array, redshift: Array, between: Array, scatter: Array) -> tuple[Array, Array]:
    """Return g - r and r - z of galaxies.

    Args:
        kind: (n,) type, 0 to 6.
        redshift: (n,), 0 to 5.
        between: (n,) uniform draws: where, between its type and its neighbours, a galaxy is.
        scatter: (n, 2) normal draws.
    """
    table = galaxy_colours()
    place = np.clip(np.asarray(kind) + np.asarray(between) - 0.5, 0, len(TYPES) - 1)
    lower = np.minimum(place.astype(np.int64), len(TYPES) - 2)
    share = place - lower
    step = table["redshift"][1] - table["redshift"][0]
    at = np.clip(np.asarray(redshift) / step, 0, len(table["redshift"]) - 1.001)
    left = at.astype(np.int64)
    rest = at - left
    found = []
    for name in ("g_r", "r_z"):
        line = table[name][:, left] * (1 - rest) + table[name][:, left + 1] * rest
        rows = np.arange(len(place))
        found.append(line[lower, rows] * (1 - share) + line[lower + 1, rows] * share)
    return found[0] + COLOUR_SCATTER * scatter[:, 0], found[1] + COLOUR_SCATTER * scatter[:, 1]


def half_light_radius(mag_r: Array, scatter: Array) -> Array:
    """Return half-light radii in arcsec, product-averaged axis, lognormal about the median of the magnitude.

    Args:
        mag_r: (n,).
        scatter: (n,) normal draws.
    """
    log_size = LOG_SIZE + SIZE_SLOPE * (np.asarray(mag_r) - 24.5) + SIZE_SCATTER * np.asarray(scatter)
    return np.clip(10**log_size, *SIZE_RANGE)


def sersic_index(kind: Array, scatter: Array) -> Array:
    """Return Sersic indices: lognormal, about 3.5 for ellipticals (type 0) and 1.1 for the rest."""
    median = np.where(np.asarray(kind) == 0, SERSIC_N_ELLIPTICAL, SERSIC_N_DISC)
    return np.clip(median * 10 ** (SERSIC_N_SCATTER * np.asarray(scatter)), *SERSIC_N_RANGE)


def axis_ratio(u: Array) -> Array:
    """Return axis ratios of faint galaxies from uniform draws: 1 - q Rayleigh of scale 0.3, q above 0.2.

    Collett (2015, ApJ 811, 20), second hand, from its published code; 64 COSMOS galaxies agree (median 0.67, 5th and
    95th percentile 0.39 and 0.92).
    """
    whole = 1 - np.exp(-0.5 * ((1 - MIN_Q) / FLATTENING_SCALE) ** 2)
    return 1 - FLATTENING_SCALE * np.sqrt(-2 * np.log1p(-np.asarray(u) * whole))
