"""How the sky was observed: seeing, depth, coverage, saturation, masks. One function per effect; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from darkhaloscope.lensing.psf import SIGMA_TO_FWHM
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.simulated import reference
from darkhaloscope.survey.maskbits import BITS
from darkhaloscope.survey.photometry import flux

# Effective sky brightness, nmgy/pixel: var = sigma_sky^2 (1 + flux / this). Slope of 1/invvar against image on
# the DR9 brick 0591m305 (35,100, 41,500, 56,900 e-/nmgy) times its sky variance (0.0020, 0.0025, 0.0089)^2.
SKY_BRIGHTNESS = {"g": 0.140, "r": 0.259, "z": 4.51}
# Noise of the same field, sources masked: sky pixels scatter 0.92 of 1/sqrt(invvar) and pixels 1, 2, 3 apart
# correlate like this (sources left in below 3 to 4 sigma, the first number reads 0.15 to 0.23).
NOISE_CORRELATION = (0.12, -0.065, 0.04)
NOISE_OVER_INVVAR = 0.92
SATURATION = {"g": 30.0, "r": 30.0, "z": 60.0}  # nmgy/pixel: DECam saturates at r about 15.5 in good seeing

# Typical of DR10-south: how much larger the PSF and how much deeper the coadd is than in r, with scatter.
PSFSIZE_TO_R = {"g": (1.09, 0.04), "r": (1.0, 0.0), "z": (0.95, 0.04)}
DEPTH_FROM_R = {"g": (0.35, 0.15), "r": (0.0, 0.0), "z": (-1.10, 0.15)}

# DECam: 4094 x 2046 pixel CCDs, 153 and 201 pixels apart (Flaugher et al. 2015, AJ 150, 150).
_CCD = (4094, 2046)
_PITCH = (4094 + 153, 2046 + 201)


@dataclass(frozen=True)
class Conditions:
    """One brick's observing conditions: E(B-V), and per band psfsize (arcsec) and 5-sigma PSF depth (AB mag)."""

    ebv: float
    psfsize: dict[str, float]
    depth: dict[str, float]

    def sky_sigma(self, band: str) -> float:
        """Return the sky's standard deviation per pixel, nmgy."""
        return sky_sigma(self.psfsize[band], self.depth[band])


def sky_sigma(psfsize_arcsec: float, depth_mag: float) -> float:
    """Return the sky sigma per pixel, nmgy, at which a point source of `depth_mag` is a 5-sigma detection.

    The survey's PSF depth is that of a matched filter on white noise: sigma_flux = sigma_pixel sqrt(Neff).
    """
    return float(flux(np.asarray(depth_mag))) / 5.0 / np.sqrt(noise_pixels(psfsize_arcsec))


def noise_pixels(psfsize_arcsec: np.ndarray | float) -> np.ndarray:
    """Return Neff, the noise-equivalent pixels of a PSF of the survey's `psfsize`: its definition, solved."""
    return 4.0 * np.pi * (np.asarray(psfsize_arcsec) / PIXEL_SCALE_ARCSEC / SIGMA_TO_FWHM) ** 2


def draw_conditions(
    rng: np.random.Generator, max_ebv: float = 0.12, max_psfsize_r: float = 1.6, min_depth_r: float = 23.6
) -> Conditions:
    """Draw a brick's conditions from the real joint distribution, among bricks that pass the brick cuts."""
    summary = reference.conditions()
    gaussian = 2.0 * np.sin(np.pi / 6.0 * np.asarray(summary["rank_correlation"]))
    factor, levels = np.linalg.cholesky(gaussian), summary["levels"]
    while True:
        uniform = ndtr(factor @ rng.standard_normal(3))
        value = {
            k: float(np.interp(u, levels, q))
            for u, (k, q) in zip(uniform, summary["quantiles"].items(), strict=True)
        }
        offsets = rng.standard_normal((2, len(BANDS)))
        psfsize, depth = {}, {}
        for band, a, b in zip(BANDS, *offsets, strict=True):
            ratio, scatter = PSFSIZE_TO_R[band]
            psfsize[band] = value["psfsize_r"] * (ratio + scatter * float(a))
            offset, scatter = DEPTH_FROM_R[band]
            depth[band] = value["psfdepth_r"] + offset + scatter * float(b)
        if value["ebv"] < max_ebv and psfsize["r"] < max_psfsize_r and depth["r"] > min_depth_r:
            return Conditions(value["ebv"], psfsize, depth)


def coverage(
    rng: np.random.Generator, shape: tuple[int, int], edge_at: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the exposures of one band: gaps between CCDs, dithers, unequal transparency.

    Args:
        rng: generator.
        shape: (y, x).
        edge_at: share of the width the survey covers, from the left; None: all.

    Returns:
        nexp (y, x) int16, and weight (y, x) float32: invvar over the typical one; 0 without exposure.
    """
    count = int(rng.integers(4, 8))
    seen_x, seen_y = np.empty((count, shape[1]), np.float32), np.empty((count, shape[0]), np.float32)
    for i in range(count):
        dither = [int(v) for v in rng.integers(0, _PITCH)]
        seen_x[i] = (np.arange(shape[1]) + dither[0]) % _PITCH[0] < _CCD[0]
        seen_y[i] = (np.arange(shape[0]) + dither[1]) % _PITCH[1] < _CCD[1]
        if edge_at is not None:
            seen_x[i] = np.arange(shape[1]) < shape[1] * edge_at + rng.integers(-60, 61)
    weight = (seen_y * rng.uniform(0.75, 1.25, (count, 1)).astype(np.float32)).T @ seen_x
    sample = weight[::4, ::4]
    return (seen_y.T @ seen_x).astype(np.int16), weight / np.median(sample[sample > 0])


def psfsize_map(rng: np.random.Generator, base: float, shape: tuple[int, int]) -> np.ndarray:
    """Draw a map (y, x) float32 of psfsize, arcsec, within 3 % of `base`; constant in 100-pixel blocks.

    The survey's maps are steps too: each exposure's PSF enters with one size per CCD.
    """
    slope_x, slope_y = rng.uniform(-0.03, 0.03, 2)
    y, x = (np.linspace(-0.5, 0.5, -(-side // 100)) for side in shape)
    blocks = (base * (1.0 + slope_y * y[:, None] + slope_x * x[None, :])).astype(np.float32)
    return np.repeat(np.repeat(blocks, 100, axis=0), 100, axis=1)[: shape[0], : shape[1]]


def star_mask_radius_arcsec(mag: np.ndarray) -> np.ndarray:
    """Return the radius of the MEDIUM halo of a star; BRIGHT is half of it, for G < 13.

    1630" x 1.396^-G: legacysurvey.org/dr10/bitmasks and the pipeline's ``mask_radius_for_mag``.
    """
    return 1630.0 * 1.396 ** -np.asarray(mag, dtype=np.float64)


def star_halos(maskbits: np.ndarray, x: np.ndarray, y: np.ndarray, mag: np.ndarray) -> None:
    """Set MEDIUM around stars brighter than G = 16 and BRIGHT around those brighter than 13, in place."""
    for star in np.flatnonzero(mag < 16.0):
        radius = float(star_mask_radius_arcsec(mag[star])) / PIXEL_SCALE_ARCSEC
        _set_disc(maskbits, x[star], y[star], radius, 1 << BITS["MEDIUM"])
        if mag[star] < 13.0:
            _set_disc(maskbits, x[star], y[star], radius / 2.0, 1 << BITS["BRIGHT"])


def _set_disc(maskbits: np.ndarray, x: float, y: float, radius: float, value: int) -> None:
    y0, y1 = max(int(y - radius), 0), min(int(y + radius) + 2, maskbits.shape[0])
    x0, x1 = max(int(x - radius), 0), min(int(x + radius) + 2, maskbits.shape[1])
    if y0 < y1 and x0 < x1:
        distance2 = (np.arange(y0, y1)[:, None] - y) ** 2 + (np.arange(x0, x1)[None, :] - x) ** 2
        maskbits[y0:y1, x0:x1][distance2 <= radius**2] |= value


def saturate(
    model: np.ndarray, invvar: np.ndarray, maskbits: np.ndarray, x: np.ndarray, y: np.ndarray, mag: np.ndarray
) -> None:
    """Clip saturated pixels and the bleed trails of the brightest stars; invvar 0, SATUR and ALLMASK set. In place.

    Args:
        model: (band, y, x) noiseless image, nmgy/pixel.
        invvar: (band, y, x).
        maskbits: (y, x).
        x, y, mag: stars.
    """
    trails = np.zeros(maskbits.shape, dtype=bool)
    for star in np.flatnonzero(mag < 11.0):
        reach, row = int(40 * 10 ** (0.2 * (11.0 - mag[star]))), int(y[star] + 0.5)
        columns = slice(max(int(x[star]) - reach, 0), max(int(x[star]) + reach, 0))
        trails[max(row - 2, 0) : max(row + 3, 0), columns] = True
    for i, band in enumerate(BANDS):
        bad = (model[i] > SATURATION[band]) | trails
        model[i][bad] = SATURATION[band]
        invvar[i][bad] = 0.0
        maskbits[bad] |= 1 << BITS[f"SATUR_{band.upper()}"] | 1 << BITS[f"ALLMASK_{band.upper()}"]
