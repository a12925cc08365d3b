"""Effective PSFs in torch: from light spread on a lattice to stamps, in Fourier space.

The twin of `darkhaloscope.lensing.transfer`: what does not depend on the light (slopes, Moffat tables, kernel
transforms) is prepared by the library's numpy functions on the host; the device interpolates and multiplies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from darkhaloscope.lensing.psf import SIGMA_TO_FWHM, Psf, moffat_alpha, moffat_transform
from darkhaloscope.lensing.transfer import Z_MAX, Z_STEP, kernel_transform


@dataclass(frozen=True)
class PsfPlan:
    """The PSF of n rows on a lattice of one size.

    Attributes:
        kind: "gaussian", "moffat" or "kernel".
        width: (n, band) float32; Gaussian: ``2 (pi sigma)^2`` in pixels^2, Moffat: ``2 pi alpha / Z_STEP`` in
            pixels; (n, 0) for a kernel.
        table: (m, z) float32 transforms of the Moffats of the batch's slopes on a grid of step Z_STEP.
        table_of: (n,) int64, each row's table.
        transform: (band, ky, kx) complex64, of the kernels.
    """

    kind: str
    width: Tensor
    table: Tensor
    table_of: Tensor
    transform: Tensor

    def take(self, rows: slice) -> PsfPlan:
        """The same for some rows."""
        return replace(self, width=self.width[rows], table_of=self.table_of[rows])

    def each(self, change: Callable[[Tensor], Tensor]) -> PsfPlan:
        """The same with every tensor changed: put on a device, or into page-locked memory."""
        changed = {k: change(getattr(self, k)) for k in ("width", "table", "table_of", "transform")}
        return replace(self, **changed)


@lru_cache(maxsize=256)
def _moffat_table(beta: float) -> np.ndarray:
    z = np.arange(0.0, Z_MAX + Z_STEP, Z_STEP)
    return np.append(moffat_transform(z, beta), [0.0, 0.0]).astype(np.float32)


def plan_psf(psf: Psf, n: int, pixel_scale: float, size: tuple[int, int]) -> PsfPlan:
    """Prepare a PSF of n rows, or a kernel, for a lattice of ``size`` (y, x) pixels of ``pixel_scale`` arcsec."""
    width, table, table_of = np.zeros((n, 0)), np.zeros((0, 0), np.float32), np.zeros(n, np.int64)
    transform = np.zeros((0, 0, 0), np.complex64)
    if psf.kernel is not None:
        transform = kernel_transform(psf.kernel, size)
    elif psf.kind == "gaussian":
        width = 2.0 * (np.pi * psf.fwhm_arcsec / (SIGMA_TO_FWHM * pixel_scale)) ** 2
    else:
        betas, table_of = np.unique(psf.beta, return_inverse=True)
        table = np.stack([_moffat_table(float(beta)) for beta in betas])
        width = 2.0 * np.pi / Z_STEP * moffat_alpha(psf.fwhm_arcsec, psf.beta[:, None]) / pixel_scale
    arrays = (width.astype(np.float32), table, table_of.astype(np.int64), transform)
    return PsfPlan(psf.kind, *(torch.from_numpy(a) for a in arrays))


def moffat_factor(k: Tensor, width: Tensor, table: Tensor, table_of: Tensor) -> Tensor:
    """The Moffat's transform (`psf.moffat_transform`), interpolated.

    Args:
        k: (ky, kx) frequency, cycles per pixel.
        width: (n, band) ``2 pi alpha / Z_STEP``, pixels.
        table: (m, z) transforms.
        table_of: (n,) each row's table.

    Returns:
        (n, band, ky, kx) float32.
    """
    z = (width[:, :, None, None] * k).clamp(max=table.shape[1] - 2.0)
    left = torch.floor(z)
    at = left.long() + (table_of * table.shape[1])[:, None, None, None]
    flat = table.reshape(-1)
    return torch.lerp(flat[at], flat[at + 1], z - left)


def blur(light: Tensor, psf: PsfPlan, keep: tuple[slice, slice]) -> Tensor:
    """Convolve spread light with every row's and band's PSF, as `transfer.blur`.

    Args:
        light: (n, y, x) float32, spread on the lattice with the cubic B-spline, which is divided out here.
        psf: n rows for a lattice of this size.
        keep: the stamp's rows and columns on the lattice.

    Returns:
        (n, band, y, x) float32: the stamps of unit-flux sources.
    """
    ny, nx = light.shape[1:]
    kx = torch.fft.rfftfreq(nx, device=light.device)
    ky = torch.fft.fftfreq(ny, device=light.device)[:, None]
    spectrum = torch.fft.rfft2(light) * (torch.sinc(kx) * torch.sinc(ky)) ** -4
    if psf.kind == "kernel":
        factor = psf.transform
    elif psf.kind == "gaussian":
        slope = psf.width[:, :, None, None]
        factor = torch.exp(-slope * kx * kx) * torch.exp(-slope * ky * ky)
    else:
        factor = moffat_factor(torch.sqrt(kx * kx + ky * ky), psf.width, psf.table, psf.table_of)
    columns = torch.fft.ifft(spectrum[:, None] * factor, dim=2)[:, :, keep[0]]
    return torch.fft.irfft(columns, nx, dim=3)[..., keep[1]]
