"""One galaxy out of a noisy stamp: background off, the object in the middle kept, all else set to zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, label

from darkhaloscope.stats.robust import mad_sigma

THRESHOLD_SIGMA = 1.5
MIN_AREA = 10
ROUNDS = 3  # objects raise the first guess of the sky; it settles in two
MIN_SKY = 0.1  # of the stamp
DEBLEND_CONTRAST = 0.1  # sep's default of 0.005 takes star-forming clumps for objects of their own
GROW = 2  # pixels by which segments are grown before sky is measured and neighbours are cut out
SMOOTH = 2.0  # pixels, standard deviation of the Gaussian under which the outskirts are traced
OUTSKIRTS_SIGMA = 2.0  # threshold of the outskirts in the smoothed image's own noise
TAPER = 3  # pixels over which what is kept fades to zero
CENTRE_RADIUS = 8.0  # pixels from the middle within which the galaxy must be
MIN_SNR = 15.0
MAX_TOUCHING = 0.3  # of the galaxy's light, in objects that touch it
MAX_EDGE = 0.02  # of the galaxy's light in the outermost pixels
SMOOTHING = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float64)


class NotAGalaxy(ValueError):
    """A stamp that gives no usable source; the message is the reason."""


@dataclass(frozen=True)
class Isolated:
    """A galaxy alone: image (y, x) of its light, not negative; noise sigma per pixel; background; S/N."""

    image: np.ndarray
    sigma: float
    background: float
    snr: float


def isolate(stamp: np.ndarray) -> Isolated:
    """Return the galaxy in the middle of a stamp.

    Background and noise are the median and the scaled median deviation of pixels outside every object. Within
    the 1.5 sigma isophote the image is kept as it is; beyond, its smoothed version, as far as that stands
    out of its own noise. Other objects are cut out; where they cover the galaxy, the pixel opposite its
    centre stands in.

    Args:
        stamp: (y, x), any flux unit.

    Raises:
        NotAGalaxy: the stamp is not finite, empty, or has no object in its middle; the object is too faint,
            blended, or cut off at the edge.
        ImportError: sep is not installed (extra `sim`).
    """
    if stamp.ndim != 2 or not np.isfinite(stamp).all():
        raise NotAGalaxy(f"not finite in {np.count_nonzero(~np.isfinite(stamp))} pixels")
    if not stamp.any():
        raise NotAGalaxy("all pixels are zero")
    image = np.ascontiguousarray(stamp, np.float64)
    segments, background, sigma = _segments(image)
    light = image - background
    mine = segments == _label_in_the_middle(segments)
    snr = float(light[mine].sum() / (sigma * np.sqrt(mine.sum())))
    if snr < MIN_SNR:
        raise NotAGalaxy(f"S/N {snr:.1f}, less than {MIN_SNR:g}")
    foreign = (segments > 0) & ~mine
    touching = np.isin(segments, segments[binary_dilation(mine, iterations=GROW) & foreign])
    share = light[touching].sum() / light[mine].sum()
    if share > MAX_TOUCHING:
        raise NotAGalaxy(f"blended: objects that touch it have {share:.0%} of its light")
    return Isolated(_kept(light, mine, foreign, _is_sky(segments)), sigma, background, snr)


def _segments(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return the segmentation (0 is sky), the sky's level and its noise."""
    import sep

    segments = np.zeros(image.shape, np.int64)
    for _ in range(ROUNDS):
        background, sigma = _sky(image[_is_sky(segments)])
        _, segments = sep.extract(
            image - background, THRESHOLD_SIGMA, err=sigma, minarea=MIN_AREA, filter_kernel=SMOOTHING,
            deblend_cont=DEBLEND_CONTRAST, segmentation_map=True,
        )  # fmt: skip
        if _is_sky(segments).mean() < MIN_SKY:
            raise NotAGalaxy("objects cover more than 90 % of the stamp: no sky is left")
    return segments, *_sky(image[_is_sky(segments)])


def _is_sky(segments: np.ndarray) -> np.ndarray:
    return ~binary_dilation(segments > 0, iterations=GROW)


def _sky(values: np.ndarray) -> tuple[float, float]:
    sigma = float(mad_sigma(values))
    if not sigma > 0:
        raise NotAGalaxy("no noise to measure: more than half of the pixels have one value")
    return float(np.median(values)), sigma


def _label_in_the_middle(segments: np.ndarray) -> int:
    """Return the label nearest to the stamp's centre."""
    y, x = np.nonzero(segments)
    distance = np.hypot(x - (segments.shape[1] - 1) / 2, y - (segments.shape[0] - 1) / 2)
    if not distance.size or distance.min() > CENTRE_RADIUS:
        raise NotAGalaxy("no object in the middle of the stamp")
    nearest = int(distance.argmin())
    return int(segments[y[nearest], x[nearest]])


def _kept(light: np.ndarray, mine: np.ndarray, foreign: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Return the galaxy's light, zero outside its outskirts."""
    inner = binary_dilation(mine, iterations=GROW)
    foreign = binary_dilation(foreign, iterations=GROW) & ~mine
    alone = _without(light, mine, foreign)
    smooth = gaussian_filter(alone, SMOOTH)
    noise = mad_sigma(smooth[sky])
    parts, _ = label(inner | (smooth > OUTSKIRTS_SIGMA * noise))
    outskirts = parts == parts[mine][0]
    taper = np.clip(1 - distance_transform_edt(~outskirts) / (TAPER + 1), 0, 1)
    kept = np.maximum(np.where(mine, alone, smooth * taper), 0.0)
    edge = kept.sum() - kept[1:-1, 1:-1].sum()
    if edge > MAX_EDGE * kept.sum():
        raise NotAGalaxy(f"cut off: {edge / kept.sum():.0%} of its light is in the stamp's outermost pixels")
    return kept


def _without(light: np.ndarray, mine: np.ndarray, foreign: np.ndarray) -> np.ndarray:
    """Return the light with foreign pixels replaced by those opposite the galaxy's centre, or 0."""
    y, x = np.nonzero(mine)
    centre = np.array([[np.average(v, weights=light[mine])] for v in (y, x)])
    rows, columns = np.nonzero(foreign)
    across = np.rint(2 * centre - np.stack([rows, columns])).astype(int)
    inside = ((across >= 0) & (across < np.array(light.shape)[:, None])).all(axis=0)
    alone = np.where(foreign, 0.0, light)
    alone[rows[inside], columns[inside]] = alone[across[0][inside], across[1][inside]]
    return alone
