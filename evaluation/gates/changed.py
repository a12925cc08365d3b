"""What a stamp would be with another light than its arc: a ring, a blob, none in order; and stamps that show nothing.

Images are (band, y, x) nmgy/pixel float32; x, y the host in 0-based pixels.
"""

from __future__ import annotations

import numpy as np

from darkhaloscope.lensing.psf import psf_profile
from darkhaloscope.records import PIXEL_SCALE_ARCSEC

STAR_FLUX = 6.3e4  # nmgy: r = 10.5, far brighter than anything among the hosts
PSF_BETA = 2.7


def ring_of(arc: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the arc's light spread evenly in azimuth: the same flux and radial profile, no arc."""
    radius = _radius(arc.shape[-1], x, y)
    bins = np.rint(radius).astype(int)
    pixels = np.maximum(np.bincount(bins.ravel()), 1)
    ring = np.stack([np.interp(radius, np.arange(len(pixels)), np.bincount(bins.ravel(), plane.ravel()) / pixels)
                     for plane in arc.astype(np.float64)])  # fmt: skip
    return _with_flux_of(arc, ring)


def blob_of(arc: np.ndarray, fwhm: np.ndarray) -> np.ndarray:
    """Return the arc's flux as a point source on its brightest r pixel.

    Args:
        arc: the arc alone.
        fwhm: (band,) arcsec, half maximum.
    """
    y, x = np.unravel_index(np.argmax(arc[1]), arc.shape[1:])
    return _with_flux_of(arc, _point_source(arc.shape[-1], float(x), float(y), fwhm))


def shuffled(image: np.ndarray, x: float, y: float, rng: np.random.Generator) -> np.ndarray:
    """Return an image whose pixels were exchanged at random within rings of one pixel around the host.

    All bands alike, so radial profile and colours stay, and every shape is gone.
    """
    ring = np.rint(_radius(image.shape[-1], x, y)).astype(int).ravel()
    place = np.argsort(ring, kind="stable")
    drawn = np.lexsort((rng.random(ring.size), ring))
    flat, out = image.reshape(len(image), -1), np.empty((len(image), ring.size), image.dtype)
    out[:, place] = flat[:, drawn]
    return out.reshape(image.shape)


def empty_sky(sky_sigma: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return stamps of white noise alone, (n, band, y, x), of sky_sigma (n, band)."""
    shape = (*sky_sigma.shape, size, size)
    return (rng.normal(size=shape) * sky_sigma[:, :, None, None]).astype(np.float32)


def bright_stars(sky_sigma: np.ndarray, fwhm: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return stamps of sky and a bright star within 1 arcsec of the middle; fwhm (n, band) arcsec."""
    stamps = empty_sky(sky_sigma, size, rng)
    places = (size - 1) / 2 + rng.uniform(-1, 1, (len(stamps), 2)) / PIXEL_SCALE_ARCSEC
    for stamp, (x, y), width in zip(stamps, places, fwhm, strict=True):
        stamp += STAR_FLUX * _point_source(size, x, y, width).astype(np.float32)
    return stamps


def _point_source(size: int, x: float, y: float, fwhm: np.ndarray) -> np.ndarray:
    """Return unit-flux point sources, (band, y, x): the Moffat profile at pixel centres times their area."""
    radius = _radius(size, x, y) * PIXEL_SCALE_ARCSEC
    return np.stack([psf_profile(radius, w, "moffat", PSF_BETA) for w in fwhm]) * PIXEL_SCALE_ARCSEC**2


def _with_flux_of(arc: np.ndarray, light: np.ndarray) -> np.ndarray:
    total, own = (image.astype(np.float64).sum(axis=(1, 2)) for image in (arc, light))
    scale = np.divide(total, own, out=np.zeros_like(total), where=own > 0)
    return (light * scale[:, None, None]).astype(np.float32)


def _radius(size: int, x: float, y: float) -> np.ndarray:
    axis = np.arange(size)
    return np.hypot(axis - x, axis[:, None] - y)
