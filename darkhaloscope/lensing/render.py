"""Render batches of lensed galaxies: the one entry point for production images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from .engine import light_on_lattice
from .pixelised import SourceImages, unit_stamps
from .psf import Psf
from .rays import N_CONST, pack_image, pack_sersic
from .scene import Scene, check_scene
from .transfer import blur

MARGIN = 10  # pixels around the stamp whose light is traced (fewer where the PSF is narrow)
BORDER = 2  # lattice points at the edge without rays of their own: the spline reaches them
TOLERANCE = 1e-4  # quadrature error allowed to a panel, of the source's flux
WRAP = 1e-3  # of its peak: what the PSF may still have where it comes round the lattice
REACH_STEP = 6  # pixels to which that distance is rounded up, so that few lattice sizes are in use
NO_BANK = (np.zeros((0, 0, 0), np.float32), np.zeros((0, 0), np.float32))
CHUNK = 16  # rows transformed together: they stay in the cache


@dataclass(frozen=True)
class Rendered:
    """Images of a batch.

    Attributes:
        image: (n, band, y, x) float32, nmgy per pixel; zero where not ``ok``.
        magnification: (n,) pre-PSF flux ratio over the whole plane; NaN where not ``ok``.
        ok: (n,) bool.
        reason: why a row is not ok, "" where it is.
        rays: (n,) number of rays traced.
    """

    image: NDArray[np.float32]
    magnification: NDArray[np.float64]
    ok: NDArray[np.bool_]
    reason: tuple[str, ...]
    rays: NDArray[np.int64]


def render(
    scene: Scene,
    psf: Psf,
    shape: tuple[int, int] = (64, 64),
    pixel_scale: float = 0.262,
    sources: SourceImages | None = None,
    tolerance: float = TOLERANCE,
) -> Rendered:
    """Render each row of a scene in every band: one ray tracing, a PSF per band.

    A pixel is (lensed surface brightness convolved with the effective PSF) at the pixel's centre, times the
    pixel area. Lensing conserves surface brightness: ``scene.flux`` is the unlensed flux, the image is
    brighter by the magnification.

    Example::

        scene = Scene(
            x_lens=32.0, y_lens=31.8, theta_e_arcsec=1.4, lens_q=0.8, lens_phi_rad=0.3, shear=0.03,
            shear_phi_rad=1.0, src_x_arcsec=[0.1, 0.4], src_y_arcsec=0.2, src_reff_arcsec=0.2, src_q=0.7,
            src_phi_rad=0.5, src_n=1.0, flux=[[0.5, 0.8, 1.1]],
        )
        psf = Psf.from_psfsize([[1.5, 1.3, 1.2], [1.6, 1.4, 1.3]], "moffat", beta=2.7)
        made = render(scene, psf)  # made.image: (2, 3, 64, 64)

    Args:
        scene: n rows of lens and source parameters.
        psf: effective PSF of n rows (or one for all) and every band, or a kernel.
        shape: (y, x) of the stamps, pixels.
        pixel_scale: arcsec per pixel.
        sources: images to use instead of the Sersic sources.
        tolerance: quadrature error allowed to one panel, of the source's flux.

    Returns:
        The images. A bad row is flagged, with its reason, and never stops the batch.

    Raises:
        ValueError: if the PSF or the sources do not fit the scene's rows and bands.
    """
    n = len(scene)
    psf, reason, ok = check_batch(scene, psf, shape, pixel_scale, sources)
    image = np.empty((n, scene.n_band, *shape), np.float32)
    image[~ok] = 0.0
    magnification, rays = np.full(n, np.nan), np.zeros(n, np.int64)
    index, bank = _images_used(sources, ok)
    needed = psf.reach(n, WRAP, pixel_scale) - _empty_edge(scene, sources, shape, pixel_scale)
    reach = (np.ceil(np.maximum(np.nan_to_num(needed), 1.0) / REACH_STEP) * REACH_STEP).astype(int)
    flux = scene.flux.astype(np.float32)
    for wide in np.unique(reach[ok]):
        lattice = Lattice.around(shape, int(wide))
        same = np.flatnonzero(ok & (reach == wide))
        constants = _pack(scene.take(same), lattice, pixel_scale, index[same], sources, same)
        room = np.empty((min(CHUNK, len(same)), *lattice.size), np.float32)
        for start in range(0, len(same), CHUNK):
            rows = same[start : start + CHUNK]
            light, far = room[: len(rows)], np.zeros(len(rows))
            light[:] = 0.0
            light_on_lattice(
                constants[start : start + CHUNK], *bank, index[rows], light, BORDER, lattice.stop,
                np.float32(tolerance), far, count := np.zeros(len(rows), np.int64),
            )  # fmt: skip
            rays[rows] = count
            magnification[rows] = light.sum((1, 2), dtype=float) + far
            blur(light, psf.take(rows), pixel_scale, lattice.keep, flux, rows, image)
    return Rendered(image, magnification, ok, reason, rays)


def check_batch(
    scene: Scene, psf: Psf, shape: tuple[int, int], pixel_scale: float, sources: SourceImages | None
) -> tuple[Psf, tuple[str, ...], NDArray[np.bool_]]:
    """Return the PSF of each row, why a row cannot be rendered ("" where it can), and (n,) whether it can.

    Arguments and errors as of `render`.
    """
    n = len(scene)
    psf = psf.for_rows(n, scene.n_band, shape)
    if sources is not None and len(sources) != n:
        raise ValueError(f"sources has {len(sources)} rows, the scene has {n}")
    checks = [check_scene(scene, sources), psf.why_not(n, pixel_scale, shape)]
    reason = tuple(next(filter(None, found), "") for found in zip(*checks, strict=True))
    return psf, reason, np.array([r == "" for r in reason], bool)


@dataclass(frozen=True)
class Lattice:
    """The pixels of a stamp with a margin around it, of a size that transforms fast."""

    size: tuple[int, int]
    """(y, x) points."""
    keep: tuple[slice, slice]
    """The stamp's place on it."""
    stop: tuple[int, int]
    """Points (y, x) at which the light that is traced ends; it begins at BORDER."""

    @staticmethod
    def around(shape: tuple[int, int], reach: int) -> Lattice:
        """A lattice on which light in the margin does not come round to the stamp within ``reach`` pixels."""
        margin = min(MARGIN, reach)
        first = margin + BORDER
        size = tuple(next_fast_len(n + first + 1 + reach, real=True) for n in shape)
        keep = tuple(slice(first, first + n) for n in shape)
        return Lattice((size[0], size[1]), (keep[0], keep[1]), (keep[0].stop + margin, keep[1].stop + margin))


def _images_used(
    sources: SourceImages | None, ok: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Each row's place (n,) among the images that are needed, -1 for a Sersic source; and these, by `unit_stamps`."""
    index, wanted = np.full(len(ok), -1), None if sources is None else np.asarray(sources.index)[ok]
    if sources is None or wanted is None or not (wanted >= 0).any():
        return index, NO_BANK
    used, place = np.unique(wanted, return_inverse=True)
    index[ok] = np.where(used[place] < 0, -1, place - (used[0] < 0))
    return index, unit_stamps(sources.stamps[used[used >= 0]])


def _empty_edge(
    scene: Scene, sources: SourceImages | None, shape: tuple[int, int], pixel_scale: float
) -> NDArray[np.float64]:
    """Pixels (n,) between the bulk of the light and the stamp's edge: so much further has the PSF to go."""
    off_centre = np.maximum(abs(scene.x_lens - (shape[1] - 1) / 2), abs(scene.y_lens - (shape[0] - 1) / 2))
    size = 4.0 * scene.src_reff_arcsec
    if sources is not None:
        width = max(sources.stamps.shape[1:]) * np.asarray(sources.pixel_scale_arcsec, float)
        size = np.where(np.asarray(sources.index) < 0, size, 0.5 * width)
    bulk = 1.5 * scene.theta_e_arcsec + np.hypot(scene.src_x_arcsec, scene.src_y_arcsec) + size
    return np.maximum(0.0, min(shape) / 2 - off_centre - bulk / pixel_scale)


def _pack(
    scene: Scene,
    lattice: Lattice,
    pixel_scale: float,
    index: NDArray[np.int64],
    sources: SourceImages | None,
    rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Ray constants (n, N_CONST) of the given rows' scene; ``rows`` are their places in ``sources``."""
    origin, is_sersic = (-lattice.keep[1].start, -lattice.keep[0].start), index < 0
    if is_sersic.all():
        return pack_sersic(scene, origin, pixel_scale)
    assert sources is not None
    constants = np.zeros((len(scene), N_CONST), np.float32)
    constants[is_sersic] = pack_sersic(scene.take(is_sersic), origin, pixel_scale)
    units = sources.units()[rows][~is_sersic]
    constants[~is_sersic] = pack_image(scene.take(~is_sersic), origin, pixel_scale, units)
    return constants
