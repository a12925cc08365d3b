"""What simple classifiers look at: a few numbers of a stamp, by family.

Every function takes stamps (n, band, y, x) nmgy/pixel, float32, and returns (n, feature) float64. A shortcut is where
it is: in the core, at the border, in the sky around the host, in the spread of all pixels, or in a column.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from darkhaloscope.records import PIXEL_SCALE_ARCSEC, STAMPS, allowed_metadata

CORE_ARCSEC = (0.6, 1.0, 1.6)  # radii of the apertures
BORDER_PIXELS = 2
ANNULUS = (0.625, 1.0)  # of half the side: where "outer" normalisation measures, too


def core(stamps: np.ndarray) -> np.ndarray:
    """Aperture fluxes around the middle, how concentrated they are, and their colours."""
    *inner, outer = apertures(stamps)
    with np.errstate(divide="ignore", invalid="ignore"):
        concentration = [a / outer for a in inner]
        colour = outer[:, 1:] / outer[:, :-1]
    return _side_by_side(*inner, outer, *concentration, colour)


def apertures(stamps: np.ndarray) -> list[np.ndarray]:
    """Return fluxes (n, band) within `CORE_ARCSEC` of the middle, nmgy."""
    radius = _radius(stamps.shape[-1]) * PIXEL_SCALE_ARCSEC
    return [stamps[:, :, radius <= r].sum(axis=2) for r in CORE_ARCSEC]


def border(stamps: np.ndarray) -> np.ndarray:
    """Mean, spread and extremes of the outermost pixels."""
    inside = np.zeros(stamps.shape[2:], bool)
    inside[BORDER_PIXELS:-BORDER_PIXELS, BORDER_PIXELS:-BORDER_PIXELS] = True
    pixels = stamps[:, :, ~inside]
    return _side_by_side(pixels.mean(axis=2), pixels.std(axis=2), pixels.min(axis=2), pixels.max(axis=2))


def annulus(stamps: np.ndarray) -> np.ndarray:
    """Median and median absolute deviation of the sky around the host."""
    radius = _radius(stamps.shape[-1]) / (stamps.shape[-1] / 2)
    return _median_and_mad(stamps[:, :, (radius >= ANNULUS[0]) & (radius < ANNULUS[1])])


def mad(stamps: np.ndarray) -> np.ndarray:
    """Median and median absolute deviation of all pixels: what "full" normalisation divides by."""
    return _median_and_mad(stamps.reshape(*stamps.shape[:2], -1))


def moments(stamps: np.ndarray) -> np.ndarray:
    """Mean, spread, skewness, kurtosis and extremes of all pixels."""
    pixels = stamps.reshape(*stamps.shape[:2], -1)
    mean = pixels.mean(axis=2, dtype=np.float64)
    z = pixels - mean[..., None].astype(np.float32)
    square = z * z
    powers = [p.mean(axis=2, dtype=np.float64) for p in (square, square * z, square * square)]
    spread = np.sqrt(powers[0])
    unit = np.where(spread > 0, spread, 1.0)
    return _side_by_side(
        mean, spread, powers[1] / unit**3, powers[2] / unit**4, pixels.min(axis=2), pixels.max(axis=2)
    )


def total_flux(stamps: np.ndarray) -> np.ndarray:
    """Flux within the largest circle, per band."""
    size = stamps.shape[-1]
    return stamps[:, :, _radius(size) < size / 2].sum(axis=2).astype(np.float64)


def metadata(table: pa.Table) -> tuple[np.ndarray, list[str]]:
    """Return what columns that do not know the injection say, (n, feature), and the features' names.

    Numbers with NaN for null, types and sources as one column a value, each bit of maskbits.
    """
    found: dict[str, np.ndarray] = {}
    for name in allowed_metadata():
        found[name] = table.column(name).to_numpy().astype(np.float64)
    bits = table.column("maskbits_any").to_numpy()
    found |= {f"maskbit {b}": (bits >> b) & 1 for b in range(17)}
    for name, values in CATEGORIES.items():
        cells = table.column(name).to_numpy().astype(str)
        found |= {f"{name} = {v}": cells == v for v in values}
    return np.stack([np.asarray(v, np.float64) for v in found.values()], axis=1), list(found)


CATEGORIES = {
    "type": ("REX", "EXP", "DEV", "SER"),
    "psf_source": ("map", "brick_table", "catalogue", "kernel"),
}
"""Text columns that do not know the injection, and their values."""

FAMILIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "core": core,
    "border": border,
    "annulus": annulus,
    "MAD": mad,
    "moments": moments,
}
"""Families that are read off pixels."""

WITH_ARC = {"core": core, "total flux": total_flux}
"""Families that are read off the stamp with its arc, too: how far does the light alone go?"""

CONDITIONS = {
    "seeing": ("psfsize_g", "psfsize_r", "psfsize_z"),
    "depth": ("psfdepth_g", "psfdepth_r", "psfdepth_z"),
    "extinction": ("ebv",),
    "host magnitude": ("mag_g", "mag_r", "mag_z"),
    "sky noise": ("sky_sigma_g", "sky_sigma_r", "sky_sigma_z"),
    "bad pixels": ("bad_fraction", "padded_fraction"),
}
"""Columns that must be the same in both classes."""

assert {c for group in CONDITIONS.values() for c in group} <= set(STAMPS.names)


def _radius(size: int) -> np.ndarray:
    axis = np.arange(size) - (size - 1) / 2
    return np.hypot(axis[:, None], axis[None, :])


def _median_and_mad(pixels: np.ndarray) -> np.ndarray:
    centre = np.median(pixels, axis=2, keepdims=True)
    return _side_by_side(centre[..., 0], np.median(np.abs(pixels - centre), axis=2))


def _side_by_side(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=1).astype(np.float64)
