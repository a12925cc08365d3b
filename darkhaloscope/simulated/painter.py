"""Paint a sky's worth of galaxies and stars onto an image. Needs only numpy, numba and scipy.

A coadd of the survey holds about 11,000 galaxies to r = 25.5, so each must cost well below a millisecond.
The lensing package's renderer follows rays; unlensed light needs none: the product of the Sersic transform
(tabulated once from the library's own profile), the library's Moffat transform and a phase is summed back on a
stamp of the galaxy's own size. That is the effective-PSF convention, GalSim's ``no_pixel``: the value of the
convolved light at the pixel's centre times the pixel area. Light beyond a stamp's border folds back into it;
stamps are as large as the galaxy is brighter than ``floor`` per pixel, so what folds is below that.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.fft import irfft2
from scipy.special import gammainc, j0

from darkhaloscope.lensing.light import sersic_bn, sersic_surface_brightness
from darkhaloscope.lensing.psf import moffat_alpha, moffat_transform, psf_profile, psfsize_to_fwhm
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.survey.photometry import flux as flux_of

FLOOR = 0.08  # of the sky sigma: light fainter than this is not drawn
AUREOLE = {"share": 0.04, "fwhm_arcsec": 8.0, "beta": 1.5}  # wings of stars brighter than r = 13
STAMP_SIZES = np.array([24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768])
_CHUNK = 1 << 18  # pixels rendered at a time: bounds the memory

_INDICES = np.concatenate([np.arange(0.5, 2.0, 0.1), np.arange(2.0, 6.01, 0.25)])  # Sersic n of the table
_LOG_K = np.linspace(np.log(2e-3), np.log(2e3), 400)  # ln(k reff)
_Z_STEP = 0.02
_Z = np.arange(0.0, 60.0, _Z_STEP)  # 2 pi k alpha of the Moffat
Floats = NDArray[np.float64]


@lru_cache(maxsize=1)
def sersic_transforms() -> NDArray[np.float32]:
    """Return the Fourier transform of unit Sersic profiles, (index of n, ln(k reff)); 1 at k = 0.

    The Hankel transform of the profile, by substituting t = b (r / reff)^(1/n): the enclosed light is the
    incomplete gamma function P(2n, t), so the transform is the mean of J0(k r) over equal shares of light.
    """
    light = np.concatenate(
        [
            np.geomspace(1e-9, 1e-3, 400),
            np.linspace(1e-3, 1.0 - 1e-3, 1500),
            1.0 - np.geomspace(1e-3, 1e-7, 200),
        ]
    )
    k = np.exp(_LOG_K)
    table = np.empty((len(_INDICES), len(k)), np.float32)
    t_grid = np.geomspace(1e-6, 60.0, 20_000)
    for i, n in enumerate(_INDICES):
        t = np.interp(light, gammainc(2.0 * n, t_grid), t_grid)
        radius = (t / sersic_bn(n)) ** n
        wave = j0(np.outer(k, radius))
        table[i] = (0.5 * (wave[:, 1:] + wave[:, :-1])) @ np.diff(light)
    return table


@lru_cache(maxsize=4)
def _moffat_table(beta: float) -> NDArray[np.float32]:
    return moffat_transform(_Z, beta).astype(np.float32)


def paint_galaxies(
    image: NDArray[np.float32],
    x: Floats,
    y: Floats,
    flux: Floats,
    reff_arcsec: Floats,
    q: Floats,
    phi_rad: Floats,
    n: Floats,
    fwhm_arcsec: Floats,
    beta: float,
    floor: Floats,
) -> None:
    """Add PSF-convolved Sersic galaxies to an image, in place.

    Args:
        image: (band, y, x) float32, nmgy/pixel; changed.
        x, y: (n,) centres, 0-based pixels; may lie off the image.
        flux: (n, band) total flux, nmgy.
        reff_arcsec: (n,) half-light radius of the product-averaged axis.
        q, phi_rad: (n,) axis ratio and angle of the major axis from +x.
        n: (n,) Sersic index, 0.5 to 6.
        fwhm_arcsec: (n, band) half-maximum width of the Moffat effective PSF.
        beta: Moffat slope.
        floor: (band,) nmgy/pixel; wings fainter than this in every band are not drawn.
    """
    size = _stamp_size(flux, reff_arcsec, q, n, fwhm_arcsec, beta, floor)
    where = np.clip(np.interp(n, _INDICES, np.arange(len(_INDICES))), 0, len(_INDICES) - 1.001)
    alpha = moffat_alpha(fwhm_arcsec, beta) / PIXEL_SCALE_ARCSEC
    corner = [np.floor(np.asarray(c) + 0.5).astype(np.int64) - size // 2 for c in (x, y)]
    tables = sersic_transforms(), _moffat_table(beta)
    for side in np.unique(size):
        rows = np.flatnonzero(size == side)
        chunk = max(1, _CHUNK // int(side) ** 2)
        for part in (rows[i : i + chunk] for i in range(0, len(rows), chunk)):
            spectrum = _spectra(
                int(side), x[part] - corner[0][part], y[part] - corner[1][part], flux[part].astype(np.float64),
                reff_arcsec[part] / PIXEL_SCALE_ARCSEC, q[part], phi_rad[part], where[part], alpha[part],
                _LOG_K[0], _LOG_K[1] - _LOG_K[0], _Z_STEP, *tables,
            )  # fmt: skip
            stamps = irfft2(spectrum, s=(int(side), int(side)), overwrite_x=True)
            _add_stamps(image, stamps, corner[0][part], corner[1][part])


def _stamp_size(
    flux: Floats, reff: Floats, q: Floats, n: Floats, fwhm: Floats, beta: float, floor: Floats
) -> NDArray[np.int64]:
    """Side of each galaxy's stamp: twice the radius at which it falls below `floor` in every band."""
    radii = np.geomspace(8.0, 384.0, 25)[:, None] * PIXEL_SCALE_ARCSEC
    relative = (flux / floor).max(axis=1) * PIXEL_SCALE_ARCSEC**2
    galaxy = sersic_surface_brightness(radii * np.sqrt(q), 0.0, relative, reff, 1.0, 0.0, n)
    star = relative * psf_profile(radii, fwhm.max(axis=1), "moffat", beta)
    reach = np.where(galaxy + star > 1.0, radii / PIXEL_SCALE_ARCSEC, 8.0).max(axis=0)
    return STAMP_SIZES[np.minimum(np.searchsorted(STAMP_SIZES, 2.0 * reach), len(STAMP_SIZES) - 1)]


@njit(cache=True, fastmath=True)
def _spectra(side, x, y, flux, reff, q, phi, index, alpha, log0, log_step, z_step, sersic, moffat):
    """Half spectra (n, band, side, side/2+1) of galaxies centred at pixel (x, y) of their stamps."""
    count, bands = flux.shape
    half = side // 2 + 1
    out = np.empty((count, bands, side, half), np.complex64)
    unit = 2.0 * np.pi / side
    row = np.empty(sersic.shape[1], np.float32)
    for i in range(count):
        low = int(index[i])
        mix = np.float32(index[i] - low)
        for j in range(row.shape[0]):
            row[j] = (np.float32(1.0) - mix) * sersic[low, j] + mix * sersic[low + 1, j]
        cos, sin, root = np.cos(phi[i]), np.sin(phi[i]), np.sqrt(q[i])
        for jy in range(side):
            ky = unit * (jy if jy <= side // 2 else jy - side)
            for jx in range(half):
                kx = unit * jx
                k = np.sqrt(kx * kx + ky * ky)
                along = (kx * cos + ky * sin) / root
                across = (ky * cos - kx * sin) * root
                kr = reff[i] * np.sqrt(along * along + across * across)
                value = 1.0
                if kr > 0.0:
                    at = (np.log(kr) - log0) / log_step
                    if at > 0.0:
                        cell = min(int(at), row.shape[0] - 2)
                        value = row[cell] + min(at - cell, 1.0) * (row[cell + 1] - row[cell])
                angle = kx * x[i] + ky * y[i]
                phase = value * complex(np.cos(angle), -np.sin(angle))
                for b in range(bands):
                    at = k * alpha[i, b] / z_step
                    cell = int(at)
                    psf = 0.0
                    if cell < moffat.shape[0] - 1:
                        psf = moffat[cell] + (at - cell) * (moffat[cell + 1] - moffat[cell])
                    out[i, b, jy, jx] = phase * (psf * flux[i, b])
    return out


@njit(cache=True)
def _add_stamps(image, stamps, corner_x, corner_y):
    """Add (n, band, y, x) stamps at their corners, clipped to the image."""
    for i in range(stamps.shape[0]):
        y0, x0 = corner_y[i], corner_x[i]
        for band in range(stamps.shape[1]):
            for y in range(max(0, -y0), min(stamps.shape[2], image.shape[1] - y0)):
                for x in range(max(0, -x0), min(stamps.shape[3], image.shape[2] - x0)):
                    image[band, y0 + y, x0 + x] += stamps[i, band, y, x]


def paint_stars(
    image: NDArray[np.float32],
    x: Floats,
    y: Floats,
    flux: Floats,
    fwhm_arcsec: Floats,
    beta: float,
    floor: Floats,
) -> None:
    """Add point sources, the Moffat effective PSF at pixel centres, in place; arguments as `paint_galaxies`."""
    central = psf_profile(0.0, fwhm_arcsec, "moffat", beta) * PIXEL_SCALE_ARCSEC**2 * flux
    alpha = moffat_alpha(fwhm_arcsec, beta) / PIXEL_SCALE_ARCSEC
    contrast = np.maximum(central / floor, 1.0)
    reach = np.maximum(alpha * np.sqrt(contrast ** (1.0 / beta) - 1.0), 4.0).max(axis=1)
    _add_moffats(image, x, y, central, alpha, float(beta), np.ceil(reach).astype(np.int64))


@njit(cache=True, fastmath=True)
def _add_moffats(image, x, y, central, alpha, beta, reach):
    for i in range(x.shape[0]):
        x0, y0 = int(np.floor(x[i] + 0.5)), int(np.floor(y[i] + 0.5))
        for py in range(max(0, y0 - reach[i]), min(image.shape[1], y0 + reach[i] + 1)):
            for px in range(max(0, x0 - reach[i]), min(image.shape[2], x0 + reach[i] + 1)):
                r2 = (px - x[i]) ** 2 + (py - y[i]) ** 2
                for b in range(image.shape[0]):
                    image[b, py, px] += central[i, b] * (1.0 + r2 / alpha[i, b] ** 2) ** -beta


def paint_objects(
    objects: dict[str, np.ndarray], psfsize: np.ndarray, sigma: np.ndarray, beta: float
) -> NDArray[np.float32]:
    """Paint the noiseless image.

    Args:
        objects: columns of `populations.Objects`, with x, y in pixels added.
        psfsize: (band, y, x) the survey's noise-equivalent size, arcsec: the PSF at each object is the Moffat
            of slope `beta` that has it.
        sigma: (band,) sky sigma, which says how faint wings matter.
        beta: Moffat slope.

    Returns:
        (band, y, x) float32, nmgy/pixel.
    """
    image = np.zeros(psfsize.shape, np.float32)
    at_y = np.clip(objects["y"], 0, psfsize.shape[1] - 1).astype(int)
    at_x = np.clip(objects["x"], 0, psfsize.shape[2] - 1).astype(int)
    fwhm = psfsize_to_fwhm(psfsize[:, at_y, at_x].T.astype(np.float64), "moffat", beta)
    light = np.stack([flux_of(objects[f"mag_{band}"]) for band in BANDS], axis=1)
    floor = FLOOR * sigma
    stars = objects["kind"] == "star"
    wings = stars & (objects["mag_r"] < 13.0)
    light[wings] *= 1.0 - AUREOLE["share"]
    g = {name: values[~stars] for name, values in objects.items()}
    paint_galaxies(
        image, g["x"], g["y"], light[~stars], g["reff_arcsec"], g["q"], g["phi_rad"], g["n"],
        fwhm[~stars], beta, floor,
    )  # fmt: skip
    paint_stars(image, objects["x"][stars], objects["y"][stars], light[stars], fwhm[stars], beta, floor)
    halo = light[wings] * AUREOLE["share"] / (1.0 - AUREOLE["share"])
    width = np.full(halo.shape, AUREOLE["fwhm_arcsec"])
    paint_stars(image, objects["x"][wings], objects["y"][wings], halo, width, AUREOLE["beta"], floor)
    return image
