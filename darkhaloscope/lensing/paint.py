"""Paint many unlensed galaxies and point sources onto one large image, each on a stamp of its own size."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from .light import sersic_surface_brightness
from .psf import Psf, psf_profile
from .render import render
from .scene import Scene

STAMP_SIZES = np.array([24, 32, 48, 64, 96, 128, 192, 256, 384, 512])
CHUNK = 256  # stamps rendered at a time: bounds the memory
Image = NDArray[np.float32]


def paint_galaxies(
    image: Image,
    x: ArrayLike,
    y: ArrayLike,
    flux: ArrayLike,
    reff_arcsec: ArrayLike,
    q: ArrayLike,
    phi_rad: ArrayLike,
    n: ArrayLike,
    psf: Psf,
    pixel_scale: float = 0.262,
    floor: float = 1e-4,
) -> tuple[str, ...]:
    """Add PSF-convolved Sersic galaxies to an image, in place.

    Example::

        image = np.zeros((3, 3600, 3600), np.float32)
        psf = Psf.moffat(np.broadcast_to([1.3, 1.2, 1.1], (len(x), 3)), beta=2.7)
        paint_galaxies(image, x, y, flux, reff_arcsec=0.4, q=0.8, phi_rad=0.0, n=1.0, psf=psf)

    Args:
        image: (band, y, x) float32, nmgy per pixel; changed.
        x: (n,) centre, pixels, 0-based, pixel centres at integers; may lie off the image.
        y: (n,) see ``x``.
        flux: (n, band) total flux, nmgy.
        reff_arcsec: (n,) or scalar, half-light radius of the product-averaged axis, arcsec.
        q: (n,) or scalar, axis ratio.
        phi_rad: (n,) or scalar, angle of the major axis from +x.
        n: (n,) or scalar, Sersic index.
        psf: one row per galaxy, or a kernel shared by all.
        pixel_scale: arcsec per pixel.
        floor: brightness, nmgy per pixel, below which a galaxy's wings are not drawn. A tenth of the sky's
            sigma is invisible; the default is a twentieth of a deep coadd's.

    Returns:
        One string per galaxy: why it was not painted, "" where it was.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    scene = Scene(  # type: ignore[arg-type]  # scalars broadcast
        x, y, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, reff_arcsec, q, phi_rad, n, flux
    )
    reasons = np.full(len(scene), "", object)
    half = np.nan_to_num(_reach(scene, psf, pixel_scale, floor))
    size = STAMP_SIZES[np.minimum(np.searchsorted(STAMP_SIZES, 2 * half), len(STAMP_SIZES) - 1)]
    corner_x, corner_y = _corner(x, size), _corner(y, size)
    for stamp_size in np.unique(size):
        rows = np.flatnonzero(size == stamp_size)
        chunk = max(1, CHUNK * 64**2 // int(stamp_size) ** 2)
        for part in (rows[i : i + chunk] for i in range(0, len(rows), chunk)):
            local = scene.take(part)
            object.__setattr__(local, "x_lens", x[part] - corner_x[part])
            object.__setattr__(local, "y_lens", y[part] - corner_y[part])
            made = render(local, psf.take(part), (int(stamp_size), int(stamp_size)), pixel_scale)
            reasons[part] = made.reason
            _add_stamps(image, made.image, corner_x[part], corner_y[part])
    return tuple(reasons)


def paint_points(
    image: Image,
    x: ArrayLike,
    y: ArrayLike,
    flux: ArrayLike,
    psf: Psf,
    pixel_scale: float = 0.262,
    floor: float = 1e-4,
) -> None:
    """Add point sources (Gaussian or Moffat effective PSF sampled at pixel centres) to an image, in place.

    Args:
        image: (band, y, x) float32, nmgy per pixel; changed.
        x: (n,) centre, pixels; may lie off the image.
        y: (n,) see ``x``.
        flux: (n, band) total flux, nmgy.
        psf: one row per source; "gaussian" or "moffat".
        pixel_scale: arcsec per pixel.
        floor: brightness, nmgy per pixel, below which the wings are not drawn.

    Raises:
        ValueError: for a kernel PSF, which cannot be sampled at any sub-pixel position.
    """
    if psf.kind == "kernel":
        raise ValueError("paint_points: a kernel PSF has no profile; use a Gaussian or Moffat Psf")
    x, y, flux = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float)), np.atleast_2d(flux)
    radii = np.geomspace(1.0, 4096.0, 97)  # pixels
    for row in range(len(x)):
        beta = psf.beta[row] if psf.kind == "moffat" else 0.0
        value = psf_profile(radii[:, None] * pixel_scale, psf.fwhm_arcsec[row], psf.kind, beta)
        bright = (value * flux[row] * pixel_scale**2 > floor).any(1)
        reach = int(np.ceil(radii[bright].max(initial=4.0)))
        x0, x1 = max(int(x[row]) - reach, 0), min(int(x[row]) + reach + 1, image.shape[2])
        y0, y1 = max(int(y[row]) - reach, 0), min(int(y[row]) + reach + 1, image.shape[1])
        if x0 >= x1 or y0 >= y1:
            continue
        r = np.hypot(np.arange(x0, x1)[None, :] - x[row], np.arange(y0, y1)[:, None] - y[row]) * pixel_scale
        for band in range(image.shape[0]):
            profile = psf_profile(r, psf.fwhm_arcsec[row, band], psf.kind, beta)
            image[band, y0:y1, x0:x1] += (flux[row, band] * pixel_scale**2 * profile).astype(np.float32)


def _reach(scene: Scene, psf: Psf, pixel_scale: float, floor: float) -> NDArray[np.float64]:
    """Radius (n,), pixels, beyond which a galaxy is fainter than ``floor`` in every band."""
    radii = np.geomspace(8.0, 256.0, 21)[:, None] * pixel_scale
    flux = scene.flux.max(1) * pixel_scale**2
    stretch = np.sqrt(scene.src_q)  # the major axis reaches further than the product average
    galaxy = sersic_surface_brightness(
        radii * stretch, 0.0, flux, scene.src_reff_arcsec, 1.0, 0.0, scene.src_n
    )
    total = galaxy
    if psf.kind != "kernel":
        beta = psf.beta if psf.kind == "moffat" else 0.0
        total = galaxy + flux * psf_profile(radii, psf.fwhm_arcsec.max(1), psf.kind, beta)
    bright = total > floor
    return np.where(bright, radii / pixel_scale, 8.0).max(0)


def _corner(x: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.int64]:
    """First pixel of a stamp that has ``x`` at its middle."""
    return np.floor(np.nan_to_num(x) + 0.5).astype(np.int64) - size // 2


@njit(cache=True)
def _add_stamps(image, stamps, corner_x, corner_y):  # type: ignore[no-untyped-def]
    """Add (n, band, y, x) stamps at their corners, clipped to the image."""
    for i in range(stamps.shape[0]):
        y0, x0 = corner_y[i], corner_x[i]
        for band in range(stamps.shape[1]):
            for y in range(max(0, -y0), min(stamps.shape[2], image.shape[1] - y0)):
                for x in range(max(0, -x0), min(stamps.shape[3], image.shape[2] - x0)):
                    image[band, y0 + y, x0 + x] += stamps[i, band, y, x]
