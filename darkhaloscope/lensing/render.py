"""Render batches of lensed galaxies: the one entry point for production images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .deflectors import to_source_plane
from .light import sersic_surface_brightness
from .psf import Psf, psf_transform
from .scene import Scene, check_scene

FINE = 3  # lattice points per pixel
SUB = 5  # rays per lattice point and axis
PAD = 16  # pixels of margin around the stamp: light there still reaches it


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
    for row in np.flatnonzero(ok):
        light = _fine_light(scene, row, shape, pixel_scale)
        magnification[row] = light.sum()
        spectrum = np.fft.rfft2(light)
        ky = np.fft.fftfreq(light.shape[0], pixel_scale / FINE)[:, None]
        kx = np.fft.rfftfreq(light.shape[1], pixel_scale / FINE)[None, :]
        box = np.sinc(ky * pixel_scale / FINE) * np.sinc(kx * pixel_scale / FINE)
        for band in range(scene.n_band):
            blurred = np.fft.irfft2(
                spectrum * _transfer(psf, row, band, kx, ky, pixel_scale) / box, light.shape
            )
            start = PAD * FINE + FINE // 2
            stamp = blurred[start::FINE, start::FINE][: shape[0], : shape[1]] * FINE**2
            image[row, band] = scene.flux[row, band] * stamp
    return Rendered(image, magnification, ok, reason)


def _fine_light(scene: Scene, row: int, shape: tuple[int, int], pixel_scale: float) -> NDArray[np.float64]:
    """Flux of a unit source per cell of the lattice, (y, x), FINE cells to a pixel."""
    step = 1.0 / (FINE * SUB)
    x = (np.arange((shape[1] + 2 * PAD) * FINE * SUB) + 0.5) * step - 0.5 - PAD
    y = (np.arange((shape[0] + 2 * PAD) * FINE * SUB) + 0.5) * step - 0.5 - PAD
    s = scene
    beta_x, beta_y = to_source_plane(
        (x[None, :] - s.x_lens[row]) * pixel_scale,
        (y[:, None] - s.y_lens[row]) * pixel_scale,
        s.theta_e_arcsec[row],
        s.lens_q[row],
        s.lens_phi_rad[row],
        s.shear[row],
        s.shear_phi_rad[row],
    )
    dx, dy = beta_x - s.src_x_arcsec[row], beta_y - s.src_y_arcsec[row]
    light = sersic_surface_brightness(
        dx, dy, 1.0, s.src_reff_arcsec[row], s.src_q[row], s.src_phi_rad[row], s.src_n[row]
    )
    light *= (step * pixel_scale) ** 2
    return light.reshape(len(y) // SUB, SUB, len(x) // SUB, SUB).sum((1, 3))


def _transfer(psf: Psf, row: int, band: int, kx: NDArray, ky: NDArray, pixel_scale: float) -> NDArray:
    """Transform of the effective PSF at frequencies in cycles per arcsec."""
    if psf.kind != "kernel":
        beta = psf.beta[row] if psf.kind == "moffat" else 0.0
        return psf_transform(np.hypot(kx, ky), psf.fwhm_arcsec[row, band], psf.kind, beta)
    assert psf.kernel is not None
    kernel = psf.kernel[band]
    y = (np.arange(kernel.shape[0]) - kernel.shape[0] // 2) * pixel_scale
    x = (np.arange(kernel.shape[1]) - kernel.shape[1] // 2) * pixel_scale
    phase_y, phase_x = np.exp(-2j * np.pi * ky * y), np.exp(-2j * np.pi * kx.T * x)
    inside = (abs(kx) <= 0.5 / pixel_scale) & (abs(ky) <= 0.5 / pixel_scale)
    return inside * (phase_y @ kernel @ phase_x.T)
