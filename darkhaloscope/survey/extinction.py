"""Galactic extinction in the bands of the Legacy Surveys: A_band = R_band E(B-V).

E(B-V) is the column EBV of the catalogues: the Schlegel, Finkbeiner & Davis (1998, ApJ 500, 525) map, not
recalibrated. The coefficients are those the survey uses for MW_TRANSMISSION_*, after Schlafly & Finkbeiner
(2011, ApJ 737, 103): legacysurvey.org/dr10/catalogs, "Galactic Extinction Coefficients".
"""

from __future__ import annotations

import numpy as np

COEFFICIENTS = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211, "w1": 0.184, "w2": 0.113}


def extinction(ebv: np.ndarray, band: str) -> np.ndarray:
    """Return A_band in magnitudes, the shape of `ebv`: observed magnitude = intrinsic magnitude + A_band.

    Raises:
        ValueError: a band without a coefficient.
    """
    if band not in COEFFICIENTS:
        raise ValueError(f"extinction in band {band!r}: coefficients are known for {sorted(COEFFICIENTS)}")
    return COEFFICIENTS[band] * np.asarray(ebv, dtype=np.float64)


def transmission(ebv: np.ndarray, bands: str = "grz") -> np.ndarray:
    """Return the share of light that passes the dust, 10^(-0.4 A_band): the shape of `ebv` + (band,)."""
    return np.stack([10.0 ** (-0.4 * extinction(ebv, band)) for band in bands], axis=-1)
