"""Pictures of a candidate: colour at two stretches, what is not symmetric, and each band.

A sprite is one JPEG of several candidates, a row of panels each, in the house's one colour mapping
(`darkhaloscope.report.pictures`), so that any two pictures compare.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from darkhaloscope.report.pictures import MINIMUM, STRETCH, lupton_rgb

FAINT_STRETCH, FAINT_MINIMUM = STRETCH / 4, MINIMUM / 2  # arcs at the level of the noise show, cores saturate
RESIDUAL_MINIMUM = -0.03  # zero is grey, what is missing on this side is darker
SMOOTHING_PX = 1.0  # sigma, well below that of a PSF: noise of single pixels goes, arcs stay
COLOUR_PANELS = (("colour", "colour"), ("faint", "faint light, smoothed"), ("residual", "minus 180° turn"))
QUALITY = 85  # of a JPEG without chroma subsampling: below the noise of a coadd, a fifth of a PNG's bytes
_LANCZOS = 3  # half-width of the kernel, pixels


def panels(bands: str) -> list[tuple[str, str]]:
    """Return (name, label) of a candidate's panels, in their order in a sprite."""
    return [*COLOUR_PANELS, *((f"band_{b}", b) for b in bands)]


def turned(stamps: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Turn images by 180 degrees about their galaxies, by Lanczos-3 interpolation in x and in y.

    Args:
        stamps: (n, band, y, x), finite.
        centres: (n, 2) x and y of the axis, pixels, 0 at the first pixel's centre.

    Returns:
        (n, band, y, x); NaN where the turned pixel lies outside the stamp.
    """
    x = _mirror(stamps.shape[-1], centres[:, 0])
    y = _mirror(stamps.shape[-2], centres[:, 1])
    return np.einsum("nij,nbjk,nlk->nbil", y, stamps, x, optimize=True)


def _mirror(size: int, centre: np.ndarray) -> np.ndarray:
    """Return (n, size, size): row i weighs the pixels that interpolate to the mirror image of pixel i."""
    pixel = np.arange(size)
    mirrored = 2 * centre[:, None] - pixel
    distance = mirrored[:, :, None] - pixel
    weight = np.where(np.abs(distance) < _LANCZOS, np.sinc(distance) * np.sinc(distance / _LANCZOS), 0)
    inside = (mirrored > -0.5) & (mirrored < size - 0.5)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(inside[:, :, None], weight / weight.sum(-1, keepdims=True), np.nan).astype(np.float32)


def sprite(stamps: np.ndarray, centres: np.ndarray, bands: str) -> np.ndarray:
    """Draw the panels of candidates, one candidate below the other, north up.

    Faint light and residual are smoothed by `SMOOTHING_PX`.

    Args:
        stamps: (n, band, y, x), nmgy/pixel; pixels that are not finite count as zero, and are black in colour.
        centres: (n, 2) x and y of the galaxies, pixels.
        bands: one letter a band.

    Returns:
        (n * y, panels * x, 3) uint8.
    """
    finite = np.nan_to_num(stamps, nan=0.0, posinf=0.0, neginf=0.0)
    smooth = gaussian_filter(finite, SMOOTHING_PX, axes=(2, 3))
    residual = smooth - turned(smooth, centres)
    drawn = [
        lupton_rgb(_column(stamps), bands),
        lupton_rgb(_column(smooth), bands, FAINT_STRETCH, minimum=FAINT_MINIMUM),
        lupton_rgb(_column(residual), bands, FAINT_STRETCH, minimum=RESIDUAL_MINIMUM),
        *(lupton_rgb(_column(stamps[:, i : i + 1]), band) for i, band in enumerate(bands)),
    ]
    return np.concatenate(drawn, axis=1)


def _column(stamps: np.ndarray) -> np.ndarray:
    """Return (band, n * y, x): stamps one below the other, their last row first (a picture's first is its top)."""
    n, n_band, height, width = stamps.shape
    return stamps[:, :, ::-1].transpose(1, 0, 2, 3).reshape(n_band, n * height, width)


def jpeg(rgb: np.ndarray) -> bytes:
    """Return (y, x, 3) uint8 as a JPEG with full colour resolution."""
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()
