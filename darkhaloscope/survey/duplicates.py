"""Galaxies that a survey has twice: where bricks, the northern and southern surveys, or files overlap.

Which of two rows stays is decided by the pair alone, so the result is the same however rows are divided into files,
and a file needs only those of its neighbours' rows that lie near its own.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from darkhaloscope.sky import chord, unit_vectors

RADIUS_ARCSEC = 1.0


def box(ra: np.ndarray, dec: np.ndarray, radius_arcsec: float = RADIUS_ARCSEC) -> np.ndarray:
    """Return the box in space, (2, 3) lowest and highest corner, that holds all within the radius of positions.

    Args:
        ra, dec: (n,) deg, n at least 1.
        radius_arcsec: margin.
    """
    xyz, margin = unit_vectors(ra, dec), chord(radius_arcsec)
    return np.stack([xyz.min(axis=0) - margin, xyz.max(axis=0) + margin])


def touch(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two boxes have a point in common."""
    return bool((one[0] <= other[1]).all() and (other[0] <= one[1]).all())


def inside(bounds: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Tell which positions (deg) lie in a box: (n,) bool."""
    xyz = unit_vectors(ra, dec)
    return ((xyz >= bounds[0]) & (xyz <= bounds[1])).all(axis=1)


def keep_unique(
    ids: np.ndarray, ra: np.ndarray, dec: np.ndarray, radius_arcsec: float = RADIUS_ARCSEC
) -> np.ndarray:
    """Tell which rows to keep so that no galaxy is there twice.

    Dropped are repeats of an id, all but the first, and of two objects of different bricks or releases within
    `radius_arcsec` (the overlap of bricks, or of the northern and southern surveys) the one with the larger id.

    Args:
        ids: (n,) host_id.
        ra, dec: (n,) deg.

    Returns:
        (n,) bool.
    """
    keep = np.zeros(len(ids), dtype=bool)
    keep[np.unique(ids, return_index=True)[1]] = True
    index = np.flatnonzero(keep)
    if len(index) < 2:
        return keep
    tree = cKDTree(unit_vectors(ra[index], dec[index]))
    pairs = index[tree.query_pairs(chord(radius_arcsec), output_type="ndarray")]
    pairs = pairs[ids[pairs[:, 0]] >> 16 != ids[pairs[:, 1]] >> 16]
    keep[np.where(ids[pairs[:, 0]] > ids[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = False
    return keep
