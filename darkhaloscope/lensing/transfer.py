"""From spread light to images: the effective PSF applied in Fourier space, the spread divided out.

The lattice holds the light convolved with a cubic B-spline, sampled at pixel centres. Its transform is divided
by the spline's, ``sinc^4`` along each axis, and multiplied by the PSF's analytic one; the convolution is
linear as long as the lattice is wide enough for the PSF not to come round (`render.Lattice`).
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from .fastmath import F32, exp2
from .jit import njit
from .psf import SIGMA_TO_FWHM, Psf, moffat_alpha, moffat_transform

Z_MAX, Z_STEP = 24.0, 1.0 / 64.0  # beyond z = 24 a Moffat's transform is below 1e-7 for beta < 6
BETA_STEP = 1.0 / 64.0
NEGLIGIBLE = 1e-5  # frequencies along x at which the PSF passes less are left out, row by row
LAST = F32(-np.log2(NEGLIGIBLE))


@cache
def _table_node(node: int) -> NDArray[np.float32]:
    """The Moffat's transform at beta = node * BETA_STEP on a grid in z, with two zeros at the end."""
    z = np.arange(0.0, Z_MAX + Z_STEP, Z_STEP)
    return np.append(moffat_transform(z, node * BETA_STEP), [0.0, 0.0]).astype(np.float32)


def _moffat_tables(beta: NDArray[np.float64]) -> NDArray[np.float32]:
    """Tables of the given slopes, linear between nodes in beta (error below 2e-5 of the peak for beta > 2)."""
    node = np.floor(beta / BETA_STEP).astype(int)
    right = (beta / BETA_STEP - node).astype(np.float32)[:, None]
    low, high = (np.stack([_table_node(int(k) + step) for k in node]) for step in (0, 1))
    table = low + right * (high - low)
    return np.where(table > NEGLIGIBLE, table, np.float32(0.0))


@lru_cache(maxsize=16)
def _unspread(n: int, half: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Frequencies (cycles per pixel) of an n-point axis, and 1 / sinc^4 there."""
    k = np.fft.rfftfreq(n) if half else np.fft.fftfreq(n)
    return k.astype(np.float32), (np.sinc(k) ** -4.0).astype(np.float32)


@njit
def _apply_radial(spectrum, alpha, table_of, tables, kx, ky, ux, uy, out):
    """out[row, band] = spectrum[row] * table(alpha[row, band] * |k|), the spread divided out."""
    n_ky, n_kx = out.shape[2], out.shape[3]
    last = F32(tables.shape[1] - 2)
    factor = np.empty(n_kx, np.float32)
    for row in range(spectrum.shape[0]):
        table = tables[table_of[row]]
        for band in range(alpha.shape[1]):
            a2 = alpha[row, band] * alpha[row, band]
            for j in range(n_ky // 2 + 1):
                for i in range(n_kx):
                    z = min(np.sqrt(a2 * (kx[i] * kx[i] + ky[j] * ky[j])), last)
                    left = np.int32(z)
                    t = z - F32(left)
                    factor[i] = (table[left] + t * (table[left + 1] - table[left])) * ux[i] * uy[j]
                mirror = (n_ky - j) % n_ky
                for i in range(n_kx):
                    out[row, band, j, i] = spectrum[row, j, i] * factor[i]
                if mirror != j:
                    for i in range(n_kx):
                        out[row, band, mirror, i] = spectrum[row, mirror, i] * factor[i]


@njit
def _apply_gaussian(spectrum, slope, kx, ky, ux, uy, out):
    """out[row, band] = spectrum[row] * 2**(-slope[row, band] k^2), the spread divided out."""
    n_ky, n_kx = out.shape[2], out.shape[3]
    factor = np.empty(n_kx, np.float32)
    for row in range(spectrum.shape[0]):
        for band in range(slope.shape[1]):
            a = slope[row, band]
            for i in range(n_kx):
                factor[i] = exp2(-a * kx[i] * kx[i]) * ux[i] if a * kx[i] * kx[i] < LAST else F32(0.0)
            for j in range(n_ky):
                along_y = exp2(-a * ky[j] * ky[j]) * uy[j]
                for i in range(n_kx):
                    out[row, band, j, i] = spectrum[row, j, i] * (factor[i] * along_y)


def kernel_transform(kernel: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Transform (band, ky, kx) of kernels centred on their own middle pixel, on a lattice of ``shape``."""
    padded = np.zeros((len(kernel), *shape))
    padded[:, : kernel.shape[1], : kernel.shape[2]] = kernel
    middle = (-(kernel.shape[1] // 2), -(kernel.shape[2] // 2))
    return scipy.fft.rfft2(np.roll(padded, middle, (1, 2))).astype(np.complex64)


@njit
def _store(stamps, first_x, flux, rows, image):
    """image[rows[i], band] = stamps[i, band, :, first_x:] * flux[rows[i], band]."""
    ny, nx = image.shape[2], image.shape[3]
    for i in range(rows.size):
        for band in range(image.shape[1]):
            scale = flux[rows[i], band]
            for y in range(ny):
                to, one = image[rows[i], band, y], stamps[i, band, y, first_x:]
                for x in range(nx):
                    to[x] = scale * one[x]


def blur(
    light: NDArray[np.float32],
    psf: Psf,
    pixel_scale: float,
    keep: tuple[slice, slice],
    flux: NDArray[np.float32],
    rows: NDArray[np.int64],
    image: NDArray[np.float32],
) -> None:
    """Convolve spread light with every row's and band's PSF, scale it, and store the stamps.

    Args:
        light: (n, y, x) float32, unit-flux sources as spread on the lattice.
        psf: n rows, or a kernel.
        pixel_scale: arcsec per pixel.
        keep: the stamp's rows and columns on the lattice.
        flux: (m, band) float32, total flux.
        rows: (n,) places in ``flux`` and ``image``.
        image: (m, band, y, x) float32; its ``rows`` are filled.
    """
    ny, nx = light.shape[1:]
    spectrum = scipy.fft.rfft2(light)
    (kx, ux), (ky, uy) = _unspread(nx, True), _unspread(ny, False)
    if psf.kernel is not None:
        out = spectrum[:, None] * (kernel_transform(psf.kernel, (ny, nx)) * (ux * uy[:, None]))
    elif psf.kind == "gaussian":
        slope = 2.0 * (np.pi * psf.fwhm_arcsec / (SIGMA_TO_FWHM * pixel_scale)) ** 2 / np.log(2.0)
        out = _bands(light, psf.n_band, np.sqrt(LAST / slope.min()))
        _apply_gaussian(spectrum, slope.astype(np.float32), kx, ky, ux, uy, out)
    else:
        betas, table_of = np.unique(psf.beta, return_inverse=True)
        tables = _moffat_tables(betas)
        alpha = 2.0 * np.pi / Z_STEP * moffat_alpha(psf.fwhm_arcsec, psf.beta[:, None]) / pixel_scale
        ends = (tables > 0).sum(1)[table_of]
        out = _bands(light, psf.n_band, (ends[:, None] / alpha).max())
        _apply_radial(spectrum, alpha.astype(np.float32), table_of, tables, kx, ky, ux, uy, out)
    columns = scipy.fft.ifft(out, axis=2, overwrite_x=True)[:, :, keep[0]]
    _store(scipy.fft.irfft(columns, nx, axis=3), keep[1].start, flux, rows, image)


def _bands(light: NDArray[np.float32], n_band: int, highest: float) -> NDArray[np.complex64]:
    """Room (n, band, ky, kx) for spectra up to ``highest`` cycles per pixel along x."""
    n, ny, nx = light.shape
    return np.empty((n, n_band, ny, min(nx // 2 + 1, int(highest * nx) + 2)), np.complex64)
