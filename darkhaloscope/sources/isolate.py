"""One galaxy out of a noisy stamp: background off, the object in the middle kept, all else set to zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

THRESHOLD_SIGMA = 1.5
MIN_AREA = 10
GROW = 2  # pixels by which the segment is grown, since light goes on below the threshold
TAPER = 3  # pixels over which what is kept fades to zero
CENTRE_RADIUS = 8.0  # pixels from the middle within which the galaxy must be
MIN_SNR = 15.0
MAX_FOREIGN = 0.25  # of the galaxy's area covered by other objects
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

    Background and noise are the median and the scaled median deviation of pixels outside every object.
    Other objects are cut out; where they cover the galaxy, the pixel opposite its centre stands in.

    Args:
        stamp: (y, x), any flux unit.

    Raises:
        NotAGalaxy: the stamp is not finite, empty, or has no object in its middle; the object is too faint,
            covered by others, or cut off at the edge.
        ImportError: sep is not installed (extra `sim`).
    """
    import sep

    if stamp.ndim != 2 or not np.isfinite(stamp).all():
        raise NotAGalaxy(f"not finite in {np.count_nonzero(~np.isfinite(stamp))} pixels")
    if not stamp.any():
        raise NotAGalaxy("all pixels are zero")
    image = np.ascontiguousarray(stamp, np.float64)
    background, sigma = _sky(image, np.zeros(image.shape, bool))
    segments = np.zeros(image.shape, np.int64)
    for _ in range(3):  # objects raise the first guess of the sky; it settles in two rounds
        if not sigma > 0:
            raise NotAGalaxy("no noise to measure: more than half of the pixels have one value")
        _, segments = sep.extract(
            image - background, THRESHOLD_SIGMA, err=sigma, minarea=MIN_AREA, filter_kernel=SMOOTHING,
            deblend_cont=0.05, segmentation_map=True,
        )  # fmt: skip
        objects = binary_dilation(segments > 0, iterations=GROW)
        if objects.mean() > 0.9:
            raise NotAGalaxy("objects cover more than 90 % of the stamp: no sky is left")
        background, sigma = _sky(image, objects)
    light = image - background
    mine = segments == _label_in_the_middle(segments)
    snr = float(light[mine].sum() / (sigma * np.sqrt(mine.sum())))
    if snr < MIN_SNR:
        raise NotAGalaxy(f"S/N {snr:.1f}, less than {MIN_SNR:g}")
    kept = _kept(light, mine, (segments > 0) & ~mine)
    return Isolated(kept, sigma, background, snr)


def _sky(image: np.ndarray, objects: np.ndarray) -> tuple[float, float]:
    values = image[~objects]
    middle = float(np.median(values))
    return middle, float(1.4826 * np.median(np.abs(values - middle)))


def _label_in_the_middle(segments: np.ndarray) -> int:
    """Return the label nearest to the stamp's centre."""
    y, x = np.nonzero(segments)
    distance = np.hypot(x - (segments.shape[1] - 1) / 2, y - (segments.shape[0] - 1) / 2)
    if not distance.size or distance.min() > CENTRE_RADIUS:
        raise NotAGalaxy("no object in the middle of the stamp")
    nearest = int(distance.argmin())
    return int(segments[y[nearest], x[nearest]])


def _kept(light: np.ndarray, mine: np.ndarray, foreign: np.ndarray) -> np.ndarray:
    """Return the galaxy's light, tapered to zero outside its grown segment, others replaced by symmetry."""
    grown = binary_dilation(mine, iterations=GROW)
    foreign = binary_dilation(foreign, iterations=GROW) & ~mine
    covered = np.count_nonzero(grown & foreign) / np.count_nonzero(grown)
    if covered > MAX_FOREIGN:
        raise NotAGalaxy(f"other objects cover {covered:.0%} of it")
    y, x = np.nonzero(mine)
    weight = light[mine]
    centre = np.array([np.average(y, weights=weight), np.average(x, weights=weight)])
    taper = np.clip(1 - distance_transform_edt(~grown) / (TAPER + 1), 0, 1)
    kept = np.where(foreign, 0.0, light)
    rows, columns = np.nonzero(foreign & (taper > 0))
    across = np.rint(2 * centre[:, None] - np.stack([rows, columns])).astype(int)
    limits = np.array(light.shape)[:, None]
    inside = ((across >= 0) & (across < limits)).all(axis=0)
    rows, columns, across = rows[inside], columns[inside], across[:, inside]
    kept[rows, columns] = kept[across[0], across[1]]
    kept = np.maximum(kept * taper, 0.0)
    edge = kept.sum() - kept[1:-1, 1:-1].sum()
    if edge > MAX_EDGE * kept.sum():
        raise NotAGalaxy(f"cut off: {edge / kept.sum():.0%} of its light is in the stamp's outermost pixels")
    return kept
