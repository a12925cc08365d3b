"""Effective point-spread functions (the pixel is in them) and what ``psfsize`` means.

A pixel's value is (surface brightness convolved with the effective PSF) at the pixel's centre, times the
pixel area. Profiles are normalised analytically over the whole plane, never on a truncated stamp: a 63-pixel
kernel of a Moffat with beta 2.5 and FWHM 2.5" sums to 0.987, and that is right.

Names: ``psfsize`` is the survey's number, 2.3548 sqrt(Neff / 4 pi) with Neff = 1 / sum(psf^2), the FWHM of
the Gaussian of equal noise area; ``fwhm`` is the full width at half maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gamma, kv

Array = NDArray[np.float64]
Model = Literal["gaussian", "moffat"]
Kind = Literal["gaussian", "moffat", "kernel"]

MIN_FWHM_PIXELS = 1.8  # below this the lattice of one point per pixel is too coarse
SIGMA_TO_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # 2.3548


def moffat_alpha(fwhm: ArrayLike, beta: ArrayLike) -> Array:
    """Core radius of a Moffat, ``fwhm / (2 sqrt(2^(1/beta) - 1))`` (Moffat 1969, A&A 3, 455)."""
    return np.asarray(np.asarray(fwhm, float) / (2.0 * np.sqrt(2.0 ** (1.0 / np.asarray(beta, float)) - 1.0)))


def psf_profile(r: ArrayLike, fwhm: ArrayLike, model: Model, beta: ArrayLike = 2.7) -> Array:
    """Value of a PSF of unit total flux at radius ``r``, per unit area.

    Args:
        r: radius, any unit.
        fwhm: full width at half maximum, the unit of ``r``.
        model: "gaussian" or "moffat".
        beta: Moffat slope, > 1; not used by the Gaussian.

    Returns:
        The profile, normalised over the whole plane.
    """
    if model == "gaussian":
        sigma = np.asarray(fwhm, float) / SIGMA_TO_FWHM
        return np.asarray(np.exp(-0.5 * (np.asarray(r) / sigma) ** 2) / (2.0 * np.pi * sigma**2))
    alpha, beta = moffat_alpha(fwhm, beta), np.asarray(beta, float)
    return np.asarray((beta - 1.0) / (np.pi * alpha**2) * (1.0 + (np.asarray(r) / alpha) ** 2) ** -beta)


def psf_transform(k: ArrayLike, fwhm: ArrayLike, model: Model, beta: ArrayLike = 2.7) -> Array:
    """Fourier transform of :func:`psf_profile` at frequency ``k``; 1 at k = 0.

    Args:
        k: frequency, cycles per unit of ``fwhm``.
        fwhm: full width at half maximum.
        model: "gaussian" or "moffat".
        beta: Moffat slope, > 1.

    Returns:
        Gaussian: ``exp(-2 pi^2 sigma^2 k^2)``. Moffat: ``2 (z/2)^(beta-1) K_(beta-1)(z) / Gamma(beta-1)``,
        ``z = 2 pi k alpha`` (the Hankel transform of a Moffat: NIST DLMF 10.22.46 with nu = 0).
    """
    k = np.asarray(k, float)
    if model == "gaussian":
        return np.asarray(np.exp(-2.0 * (np.pi * k * np.asarray(fwhm, float) / SIGMA_TO_FWHM) ** 2))
    return moffat_transform(2.0 * np.pi * k * moffat_alpha(fwhm, beta), beta)


def moffat_transform(z: ArrayLike, beta: ArrayLike) -> Array:
    """The Moffat's transform as a function of ``z = 2 pi k alpha`` alone; see :func:`psf_transform`."""
    order = np.asarray(beta, float) - 1.0
    half = np.maximum(0.5 * np.asarray(z, float), 1e-6)  # at 0 the value is 1, the expression inf * 0
    return np.asarray(2.0 * half**order * kv(order, 2.0 * half) / gamma(order))


def psfsize_to_fwhm(
    psfsize: ArrayLike, model: Model, beta: ArrayLike = 2.7, legacy_psfsize_is_fwhm: bool = False
) -> Array:
    """FWHM of the PSF model whose noise area is the survey's ``psfsize``.

    Args:
        psfsize: the survey's number, any unit.
        model: "gaussian" (its FWHM equals psfsize) or "moffat".
        beta: Moffat slope.
        legacy_psfsize_is_fwhm: feed psfsize as FWHM, as generations 1-4 of the earlier pipeline did (28 %
            wrong in rms for a Moffat); for reproducing them only.

    Returns:
        FWHM in the unit of psfsize; Moffat: 0.720, 0.745, 0.811 of it at beta 2.5, 2.7, 3.5.
    """
    psfsize = np.asarray(psfsize, float)
    if model == "gaussian" or legacy_psfsize_is_fwhm:
        return psfsize.copy()
    beta = np.asarray(beta, float)
    noise_width = SIGMA_TO_FWHM * np.sqrt((2.0 * beta - 1.0) / (4.0 * (beta - 1.0) ** 2))  # psfsize / alpha
    return psfsize / (noise_width * moffat_alpha(1.0, beta))


def kernel_neff(kernel: Array) -> float:
    """Noise-equivalent number of pixels ``1 / sum(p^2)`` of a kernel ``p`` scaled to unit sum, pixels."""
    kernel = np.asarray(kernel, float)
    return float(kernel.sum() ** 2 / np.square(kernel).sum())


def kernel_psfsize(kernel: Array, pixel_scale: float) -> float:
    """The survey's psfsize of a pixel kernel, arcsec: ``2.3548 sqrt(Neff / 4 pi) * pixel_scale``."""
    return float(SIGMA_TO_FWHM * np.sqrt(kernel_neff(kernel) / (4.0 * np.pi)) * pixel_scale)


def pixel_kernel(
    fwhm_arcsec: float, model: Model, beta: float = 2.7, size: int = 63, pixel_scale: float = 0.262
) -> Array:
    """The effective PSF sampled at pixel centres, times the pixel area.

    Args:
        fwhm_arcsec: full width at half maximum, arcsec.
        model: "gaussian" or "moffat".
        beta: Moffat slope.
        size: odd number of pixels on a side; the kernel is centred on its own middle pixel.
        pixel_scale: arcsec per pixel.

    Returns:
        Kernel, (size, size). Its sum is below 1 by the light outside ``size`` pixels: it is not rescaled.

    Raises:
        ValueError: if ``size`` is even, so that no pixel is the centre.
    """
    if size % 2 == 0:
        raise ValueError(
            f"pixel_kernel: size is {size}, expected an odd number so that a pixel is the centre"
        )
    offset = (np.arange(size) - size // 2) * pixel_scale
    r = np.hypot(offset[:, None], offset[None, :])
    return psf_profile(r, fwhm_arcsec, model, beta) * pixel_scale**2


@dataclass(frozen=True)
class Psf:
    """The effective PSF of every row and band of a batch.

    Build one with :meth:`gaussian`, :meth:`moffat`, :meth:`from_psfsize` or :meth:`from_kernel`.

    Attributes:
        kind: "gaussian", "moffat" or "kernel".
        fwhm_arcsec: (n, band) full width at half maximum, arcsec; empty for kernels.
        beta: (n,) Moffat slope; empty for the others.
        kernel: (band, ky, kx) odd-sized, centred on its middle pixel, sampled at the image's pixel scale and
            shared by all rows; used as given (not rescaled to unit sum). None unless kind is "kernel".
    """

    kind: Kind
    fwhm_arcsec: Array
    beta: Array
    kernel: Array | None = None

    @property
    def n_band(self) -> int:
        """Number of bands."""
        return int(self.fwhm_arcsec.shape[1] if self.kernel is None else self.kernel.shape[0])

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Psf:
        """The PSF of the given rows only."""
        if self.kind == "kernel":
            return self
        return Psf(self.kind, self.fwhm_arcsec[rows], self.beta[rows] if len(self.beta) else self.beta)

    def for_rows(self, n: int, n_band: int, shape: tuple[int, int]) -> Psf:
        """This PSF with n rows, after checking that it fits n rows, the bands and the stamp.

        Raises:
            ValueError: if the numbers of rows or bands differ, or a kernel is wider than the stamp.
        """
        if self.n_band != n_band:
            raise ValueError(f"the PSF has {self.n_band} bands, the scene's flux has {n_band}")
        if self.kernel is not None:
            if self.kernel.shape[1] > shape[0] or self.kernel.shape[2] > shape[1]:
                raise ValueError(
                    f"PSF kernel of {self.kernel.shape[1:]} pixels is wider than the stamp {shape}"
                )
            return self
        if len(self.fwhm_arcsec) == 1 and n != 1:
            return Psf(self.kind, np.repeat(self.fwhm_arcsec, n, 0), np.repeat(self.beta, n))
        if len(self.fwhm_arcsec) != n:
            raise ValueError(
                f"the PSF has {len(self.fwhm_arcsec)} rows, the scene has {n}; expected as many, or one"
            )
        return self

    def why_not(self, n: int, pixel_scale: float, shape: tuple[int, int]) -> tuple[str, ...]:
        """Why each of n rows cannot be rendered with its PSF; "" where it can."""
        reasons = [""] * n
        if self.kernel is not None:
            return tuple(reasons)
        low, high = MIN_FWHM_PIXELS * pixel_scale, min(shape) * pixel_scale
        bad = ~((self.fwhm_arcsec >= low) & (self.fwhm_arcsec <= high)).all(1)
        for row in np.flatnonzero(bad):
            found = self.fwhm_arcsec[row].tolist()
            reasons[row] = f"row {row}: fwhm_arcsec is {found}, expected in [{low:.3g}, {high:.3g}]"
        for row in np.flatnonzero(~((self.beta > 1.0) & (self.beta <= 20.0))):
            reasons[row] = f"row {row}: beta is {self.beta[row]}, expected in (1, 20]"
        return tuple(reasons)

    def reach(self, n: int, fraction: float, pixel_scale: float) -> Array:
        """Pixels (n,) at which each row's widest PSF has fallen to ``fraction`` of its peak; kernels: their half."""
        if self.kernel is not None:
            return np.full(n, max(self.kernel.shape[1:]) // 2, float)
        widest = np.nan_to_num(self.fwhm_arcsec).max(1, initial=0.0) / pixel_scale
        if self.kind == "gaussian":
            return widest / SIGMA_TO_FWHM * np.sqrt(-2.0 * np.log(fraction))
        return moffat_alpha(widest, self.beta) * np.sqrt(fraction ** (-1.0 / self.beta) - 1.0)

    @staticmethod
    def gaussian(fwhm_arcsec: ArrayLike) -> Psf:
        """Gaussians of the given FWHM, (n, band) arcsec."""
        return Psf("gaussian", np.atleast_2d(np.asarray(fwhm_arcsec, float)), np.zeros(0))

    @staticmethod
    def moffat(fwhm_arcsec: ArrayLike, beta: ArrayLike = 2.7) -> Psf:
        """Moffats of the given FWHM, (n, band) arcsec, and slope, scalar or (n,)."""
        fwhm = np.atleast_2d(np.asarray(fwhm_arcsec, float))
        return Psf("moffat", fwhm, np.broadcast_to(np.asarray(beta, float), len(fwhm)).copy())

    @staticmethod
    def from_psfsize(
        psfsize_arcsec: ArrayLike, model: Model, beta: float = 2.7, legacy_psfsize_is_fwhm: bool = False
    ) -> Psf:
        """The model whose noise area is the survey's psfsize, (n, band); see :func:`psfsize_to_fwhm`."""
        fwhm = psfsize_to_fwhm(psfsize_arcsec, model, beta, legacy_psfsize_is_fwhm)
        return Psf.gaussian(fwhm) if model == "gaussian" else Psf.moffat(fwhm, beta)

    @staticmethod
    def from_kernel(kernel: ArrayLike) -> Psf:
        """Pixel kernels, (band, ky, kx), e.g. the survey's coadd PSF, shared by every row.

        Raises:
            ValueError: if the kernel is not (band, odd, odd), not finite, or has no light.
        """
        kernel = np.asarray(kernel, float)
        if kernel.ndim != 3 or kernel.shape[1] % 2 == 0 or kernel.shape[2] % 2 == 0:
            raise ValueError(f"PSF kernel has shape {kernel.shape}, expected (band, odd, odd)")
        if not np.isfinite(kernel).all() or (kernel.sum((1, 2)) <= 0).any():
            sums = kernel.sum((1, 2)).tolist()
            raise ValueError(f"PSF kernel must be finite with a positive sum in each band, found sums {sums}")
        return Psf("kernel", np.zeros((0, kernel.shape[0])), np.zeros(0), kernel)
