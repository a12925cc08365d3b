"""Names of the maskbits of DR9 and DR10 coadds, and a set of names as a mask of bad pixels.

legacysurvey.org/dr10/bitmasks. Not every bit marks a bad pixel: NPRIMARY is the neighbouring brick's pixel
and SUB_BLOB a re-fitted blob, both with good data; MEDIUM is a wide halo around stars brighter than G = 16.
Which bits count as bad is configuration (`experiment.Survey.bad_maskbits`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np

BITS = {
    "NPRIMARY": 0,
    "BRIGHT": 1,
    "SATUR_G": 2,
    "SATUR_R": 3,
    "SATUR_Z": 4,
    "ALLMASK_G": 5,
    "ALLMASK_R": 6,
    "ALLMASK_Z": 7,
    "WISEM1": 8,
    "WISEM2": 9,
    "BAILOUT": 10,
    "MEDIUM": 11,
    "GALAXY": 12,
    "CLUSTER": 13,
    "SATUR_I": 14,
    "ALLMASK_I": 15,
    "SUB_BLOB": 16,
}


def bits_value(names: Iterable[str]) -> int:
    """Return the integer with the bits of `names` set.

    Raises:
        ValueError: a name that is no maskbit; the nearest is named.
    """
    value = 0
    for name in names:
        if name not in BITS:
            near = difflib.get_close_matches(name, BITS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {list(BITS)}"
            raise ValueError(f"maskbit {name!r} is unknown; {hint}")
        value |= 1 << BITS[name]
    return value


def bad_pixels(maskbits: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """Return a boolean array of the shape of `maskbits`: True where any bit of `names` is set."""
    return (np.asarray(maskbits) & bits_value(names)) != 0
