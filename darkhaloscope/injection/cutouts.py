"""The coadd under a stamp: where to cut, what the PSF is there, and whether the pixels will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.psfs import kernel_sizes, model_fwhm
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.maskbits import bad_pixels


class Brick(Protocol):
    """What stamps need of a brick; `survey.coadds.BrickReader` is one."""

    brickname: str

    @property
    def wcs(self) -> Any:
        """World coordinates, with `width` and `height` in pixels."""

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based x, y of positions in degrees."""

    def cuts(self, corners: np.ndarray, size: int) -> Sequence[Cutout | Exception]:
        """Return the squares whose first pixels are at x, y of corners (n, 2), or why one cannot be cut."""

    def psfsizes(self, x: np.ndarray, y: np.ndarray) -> Sequence[tuple[np.ndarray, str] | Exception]:
        """Return the survey's PSF size per band, arcsec, and where it is from, or why there is none."""


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


def stamp_corner(position: np.ndarray, size: int) -> np.ndarray:
    """Return the first pixel of stamps of `size` around hosts: floor(position + 0.5) - size // 2."""
    return np.floor(position + 0.5).astype(np.int64) - size // 2


def psf_of_kernels(kernels: np.ndarray) -> PsfAt:
    """Return the PSF of kernels (band, ky, kx), the same at every host."""
    return PsfAt(*kernel_sizes(kernels), "kernel")


def psfs_at(
    brick: Brick, x: np.ndarray, y: np.ndarray, catalogue: np.ndarray, experiment: Experiment
) -> list[PsfAt | Exception]:
    """Return the PSF at pixels of a brick, or of the catalogue where the brick states none.

    Args:
        brick: an open brick.
        x, y: hosts, (n,) 0-based pixels of the brick.
        catalogue: (n, band) psfsize of the rows, arcsec, for bricks that state none.
        experiment: the PSF model.

    Returns:
        One for each; a ValueError where it is no size that a PSF can have: the message names the band.
    """
    stated = brick.psfsizes(x, y)
    found = [
        (c, "catalogue") if isinstance(s, Exception) else s for s, c in zip(stated, catalogue, strict=True)
    ]
    psfsize = np.array([size for size, _ in found], np.float32).reshape(-1, len(BANDS))
    widest = experiment.stamps.size * PIXEL_SCALE_ARCSEC / 2
    fits = (psfsize > 0) & (psfsize < widest)
    fwhm = model_fwhm(np.where(fits, psfsize, np.nan), experiment)
    return [
        PsfAt(size, width, source) if good.all() else _no_psf(size, good, source, widest)
        for size, width, good, (_, source) in zip(psfsize, fwhm, fits, found, strict=True)
    ]


def _no_psf(psfsize: np.ndarray, good: np.ndarray, source: str, widest: float) -> ValueError:
    i = int(np.argmin(good))
    return ValueError(
        f"psfsize_{BANDS[i]} is {psfsize[i]:g} arcsec ({source}); expected more than 0 and less than half a "
        f"stamp, {widest:g} arcsec"
    )


def psf_of_catalogue(catalogue: np.ndarray, experiment: Experiment) -> PsfAt:
    """Return the PSF of a row whose brick cannot be read; FWHM NaN where the catalogue has no size."""
    size = np.asarray(catalogue, np.float32)
    return PsfAt(size, model_fwhm(np.where(size > 0, size, np.nan), experiment), "catalogue")


def grounds_at(
    brick: Brick, x: np.ndarray, y: np.ndarray, experiment: Experiment
) -> list[Ground | Exception]:
    """Cut the stamps around hosts, (n,) 0-based pixels of the brick, and check them.

    Returns:
        One for each; where it will not do a ValueError that says why, and where the coadd cannot be read
        `BrickUnreadable`.
    """
    width, height = brick.wcs.width, brick.wcs.height
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    hosts = np.stack([x, y], axis=1)[inside]
    corners = np.stack([stamp_corner(side, experiment.stamps.size) for side in hosts.T], axis=1)
    cuts = iter(zip(brick.cuts(corners, experiment.stamps.size), hosts - corners, strict=True))
    return [
        _ground(*next(cuts), experiment)
        if within
        else ValueError(
            f"host at x {at_x:.1f}, y {at_y:.1f} is outside brick {brick.brickname}, {width} x {height} pixels"
        )
        for at_x, at_y, within in zip(x, y, inside.tolist(), strict=True)
    ]


def _ground(cutout: Cutout | Exception, host: np.ndarray, experiment: Experiment) -> Ground | Exception:
    if isinstance(cutout, Exception):
        return cutout
    bad = bad_pixels(cutout.maskbits, experiment.survey.bad_maskbits)
    bad |= (cutout.invvar <= 0).any(axis=0)
    metrics_bad = bad_pixels(cutout.maskbits, experiment.survey.metrics_bad_maskbits)
    blank = (cutout.image == 0) & (cutout.invvar <= 0)
    useless = _why_useless(cutout, bad)
    return useless or Ground(cutout, np.float32(host[0]), np.float32(host[1]), bad, metrics_bad, blank)


def _why_useless(cutout: Cutout, bad: np.ndarray) -> ValueError | None:
    if cutout.nonfinite:
        return ValueError(f"{cutout.nonfinite} pixel values are NaN or infinite")
    for plane, invvar, band in zip(cutout.image, cutout.invvar, BANDS, strict=True):
        seen = invvar > 0
        if not seen.any():
            return ValueError(f"band {band} has no data: invvar is 0 everywhere in the stamp")
        first = plane.flat[seen.argmax()]
        if np.count_nonzero(seen) > 1 and not (seen & (plane != first)).any():
            return ValueError(f"band {band} is constant, {first:g} in every pixel with data")
    return ValueError("every pixel is masked or without data in some band") if bad.all() else None
