"""Render batches of lensed galaxies: the one entry point for production images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from .engine import ORDER_ARRAY, light_on_lattice
from .panels import rule_tables
from .psf import Psf
from .rays import pack_rows
from .scene import Scene, check_scene
from .transfer import blur

MARGIN = 10  # pixels around the stamp whose light still reaches it
BORDER = 2  # lattice points at the edge without rays of their own: the spline reaches them
TOLERANCE = 2e-5  # quadrature error allowed to a panel, of the source's flux
CHUNK = 64  # rows transformed together: they stay in the cache


@dataclass(frozen=True)
class Rendered:
    """Images of a batch.

    Attributes:
        image: (n, band, y, x) float32, nmgy per pixel; zero where not ``ok``.
        magnification: (n,) pre-PSF flux ratio over the whole plane; NaN where not ``ok``.
        ok: (n,) bool.
        reason: why a row is not ok, "" where it is.
    """

    image: NDArray[np.float32]
    magnification: NDArray[np.float64]
    ok: NDArray[np.bool_]
    reason: tuple[str, ...]


def render(
    scene: Scene,
    psf: Psf,
    shape: tuple[int, int] = (64, 64),
    pixel_scale: float = 0.262,
    sources: None = None,
    tolerance: float = TOLERANCE,
) -> Rendered:
    """Render each row of a scene in every band.

    Args:
        scene: n rows of lens and source parameters.
        psf: effective PSF per row and band.
        shape: (y, x) of the stamps, pixels.
        pixel_scale: arcsec per pixel.
        sources: pixelised sources (not yet).

    Returns:
        The images; a bad row is flagged with its reason and never stops the batch.
    """
    reason = check_scene(scene)
    ok = np.array([r == "" for r in reason], bool)
    image = np.zeros((len(scene), scene.n_band, *shape), np.float32)
    magnification = np.full(len(scene), np.nan)
    size = tuple(scipy.fft.next_fast_len(n + 2 * (MARGIN + BORDER) + 1, real=True) for n in shape)
    start = tuple((s - n) // 2 for s, n in zip(size, shape, strict=True))
    keep = (slice(start[0], start[0] + shape[0]), slice(start[1], start[1] + shape[1]))
    nodes, weights = rule_tables()
    good = np.flatnonzero(ok)
    for rows in (good[i : i + CHUNK] for i in range(0, len(good), CHUNK)):
        part = scene.take(rows)
        axis = np.stack([1.0 / np.sqrt(part.src_q), np.sqrt(part.src_q)], 1) * part.src_reff_arcsec[:, None]
        constants = pack_rows(part, (-start[1], -start[0]), pixel_scale, axis)
        light = np.zeros((len(rows), *size), np.float32)
        n_rays = np.zeros(len(rows), np.int64)
        light_on_lattice(constants, light, BORDER, np.float32(tolerance), nodes, weights, ORDER_ARRAY, n_rays)
        magnification[rows] = light.sum((1, 2))
        image[rows] = blur(light, psf.take(rows), pixel_scale, keep) * part.flux[:, :, None, None]
        render.rays = n_rays
    return Rendered(image, magnification, ok, reason)
