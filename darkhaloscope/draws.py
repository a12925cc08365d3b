"""Random draws that depend on nothing but a row's id: the same on any machine, partition or retry.

The bits are those of Philox-4x64-10 (Salmon et al. 2011, SC11, "Parallel random numbers: as easy as 1, 2,
3"), a counter-based generator keyed by the 128-bit id. Only its raw bits are numpy's: numpy does not freeze
its distributions, so the transforms are here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri


def digest(*parts: object) -> str:
    """Return 32 hex digits that stand for `parts`: blake2b over their `repr`s."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def uniforms(ids: Sequence[str], stream: int, count: int) -> np.ndarray:
    """Return draws in the open interval (0, 1).

    Args:
        ids: n ids of 32 hex digits (`task_id`, or any `digest`).
        stream: which use the draws are for; different streams of one id are independent.
        count: draws per id.

    Returns:
        (n, count) float64; row i depends on ids[i], `stream` and the column number only.
    """
    bits = np.empty((len(ids), count), np.uint64)
    for row, one in enumerate(ids):
        bits[row] = np.random.Philox(key=int(one, 16), counter=stream << 192).random_raw(count)
    mantissa = bits >> np.uint64(12)  # 52 bits: with a half added they still fit a float64
    return (mantissa.astype(np.float64) + 0.5) * 2.0**-52


def normals(ids: Sequence[str], stream: int, count: int) -> np.ndarray:
    """Return standard normal draws, (n, count) float64, by the inverse cumulative distribution."""
    return ndtri(uniforms(ids, stream, count))
