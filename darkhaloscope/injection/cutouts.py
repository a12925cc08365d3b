"""The coadd under a stamp: where to cut, what the PSF is there, and whether the pixels will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.psfs import kernel_sizes, model_fwhm
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.errors import BrickUnreadable
from darkhaloscope.survey.maskbits import bad_pixels


class Brick(Protocol):
    """What stamps need of a brick; `survey.coadds.BrickReader` is one."""

    brickname: str

    @property
    def wcs(self) -> Any:
        """World coordinates, with `width` and `height` in pixels."""

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based x, y of positions in degrees."""

    def cut(self, x0: int, y0: int, size: int) -> Cutout:
        """Return the square whose first pixel is (x0, y0)."""

    def psfsize(self, x: float, y: float) -> tuple[np.ndarray, str]:
        """Return the survey's PSF size per band, arcsec, and where it is from."""


@dataclass(frozen=True)
class PsfAt:
    """The PSF at a host: the survey's size and the half-maximum FWHM used, (band,) float32 arcsec."""

    psfsize: np.ndarray
    fwhm: np.ndarray
    source: str


@dataclass(frozen=True)
class Ground:
    """A coadd cutout that will do, with its host.

    host_x, host_y: stamp pixels, 0-based, rounded to float32 as they are stored.
    bad: (y, x) bool, masked (`survey.bad_maskbits`) or without data in any band.
    metrics_bad: (y, x) bool, masked for measurements (`survey.metrics_bad_maskbits`).
    blank: (band, y, x) bool, no data at all: nothing can be seen there, so nothing is added.
    """

    cutout: Cutout
    host_x: np.float32
    host_y: np.float32
    bad: np.ndarray
    metrics_bad: np.ndarray
    blank: np.ndarray


def stamp_corner(position: float, size: int) -> int:
    """Return the first pixel of a stamp of `size` around a host: floor(position + 0.5) - size // 2."""
    return int(np.floor(position + 0.5)) - size // 2


def psf_of_kernels(kernels: np.ndarray) -> PsfAt:
    """Return the PSF of kernels (band, ky, kx), the same at every host."""
    return PsfAt(*kernel_sizes(kernels), "kernel")


def psf_at(brick: Brick, x: float, y: float, catalogue: np.ndarray, experiment: Experiment) -> PsfAt:
    """Return the PSF at a pixel of a brick, or of the catalogue where the brick states none.

    Args:
        brick: an open brick.
        x, y: host, 0-based pixels of the brick.
        catalogue: (band,) psfsize of the row, arcsec, for bricks that state none.
        experiment: the PSF model.

    Raises:
        ValueError: no size that a PSF can have; the message names the band.
    """
    try:
        psfsize, source = brick.psfsize(x, y)
    except BrickUnreadable:
        psfsize, source = catalogue, "catalogue"
    return _checked(np.asarray(psfsize, np.float32), source, experiment)


def psf_of_catalogue(catalogue: np.ndarray, experiment: Experiment) -> PsfAt:
    """Return the PSF of a row whose brick cannot be read; FWHM NaN where the catalogue has no size."""
    size = np.asarray(catalogue, np.float32)
    return PsfAt(size, model_fwhm(np.where(size > 0, size, np.nan), experiment), "catalogue")


def _checked(psfsize: np.ndarray, source: str, experiment: Experiment) -> PsfAt:
    widest = experiment.stamps.size * PIXEL_SCALE_ARCSEC / 2
    for band, value in zip(BANDS, psfsize.tolist(), strict=True):
        if not (np.isfinite(value) and 0 < value < widest):
            raise ValueError(
                f"psfsize_{band} is {value:g} arcsec ({source}); expected more than 0 and less than half a "
                f"stamp, {widest:g} arcsec"
            )
    return PsfAt(psfsize, model_fwhm(psfsize, experiment), source)


def ground_at(brick: Brick, x: float, y: float, experiment: Experiment) -> Ground:
    """Cut the stamp around a host and check it.

    Raises:
        ValueError: it will not do; the message says why.
        BrickUnreadable: the coadd cannot be read there.
    """
    width, height = brick.wcs.width, brick.wcs.height
    if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
        raise ValueError(
            f"host at x {x:.1f}, y {y:.1f} is outside brick {brick.brickname}, {width} x {height} pixels"
        )
    size = experiment.stamps.size
    x0, y0 = stamp_corner(x, size), stamp_corner(y, size)
    cutout = brick.cut(x0, y0, size)
    bad = bad_pixels(cutout.maskbits, experiment.survey.bad_maskbits)
    bad |= (cutout.invvar <= 0).any(axis=0)
    metrics_bad = bad_pixels(cutout.maskbits, experiment.survey.metrics_bad_maskbits)
    blank = (cutout.image == 0) & (cutout.invvar <= 0)
    _refuse_useless(cutout, bad)
    return Ground(cutout, np.float32(x - x0), np.float32(y - y0), bad, metrics_bad, blank)


def _refuse_useless(cutout: Cutout, bad: np.ndarray) -> None:
    if cutout.nonfinite:
        raise ValueError(f"{cutout.nonfinite} pixel values are NaN or infinite")
    for plane, invvar, band in zip(cutout.image, cutout.invvar, BANDS, strict=True):
        seen = invvar > 0
        if not seen.any():
            raise ValueError(f"band {band} has no data: invvar is 0 everywhere in the stamp")
        first = plane.flat[seen.argmax()]
        if np.count_nonzero(seen) > 1 and not (seen & (plane != first)).any():
            raise ValueError(f"band {band} is constant, {first:g} in every pixel with data")
    if bad.all():
        raise ValueError("every pixel is masked or without data in some band")
