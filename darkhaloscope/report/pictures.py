"""Colour pictures of survey images: one Lupton RGB mapping for every report, so that pictures compare."""

import numpy as np
from astropy.visualization import make_lupton_rgb

BAND_WEIGHT = {"g": 6.0, "r": 3.4, "i": 2.9, "z": 2.2}
"""Weight of each band before the stretch; those of the Legacy Surveys' sky viewer, which make an
average galaxy neither blue nor red."""

STRETCH = 0.2
"""Default linear range, weighted nmgy/pixel: the sky noise of a typical DR10 coadd just shows."""

Q = 6.0
"""Default asinh softening: larger keeps more structure in bright cores."""

MINIMUM = -0.02
"""Default black level, weighted nmgy/pixel: below zero, so that the sky is dark grey, its noise seen."""


def lupton_rgb(
    image_bands_yx: np.ndarray,
    bands: str = "grz",
    stretch: float = STRETCH,
    q: float = Q,
    minimum: float = MINIMUM,
) -> np.ndarray:
    """Turn a multi-band survey image into an RGB picture (Lupton et al. 2004, PASP 116, 133).

    The reddest band drives red, the bluest blue and the one between green; with two bands green is their
    mean, with one band the picture is grey. Colour is kept at every brightness: a pixel too bright for the
    screen is scaled, not clipped per channel. Row 0 stays row 0: draw with ``origin="lower"`` for north up.

    Args:
        image_bands_yx: (band, y, x), nmgy/pixel, in the order of ``bands``. Not-finite pixels become black.
        bands: one letter for each band of the image, of g, r, i, z.
        stretch: weighted nmgy/pixel over which the mapping is about linear; larger is darker.
        q: asinh softening.
        minimum: weighted nmgy/pixel that is black.

    Returns:
        (y, x, 3) uint8.

    Raises:
        ValueError: the image is not (band, y, x) with one plane for each of 1 to 4 known, distinct bands.
    """
    image = np.asarray(image_bands_yx, dtype=np.float64)
    unknown = [band for band in bands if band not in BAND_WEIGHT]
    if (
        image.ndim != 3
        or image.shape[0] != len(bands)
        or not bands
        or unknown
        or len(set(bands)) != len(bands)
    ):
        raise ValueError(
            f"lupton_rgb: image has shape {image.shape} and bands are {bands!r}; expected (band, y, x) "
            f"with one plane for each of distinct bands of {''.join(BAND_WEIGHT)!r}; select or name the bands"
        )
    blue_to_red = sorted(range(len(bands)), key=lambda i: list(BAND_WEIGHT).index(bands[i]))
    weighted = [
        np.nan_to_num(image[i], nan=0.0, posinf=0.0, neginf=0.0) * BAND_WEIGHT[bands[i]] for i in blue_to_red
    ]
    green = np.mean(weighted[1:-1] if len(weighted) > 2 else weighted, axis=0)
    return make_lupton_rgb(weighted[-1], green, weighted[0], minimum=minimum, stretch=stretch, Q=q)
