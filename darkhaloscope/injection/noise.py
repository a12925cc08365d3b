"""Photon noise of the arc.

A coadd pixel is a weighted mean of exposures: with an effective gain G (electrons per nmgy) light f adds the
variance f / G. The survey's inverse variance already holds the photon noise of the sources that are there, so
1 / invvar rises with the image with slope 1 / G, and G is measured on each brick and band.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from darkhaloscope.compiled import compiler
from darkhaloscope.draws import normals_at
from darkhaloscope.injection.measure import median
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.photometry import flux

_njit = compiler(Path(__file__).parent)

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
    if not x[0] < x[-1]:
        return float("nan")
    slope = _theil_sen(x, y)
    return float(1.0 / slope) if x[-1] > MIN_REACH_SIGMA * sigma and slope > 0 else float("nan")


def _theil_sen(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median slope between pairs of points, x ascending: scipy's `theilslopes` without its intervals."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] > x[first]
    return median((y[second] - y[first])[apart] / (x[second] - x[first])[apart])


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
        planes = [(s.image[band], s.invvar[band], unmasked) for s, unmasked in sections]
        levels = [_sky_variance(invvar, unmasked) for _, invvar, unmasked in planes]
        usable = [(p, level) for p, level in zip(planes, levels, strict=True) if np.isfinite(level)]
        if not usable:
            gains.append(np.nan)
            continue
        sky = median(np.array([level for _, level in usable]))
        faintest = BRIGHT_SIGMA * np.sqrt(sky)
        parts = [_bright(*plane, faintest, sky - level) for plane, level in usable]
        image, variance = (np.concatenate(values) for values in zip(*parts, strict=True))
        gains.append(fit_gain(image, variance, sky))
    return np.array(gains)


def _sky_variance(invvar: np.ndarray, unmasked: np.ndarray) -> float:
    """Return the median variance, nmgy^2, of a section's good pixels, or NaN where there are too few."""
    values = _thinned(invvar, unmasked)
    return 1.0 / median(values) if len(values) > SECTION // 4 else float("nan")


@_njit
def _thinned(invvar: np.ndarray, unmasked: np.ndarray) -> np.ndarray:
    """Return the inverse variance of good pixels, (n,), every second of every second row."""
    values, n = np.empty(invvar.size, invvar.dtype), 0
    for y in range(0, invvar.shape[0], 2):
        for x in range(0, invvar.shape[1], 2):
            if unmasked[y, x] and invvar[y, x] > 0:
                values[n] = invvar[y, x]
                n += 1
    return values[:n]


@_njit
def _bright(
    image: np.ndarray, invvar: np.ndarray, unmasked: np.ndarray, faintest: float, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and variance + shift, float64, of a section's good pixels that are brighter than `faintest`."""
    light, variance, n = np.empty(image.size), np.empty(image.size), 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if unmasked[y, x] and image[y, x] > faintest and invvar[y, x] > 0:
                light[n], variance[n] = image[y, x], 1.0 / np.float64(invvar[y, x]) + shift
                n += 1
    return light[:n], variance[:n]


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
    lit, variance = _lit(arc, gain, invvar)
    noise = np.zeros(arc.shape)
    noise.ravel()[lit] = np.sqrt(variance) * normals_at(task_id, NOISE_STREAM, lit)
    return noise


@_njit
def _lit(arc: np.ndarray, gain: np.ndarray, invvar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the pixels whose photon noise counts, ascending, and its variance there."""
    number, variance = np.empty(arc.size, np.int64), np.empty(arc.size)
    n = 0
    _, height, width = arc.shape
    for band in range(len(arc)):
        for y in range(height):
            for x in range(width):
                here, weight = max(arc[band, y, x], 0.0) / gain[band], invvar[band, y, x]
                if here > 0 and (weight <= 0 or here * weight >= NEGLIGIBLE):
                    number[n], variance[n] = (band * height + y) * width + x, here
                    n += 1
    return number[:n], variance[:n]


def with_photon_noise(invvar: np.ndarray, arc: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return the inverse variance once the arc is there: 1 / (1 / invvar + arc / gain), 0 where it was 0.

    Args:
        invvar: (band, y, x) nmgy^-2.
        arc: (band, y, x) nmgy/pixel.
        gain: (band,) electrons per nmgy.
    """
    return _weakened(invvar, arc, gain)


@_njit
def _weakened(invvar: np.ndarray, arc: np.ndarray, gain: np.ndarray) -> np.ndarray:
    out = np.empty(arc.shape)
    for band in range(len(arc)):
        for y in range(arc.shape[1]):
            for x in range(arc.shape[2]):
                weight = invvar[band, y, x]
                out[band, y, x] = weight / (1.0 + weight * max(arc[band, y, x], 0.0) / gain[band])
    return out
