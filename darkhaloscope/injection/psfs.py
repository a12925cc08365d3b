"""The PSF of a stamp: the survey's size at the host's pixel as the model the experiment asks for."""

from __future__ import annotations

import io

import numpy as np
from scipy.ndimage import map_coordinates

from darkhaloscope.experiment import Experiment
from darkhaloscope.lensing.psf import Psf, kernel_psfsize, psfsize_to_fwhm
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC, REFERENCE
from darkhaloscope.storage import read_bytes


def load_kernels(experiment: Experiment) -> np.ndarray | None:
    """Return the experiment's coadd PSF, (band, ky, kx), or None where its model is not "kernel".

    `psf.kernel` is the URL of one .npy file per band, with `{band}` in it.

    Raises:
        ValueError: the kernels are no square arrays of one odd size, or not finite.
        FileNotFoundError: a file is missing.
    """
    if experiment.psf.model != "kernel":
        return None
    url = experiment.psf.kernel
    planes = [np.load(io.BytesIO(read_bytes(url.format(band=b))), allow_pickle=False) for b in BANDS]
    shapes = [p.shape for p in planes]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or not all(s % 2 for s in shapes[0]):
        raise ValueError(f"{url}: PSF kernels of bands {BANDS} have shapes {shapes}; expected one odd (y, x)")
    kernels = np.stack(planes).astype(np.float64)
    Psf.from_kernel(kernels)
    return kernels


def kernel_fwhm(kernel: np.ndarray, pixel_scale: float = PIXEL_SCALE_ARCSEC) -> float:
    """Return the half-maximum FWHM of a pixel kernel in arcsec: the diameter of the circle of equal area.

    The area above half of the maximum is counted on a cubic-spline interpolation, 16 points per pixel, of
    the kernel (y, x) around its middle pixel.
    """
    middle = np.array(kernel.shape) // 2
    half = int(min(middle))
    offsets = np.linspace(-half, half, 32 * half + 1)
    y, x = np.meshgrid(offsets + middle[0], offsets + middle[1], indexing="ij")
    fine = map_coordinates(np.asarray(kernel, np.float64), [y, x], order=3, mode="nearest")
    area = np.count_nonzero(fine > 0.5 * fine.max()) * (offsets[1] - offsets[0]) ** 2
    return float(2 * np.sqrt(area / np.pi) * pixel_scale)


def kernel_sizes(kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return psfsize and half-maximum FWHM, each (band,) float32 arcsec, of kernels (band, ky, kx)."""
    psfsize = [kernel_psfsize(k, PIXEL_SCALE_ARCSEC) for k in kernels]
    return np.array(psfsize, np.float32), np.array([kernel_fwhm(k) for k in kernels], np.float32)


def model_fwhm(psfsize: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Return the half-maximum FWHM, float32 arcsec, of the analytic PSF used for psfsize (..., band).

    `psf.size = "legacy"` takes psfsize for the FWHM; `psf.per_band = false` gives every band the r-band's.
    """
    config = experiment.psf
    if config.model == "kernel":
        raise ValueError("psf.model is 'kernel': the FWHM is that of the kernel, not of psfsize")
    size = np.asarray(psfsize, np.float64)
    if not config.per_band:
        size = np.repeat(size[..., REFERENCE : REFERENCE + 1], len(BANDS), axis=-1)
    legacy = config.size == "legacy"
    return psfsize_to_fwhm(size, config.model, config.moffat_beta, legacy).astype(np.float32)


def psf_of(fwhm: np.ndarray, experiment: Experiment, kernels: np.ndarray | None) -> Psf:
    """Return the renderer's PSF for rows with FWHM (n, band) arcsec; a kernel is shared by all rows."""
    if experiment.psf.model == "kernel":
        if kernels is None:
            raise ValueError("psf.model is 'kernel' and no kernels were given; load them with load_kernels")
        return Psf.from_kernel(kernels)
    if experiment.psf.model == "gaussian":
        return Psf.gaussian(fwhm)
    return Psf.moffat(fwhm, experiment.psf.moffat_beta)
