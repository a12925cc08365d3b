"""What is on the sky: galaxies and stars drawn so that counts, magnitudes, colours and sizes are realistic.

Galaxies are two populations that do not overlap by construction:

- **lrg**: everything the baseline target cuts (v3_color_relaxed) would take, drawn from the summary of a real
  DR10 sample: marginal quantiles joined by their rank correlations (a Gaussian copula).
- **field**: all the rest, so many that the sum of both is the published r-band counts; its members are kept
  out of the target cuts, since in reality those would be in the sample above.

Magnitudes of a drawn object are as observed, behind the dust of the brick. Only numpy and scipy.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from darkhaloscope.simulated import reference
from darkhaloscope.survey.extinction import COEFFICIENTS

BANDS = ("g", "r", "z", "w1")
Objects = dict[str, np.ndarray]
"""Columns of equal length: kind ("lrg", "field", "star"), mag_g, mag_r, mag_z, mag_w1 (observed AB), reff_arcsec
(half-light, product-averaged axis; 0 for stars), q, phi_rad (pixel frame), n (Sersic), type (Tractor's)."""

BRIGHTEST_R = 14.0
BRIGHT_SLOPE = 0.52  # dex per mag below the first published bin: SDSS r* counts at 15-18 (Yasuda et al. 2001)
FAINT_SLOPE = 0.334  # dex per mag beyond the last one (Hogg et al. 1997)
_STEP = 0.05


def published_counts(r: np.ndarray) -> np.ndarray:
    """Return published galaxies per square degree and mag at AB magnitudes `r` outside the Galaxy.

    Log-linear between the bins of ``reference.galaxy_counts`` and beyond them at the published slopes.
    """
    r = np.asarray(r, dtype=np.float64)
    at, counts = reference.galaxy_counts()
    log_n = np.interp(r, at, np.log10(counts))
    log_n += BRIGHT_SLOPE * np.minimum(r - at[0], 0.0) + FAINT_SLOPE * np.maximum(r - at[-1], 0.0)
    return 10.0**log_n


def draw_galaxies(
    rng: np.random.Generator, area_deg2: float, ebv: float, faint_r: float, lrg_boost: float
) -> Objects:
    """Draw all galaxies of a patch of sky.

    Args:
        rng: the patch's own generator.
        area_deg2: area of the patch.
        ebv: E(B-V) there.
        faint_r: faintest r to draw, AB outside the Galaxy.
        lrg_boost: multiplies the real surface density of LRGs; field galaxies make room for them.
    """
    density = lrg_boost * reference.lrg_sample()["density_per_deg2"]
    lrgs = draw_lrgs(rng, rng.poisson(density * area_deg2))
    edges = np.arange(BRIGHTEST_R, faint_r + _STEP / 2, _STEP)
    published = published_counts(edges[:-1] + _STEP / 2) * _STEP
    rest = np.maximum(published - density * _lrg_r_share(ebv, faint_r), 0.05 * published)
    numbers = rng.poisson(rest * area_deg2)
    r = np.repeat(edges[:-1], numbers) + _STEP * rng.random(numbers.sum())
    return concatenate([lrgs, _draw_field(rng, r, ebv)])


def concatenate(parts: list[Objects]) -> Objects:
    """Join lists of objects column by column."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@lru_cache(maxsize=64)
def _lrg_r_share(ebv: float, faint_r: float) -> np.ndarray:
    """Share of LRGs in each bin of unreddened r, from a fixed large draw."""
    edges = np.arange(BRIGHTEST_R, faint_r + _STEP / 2, _STEP)
    return np.histogram(_many_lrgs() - COEFFICIENTS["r"] * ebv, edges)[0] / 200_000


@lru_cache(maxsize=1)
def _many_lrgs() -> np.ndarray:
    """Observed r magnitudes of a fixed large draw."""
    return _lrg_magnitudes(np.random.Generator(np.random.Philox(7)), 200_000)["r"]


def _lrg_magnitudes(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """Draw observed magnitudes from the quantiles and rank correlations of the real sample."""
    summary = reference.lrg_sample()
    spearman = np.asarray(summary["rank_correlation"])
    gaussian = 2.0 * np.sin(np.pi / 6.0 * spearman)  # Pearson correlation of a Gaussian copula
    normal = rng.standard_normal((count, len(gaussian))) @ np.linalg.cholesky(gaussian).T
    levels = np.asarray(summary["levels"])
    uniform = np.clip(ndtr(normal), levels[0], levels[-1])
    value = {k: np.interp(uniform[:, i], levels, q) for i, (k, q) in enumerate(summary["quantiles"].items())}
    r = value["z"] + value["r-z"]
    return {"g": r + value["g-r"], "r": r, "z": value["z"], "w1": value["z"] - value["z-w1"]}


def draw_lrgs(rng: np.random.Generator, count: int) -> Objects:
    """Draw target galaxies, as many as asked for."""
    mags = _lrg_magnitudes(rng, count)
    summary = reference.lrg_sample()
    z_bin = np.clip(
        np.searchsorted(summary["type_z_edges"], mags["z"]) - 1, 0, len(summary["type_shares"]) - 1
    )
    share = np.cumsum(np.asarray(summary["type_shares"]), axis=1)[z_bin]
    kind = np.asarray(summary["types"])[np.minimum((rng.random((count, 1)) > share).sum(axis=1), 3)]
    # Sizes: the share of light within 1.05" is that of 34 real DES LRG stamps to 10 % (16 % low at z = 18.5).
    reff = 10.0 ** (-0.14 - 0.16 * (mags["z"] - 19.9) + 0.16 * rng.standard_normal(count))
    reff *= np.select([kind == "REX", kind == "EXP"], [0.55, 0.75], 1.0)
    index = np.select(
        [kind == "REX", kind == "EXP", kind == "DEV"], [1.0, 1.0, 4.0], _ser_index(rng, count, 3.2)
    )
    q = np.clip(0.78 + 0.15 * rng.standard_normal(count), 0.3, 1.0)
    q = np.where(kind == "REX", np.sqrt(q), np.where(kind == "EXP", q - 0.15, q))
    return _objects(rng, "lrg", mags, reff, q, index, kind)


def _ser_index(rng: np.random.Generator, count: int, median: float) -> np.ndarray:
    return np.clip(median * np.exp(0.35 * rng.standard_normal(count)), 0.5, 6.0)


def _draw_field(rng: np.random.Generator, r: np.ndarray, ebv: float) -> Objects:
    """Draw the field galaxies of unreddened magnitudes `r`: a red and a blue cloud in colour."""
    count = len(r)
    red = rng.random(count) < 0.10 + 0.30 / (1.0 + np.exp((r - 21.5) / 0.8))
    a, b, c = rng.standard_normal((3, count))
    faint = np.clip((r - 19.0) / 5.0, 0.0, 1.0)
    g_r = np.where(red, 1.15 + 0.30 * faint + 0.25 * a, 0.55 + 0.02 * faint + 0.24 * a)
    r_z = np.where(red, 0.85 + 0.35 * faint + 0.20 * a + 0.18 * b, 0.42 + 0.20 * faint + 0.12 * a + 0.22 * b)
    z_w1 = 0.25 + 0.70 * r_z + 0.35 * c
    mags = {"g": r + g_r, "r": r, "z": r - r_z, "w1": r - r_z - z_w1}
    mags = {band: m + COEFFICIENTS[band] * ebv for band, m in mags.items()}
    _keep_out_of_target_cuts(rng, mags)
    # Hubble Space Telescope sizes: median 0.55" at i = 22.5 and 0.33" at 24.5 (Leauthaud et al. 2007, COSMOS).
    reff = 10.0 ** (-0.17 - 0.11 * (r - 21.5) + 0.20 * rng.standard_normal(count))
    reff *= np.where(red, 0.8, 1.0)
    index = np.where(red, _ser_index(rng, count, 3.0), _ser_index(rng, count, 1.0))
    q = np.where(
        red, np.clip(0.72 + 0.17 * rng.standard_normal(count), 0.25, 1.0), _disc_axis_ratio(rng, count)
    )
    # Bright galaxies get the type their light has; fainter ones what Tractor affords them.
    plain = rng.random(count) < np.clip((r - 19.0) / 3.0, 0.0, 1.0)
    kind = np.where(index > 2.2, "DEV", "EXP")
    kind = np.where(plain, np.where(rng.random(count) < 0.6, "REX", kind), "SER")
    index = np.where(kind == "EXP", 1.0, np.where(kind == "DEV", 4.0, index))
    return _objects(rng, "field", mags, reff, q, index, kind)


def _disc_axis_ratio(rng: np.random.Generator, count: int, thickness: float = 0.22) -> np.ndarray:
    """Axis ratios of randomly inclined oblate discs: q^2 = cos^2 i + t^2 sin^2 i (Hubble 1926)."""
    cos2 = rng.random(count) ** 2
    return np.sqrt(cos2 + thickness**2 * (1.0 - cos2))


def _keep_out_of_target_cuts(rng: np.random.Generator, mags: dict[str, np.ndarray]) -> None:
    """Move members of the v3_color_relaxed cuts out of them, by z-W1 (nearby) or by r-z (blue), in place."""
    z_w1, r_z = mags["z"] - mags["w1"], mags["r"] - mags["z"]
    passing = (mags["z"] < 20.45) & (r_z > 0.38) & (z_w1 > 0.75)
    blue = passing & (rng.random(len(z_w1)) < 0.3) & (r_z < 0.8)
    mags["z"][blue] = mags["r"][blue] - (0.37 - 0.25 * rng.random(len(z_w1)) ** 2)[blue]
    near = passing & ~blue
    z_w1 = np.clip(0.45 + 0.2 * rng.standard_normal(len(z_w1)), -0.2, 0.74)
    mags["w1"][near] = (mags["z"] - z_w1)[near]


def draw_stars(rng: np.random.Generator, area_deg2: float, ebv: float, faint_r: float) -> Objects:
    """Draw stars of a field at high Galactic latitude.

    Counts per square degree and mag rise from 70 at r = 14 to 1,100 at r = 22, about 2,300 in all to r = 21
    (Bahcall & Soneira 1980, ApJS 44, 73, at |b| = 50-60 deg); colours follow the stellar locus of halo turn-off
    stars and M dwarfs (Covey et al. 2007, AJ 134, 2398).
    """
    edges = np.arange(BRIGHTEST_R, faint_r + _STEP / 2, _STEP)
    counts = 10.0 ** np.interp(
        edges[:-1], [14.0, 16.0, 18.0, 20.0, 22.0, 25.0], [1.85, 2.15, 2.45, 2.75, 3.04, 3.3]
    )
    numbers = rng.poisson(counts * _STEP * area_deg2)
    r = np.repeat(edges[:-1], numbers) + _STEP * rng.random(numbers.sum())
    count = len(r)
    dwarf = rng.random(count) < np.interp(r, [15.0, 19.0, 22.0], [0.15, 0.40, 0.65])
    a, b = rng.standard_normal((2, count))
    g_r = np.where(dwarf, 1.42 + 0.07 * a, np.clip(0.50 + 0.20 * np.abs(a) ** 1.3 * np.sign(a), 0.15, 1.25))
    r_z = np.where(dwarf, np.clip(1.45 + 0.45 * b, 0.75, 3.0), 0.55 * g_r - 0.02 + 0.04 * b)
    z_w1 = -1.6 + 0.55 * r_z + 0.1 * rng.standard_normal(count)
    mags = {"g": r + g_r, "r": r, "z": r - r_z, "w1": r - r_z - z_w1}
    mags = {band: m + COEFFICIENTS[band] * ebv for band, m in mags.items()}
    zero = np.zeros(count)
    return _objects(rng, "star", mags, zero, zero + 1.0, zero, np.full(count, "PSF"))


def _objects(
    rng: np.random.Generator,
    kind: str,
    mags: dict[str, np.ndarray],
    reff: np.ndarray,
    q: np.ndarray,
    index: np.ndarray,
    tractor_type: np.ndarray,
) -> Objects:
    count = len(reff)
    columns: Objects = {"kind": np.full(count, kind, dtype="U5")}
    columns |= {f"mag_{band}": mags[band].astype(np.float64) for band in BANDS}
    phi = np.pi * rng.random(count)
    columns |= {
        "reff_arcsec": np.minimum(reff, 12.0),
        "q": q,
        "phi_rad": phi,
        "n": np.asarray(index, dtype=np.float64),
    }
    columns["type"] = tractor_type.astype("U3")
    return columns
