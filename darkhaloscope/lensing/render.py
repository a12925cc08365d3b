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

MARGIN = 10  # pixels around the stamp whose light still reaches it
BORDER = 2  # lattice points at the edge without rays of their own: the spline reaches them
TOLERANCE = 3e-5  # quadrature error allowed to a panel, of the source's flux
WRAP = 1e-3  # of its peak: what the PSF may have where it comes round the lattice, from edge to edge
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
    psf = psf.for_rows(n, scene.n_band, shape)
    if sources is not None and len(sources) != n:
        raise ValueError(f"sources has {len(sources)} rows, the scene has {n}")
    checks = [check_scene(scene, sources), psf.why_not(n, pixel_scale, shape)]
    reason = tuple(next(filter(None, found), "") for found in zip(*checks, strict=True))
    ok = np.array([r == "" for r in reason], bool)
    image = np.zeros((n, scene.n_band, *shape), np.float32)
    magnification, rays = np.full(n, np.nan), np.zeros(n, np.int64)
    bank = unit_stamps(sources.stamps) if sources is not None else NO_BANK
    good = np.flatnonzero(ok)
    width = np.maximum(MARGIN, np.ceil(psf.reach(n, WRAP, pixel_scale))).astype(int)
    for wide in np.unique(width[good]):
        lattice = Lattice.around(shape, int(wide))
        same = good[width[good] == wide]
        for rows in (same[i : i + CHUNK] for i in range(0, len(same), CHUNK)):
            chosen = None if sources is None else sources.take(rows)
            light, far, rays[rows] = _trace(scene.take(rows), lattice, pixel_scale, chosen, bank, tolerance)
            magnification[rows] = light.sum((1, 2), dtype=float) + far
            unit = blur(light, psf.take(rows), pixel_scale, lattice.keep)
            image[rows] = unit * scene.flux[rows, :, None, None].astype(np.float32)
    return Rendered(image, magnification, ok, reason, rays)


@dataclass(frozen=True)
class Lattice:
    """The pixels of a stamp with a margin around it, of a size that transforms fast."""

    size: tuple[int, int]
    keep: tuple[slice, slice]
    border: int

    @staticmethod
    def around(shape: tuple[int, int], reach: int) -> Lattice:
        """A lattice on which light within MARGIN of the stamp does not come round within ``reach`` pixels."""
        extra = MARGIN + BORDER + 1 + reach
        size = (next_fast_len(shape[0] + extra, real=True), next_fast_len(shape[1] + extra, real=True))
        first = MARGIN + BORDER
        return Lattice(size, (slice(first, first + shape[0]), slice(first, first + shape[1])), BORDER)


def _trace(
    scene: Scene,
    lattice: Lattice,
    pixel_scale: float,
    sources: SourceImages | None,
    bank: tuple[NDArray[np.float32], NDArray[np.float32]],
    tolerance: float,
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Lattices (n, y, x) with the light of unit-flux sources, the flux beyond them, and the rays used."""
    n, origin = len(scene), (-lattice.keep[1].start, -lattice.keep[0].start)
    index = np.full(n, -1) if sources is None else np.asarray(sources.index)
    rows = np.zeros((n, N_CONST), np.float32)
    sersic = index < 0
    if sersic.any():
        rows[sersic] = pack_sersic(scene.take(sersic), origin, pixel_scale)
    if sources is not None and not sersic.all():
        rows[~sersic] = pack_image(scene.take(~sersic), origin, pixel_scale, sources.units()[~sersic])
    light = np.zeros((n, *lattice.size), np.float32)
    far, rays = np.zeros(n), np.zeros(n, np.int64)
    stop = (lattice.keep[0].stop + MARGIN, lattice.keep[1].stop + MARGIN)
    light_on_lattice(rows, *bank, index, light, lattice.border, stop, np.float32(tolerance), far, rays)
    return light, far, rays
