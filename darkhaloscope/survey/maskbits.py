"""Names of the maskbits of DR9 and DR10 coadds, and a set of names as a mask of bad pixels.

legacysurvey.org/dr10/bitmasks. Not every bit marks a bad pixel: NPRIMARY is the neighbouring brick's pixel
and SUB_BLOB a re-fitted blob, both with good data; MEDIUM is a wide halo around stars brighter than G = 16.
Which bits count as bad is configuration (`experiment.Survey.bad_maskbits`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import numpy as np

from darkhaloscope.sections import MaskBit

BITS = {name: bit for bit, name in enumerate(get_args(MaskBit))}


def bits_value(names: Iterable[str]) -> int:
    """Return the integer with the bits of `names` set."""
    return sum(1 << BITS[name] for name in set(names))


def bad_pixels(maskbits: np.ndarray, names: Iterable[str]) -> np.ndarray:
    """Return a boolean array of the shape of `maskbits`: True where any bit of `names` is set."""
    return (np.asarray(maskbits) & bits_value(names)) != 0
