"""What a candidate is called, its place in the order of the sky, and where to look at it."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix

VIEWER = "https://www.legacysurvey.org/viewer?ra={ra:.6f}&dec={dec:.6f}&layer=ls-dr10&zoom=16&mark={ra:.6f},{dec:.6f}"
HATS_ORDER = 29


def designations(ra: np.ndarray, dec: np.ndarray) -> list[str]:
    """Return names by position: DHS JHHMMSS.ss+DDMMSS.s, truncated, not rounded (IAU recommendations).

    Args:
        ra, dec: (n,) deg. Positions 1 arcsec apart have different names.
    """
    # 1e-6: a position written with digits enough must not fall short of itself
    centiseconds = np.floor((ra % 360.0) / 15 * 360_000 + 1e-6).astype(np.int64)
    tenths = np.floor(np.abs(dec) * 36_000 + 1e-6).astype(np.int64)
    sign = np.where(np.signbit(dec), "-", "+").tolist()
    return [
        f"DHS J{c // 360_000:02d}{c // 6_000 % 60:02d}{c // 100 % 60:02d}.{c % 100:02d}"
        f"{s}{t // 36_000:02d}{t // 600 % 60:02d}{t // 10 % 60:02d}.{t % 10}"
        for c, s, t in zip(centiseconds.tolist(), sign, tenths.tolist(), strict=True)
    ]


def healpix_29(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return HEALPix cells of order 29, nested, (n,) int64: by them HATS orders and divides a catalogue."""
    grid = HEALPix(1 << HATS_ORDER, order="nested")
    return np.asarray(grid.lonlat_to_healpix(ra * u.deg, dec * u.deg), np.int64)


def viewer_urls(ra: np.ndarray, dec: np.ndarray) -> list[str]:
    """Return pages of the Legacy Surveys' sky viewer."""
    return [VIEWER.format(ra=a, dec=d) for a, d in zip(ra.tolist(), dec.tolist(), strict=True)]
