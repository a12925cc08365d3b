"""Photon noise of the arc.

A coadd pixel is a weighted mean of exposures: with an effective gain G (electrons per nmgy) light f adds the
variance f / G. The survey's inverse variance already holds the photon noise of the sources that are there, so
1 / invvar rises with the image with slope 1 / G, and G is measured on each brick and band.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.stats import theilslopes

from darkhaloscope.draws import normals_at
from darkhaloscope.injection.measure import median
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.photometry import flux

NOISE_STREAM = 0

# Nominal dark sky, AB mag per square arcsec: `sky0` of DECam in the survey's exposure-time calculator
# (obsbot; Burleigh et al. 2020, AJ 160, 61).
SKY_MAGNITUDE = {"g": 22.04, "r": 20.91, "z": 18.46}

SECTION = 100  # pixels; one of the survey's tiles: sections start at multiples of 100
SECTION_CORNERS = np.array([(x, y) for y in range(200, 3600, 600) for x in range(200, 3600, 600)])
BRIGHT_SIGMA = 5.0
NEGLIGIBLE = (
    1e-4  # of a pixel's variance; photon noise below a hundredth of the noise that is there is not drawn
)
MIN_BRIGHT_PIXELS = 200
MIN_REACH_SIGMA = 12.0
N_BINS = 10


class Sections(Protocol):
    """What the fit needs of a brick: square sections of it."""

    def cuts(self, corners: np.ndarray, size: int) -> Sequence[Cutout | Exception]:
        """Return the squares whose first pixels are at x, y of corners (n, 2), or why one cannot be cut."""


def fit_gain(image: np.ndarray, variance: np.ndarray, sky_variance: float) -> float:
    """Return the gain, electrons per nmgy, from the slope of variance against image; NaN without a fit.

    Pixels brighter than 5 sigma of the sky are binned by brightness; the slope is that of Theil and Sen (Sen
    1968, JASA 63, 1379) through the medians of the bins. The intercept is free: the variance of pixels in
    sources is some per cents off that of the sky for reasons other than photons.

    Args:
        image: (n,) nmgy/pixel.
        variance: (n,) 1 / inverse variance, nmgy^2, of the same pixels, all with data.
        sky_variance: nmgy^2.
    """
    sigma = np.sqrt(sky_variance)
    bright = image > BRIGHT_SIGMA * sigma
    image, variance = image[bright], variance[bright]
    if len(image) < MIN_BRIGHT_PIXELS:
        return float("nan")
    bins = np.array_split(np.argsort(image, kind="stable"), N_BINS)
    x = np.array([median(image[b]) for b in bins])
    y = np.array([median(variance[b]) for b in bins])
    slope = theilslopes(y, x)[0]
    return float(1.0 / slope) if x[-1] > MIN_REACH_SIGMA * sigma and slope > 0 else float("nan")


def brick_gain(brick: Sections, bad_bits: int) -> np.ndarray:
    """Return the gain per band, (band,) electrons per nmgy, of a brick; NaN where it cannot be fitted.

    Read from 36 sections at fixed places, so that it does not depend on which rows are made. The depth
    differs between sections: the variances of each are shifted so that its median, taken from every fourth pixel,
    is the brick's: most pixels are sky.

    Args:
        brick: an open brick.
        bad_bits: maskbits of pixels to leave out.
    """
    cuts = brick.cuts(SECTION_CORNERS, SECTION)  # a broken tile costs its own rows, not the brick's gain
    sections = [(s, (s.maskbits & bad_bits) == 0) for s in cuts if isinstance(s, Cutout)]
    gains = []
    for band in range(len(BANDS)):
        planes = [
            (s.image[band], s.invvar[band], unmasked & (s.invvar[band] > 0)) for s, unmasked in sections
        ]
        levels = [_sky_variance(invvar, good) for _, invvar, good in planes]
        usable = [(p, level) for p, level in zip(planes, levels, strict=True) if np.isfinite(level)]
        if not usable:
            gains.append(np.nan)
            continue
        sky = median(np.array([level for _, level in usable]))
        parts = [_bright(*plane, sky, sky - level) for plane, level in usable]
        image, variance = (np.concatenate(values) for values in zip(*parts, strict=True))
        gains.append(fit_gain(image, variance, sky))
    return np.array(gains)


def _sky_variance(invvar: np.ndarray, good: np.ndarray) -> float:
    """Return the median variance, nmgy^2, of a section's good pixels, or NaN where there are too few."""
    values = invvar[::2, ::2][good[::2, ::2]]
    return 1.0 / median(values) if len(values) > SECTION // 4 else float("nan")


def _bright(
    image: np.ndarray, invvar: np.ndarray, good: np.ndarray, sky: float, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and variance + shift, float64, of a section's good pixels that stand out of the sky."""
    chosen = good & (image > BRIGHT_SIGMA * np.sqrt(sky))
    return image[chosen].astype(np.float64), 1.0 / invvar[chosen].astype(np.float64) + shift


def sky_gain(sky_variance: float, band: str) -> float:
    """Return the gain, electrons per nmgy, that makes a nominal sky's photon noise the sky's variance.

    Args:
        sky_variance: nmgy^2 per pixel.
        band: g, r or z.
    """
    return float(flux(np.array(SKY_MAGNITUDE[band]))) * PIXEL_SCALE_ARCSEC**2 / sky_variance


def stamp_gain(gains: np.ndarray, invvar: np.ndarray) -> np.ndarray:
    """Return the gain per band of one stamp: the brick's, or from the stamp's own sky where there is none.

    Args:
        gains: (band,) from `brick_gain`, NaN where it could not be fitted.
        invvar: (band, y, x) nmgy^-2; every band has pixels with data.
    """
    return np.array(
        [
            gain if np.isfinite(gain) else sky_gain(1.0 / median(plane[plane > 0]), band)
            for gain, plane, band in zip(gains, invvar, BANDS, strict=True)
        ]
    )


def photon_noise(arc: np.ndarray, gain: np.ndarray, invvar: np.ndarray, task_id: str) -> np.ndarray:
    """Draw the photon noise of an arc: mean 0, variance arc / gain, in nmgy/pixel; 0 where there is no light.

    Normal deviates: a coadd pixel averages exposures and resampled neighbours, so its light is no whole
    number of electrons; where arcs have few electrons their noise is a hundredth of the sky's. Where its variance is
    below `NEGLIGIBLE` of the pixel's own, as in the wings of an arc, none is drawn.

    Args:
        arc: (band, y, x) nmgy/pixel.
        gain: (band,) electrons per nmgy.
        invvar: (band, y, x) nmgy^-2, before the arc; pixels with 0 have no data, and all light counts there.
        task_id: key of the draws; a pixel's is the one of its number in the stamp, whatever else is lit.

    Returns:
        The shape of `arc`, float64.
    """
    variance = np.maximum(arc, 0.0) / gain[:, None, None]
    lit = np.flatnonzero((variance > 0) & (variance * invvar >= np.where(invvar > 0, NEGLIGIBLE, 0)))
    noise = np.zeros(variance.shape)
    noise.ravel()[lit] = np.sqrt(variance.ravel()[lit]) * normals_at(task_id, NOISE_STREAM, lit)
    return noise


def with_photon_noise(invvar: np.ndarray, arc: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return the inverse variance once the arc is there: 1 / (1 / invvar + arc / gain), 0 where it was 0.

    Args:
        invvar: (band, y, x) nmgy^-2.
        arc: (band, y, x) nmgy/pixel.
        gain: (band,) electrons per nmgy.
    """
    return invvar / (1.0 + invvar * np.maximum(arc, 0.0) / gain[:, None, None])
