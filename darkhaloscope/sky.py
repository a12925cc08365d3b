"""Positions on the sky: who is near whom."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return unit vectors (n, 3) of positions in degrees; RA wraps and the poles need no care."""
    a, d = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def chord(arcsec: float | np.ndarray) -> float | np.ndarray:
    """Return the length of the straight line between unit vectors that are `arcsec` apart."""
    return 2 * np.sin(np.radians(np.asarray(arcsec) / 3600) / 2)


def separation(length: np.ndarray) -> np.ndarray:
    """Return arcsec of a chord between unit vectors; infinite where the chord is."""
    angle = 2 * np.degrees(np.arcsin(np.clip(length / 2, 0, 1))) * 3600
    return np.where(np.isfinite(length), angle, np.inf)


def galactic_latitude(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the galactic latitude b, deg, of positions in degrees, (n,).

    Angle from the plane of the north galactic pole, J2000 (Liu et al. 2011, A&A 526, A16: 192.85948, 27.12825).
    """
    pole = unit_vectors(np.array(192.85948), np.array(27.12825))
    return np.degrees(np.arcsin(np.clip(unit_vectors(ra, dec) @ pole, -1, 1)))


def nearest(
    ra: np.ndarray, dec: np.ndarray, other_ra: np.ndarray, other_dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each position the nearest of the others, and how far it is.

    Args:
        ra, dec: (n,) deg.
        other_ra, other_dec: (m,) deg.

    Returns:
        index (n,) int64 (m where there are no others) and separation (n,) arcsec (infinite there).
    """
    length, index = cKDTree(unit_vectors(other_ra, other_dec)).query(unit_vectors(ra, dec))
    return np.asarray(index, np.int64), separation(np.asarray(length))


def groups(ra: np.ndarray, dec: np.ndarray, arcsec: float) -> np.ndarray:
    """Return a number for each position, equal for those linked by steps of at most `arcsec`, (n,) int64."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = cKDTree(unit_vectors(ra, dec)).query_pairs(float(chord(arcsec)), output_type="ndarray")
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(ra), len(ra)))
    return connected_components(links, directed=False)[1].astype(np.int64)
