"""Random draws that depend on nothing but a row's id: the same on any machine, partition or retry.

The bits are those of Philox-4x64-10 (Salmon et al. 2011, SC11, "Parallel random numbers: as easy as 1, 2, 3"), a
counter-based generator keyed by the 128-bit id. numpy's generator of that name gives these bits for one id at a time;
the one here for many ids at once. numpy does not freeze its distributions, so the transforms are here.

An id is 32 hex digits where people read it and a pair of uint64 (high, low) where many are worked with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Keys = NDArray[np.uint64]
"""(n, 2): high and low half of n ids."""
Ids = Sequence[str] | Keys

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_LONG = 64  # draws a row
_ROWS = 4_096  # at a time: what Philox works on stays in the cache
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)


def digest(*parts: object) -> str:
    """Return 32 hex digits that stand for `parts`: blake2b over their `repr`s."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def digests(shared: str, *numbers: np.ndarray) -> Keys:
    """Return an id for each row of integers: Philox's output for the counter `numbers`, keyed by `shared`.

    A block of Philox is a one-to-one function of its counter, so that ids of rows that differ are as unlikely to
    meet as random ones; it costs a tenth of a `digest` a row.

    Args:
        shared: digest of what all rows have in common, 32 hex digits.
        numbers: one to four (n,) integer columns, each taken as 64 bits.
    """
    counter = np.zeros((4, len(numbers[0])), np.uint64)
    for word, values in zip(counter, numbers, strict=False):
        word[:] = np.asarray(values, np.int64).view(np.uint64)
    (key,) = keys_of([shared])
    words = _in_blocks(counter, np.broadcast_to(key, (counter.shape[1], 2)))
    return np.ascontiguousarray(words[:2].T)


def keys_of(ids: Ids) -> Keys:
    """Return ids of 32 hex digits as pairs of uint64; such pairs as they are."""
    if isinstance(ids, np.ndarray) and ids.dtype == np.uint64:
        return ids
    raw = np.frombuffer(bytes.fromhex("".join(ids)), ">u8")
    return raw.astype(np.uint64).reshape(-1, 2)


def hex_digits(keys: Keys) -> NDArray[np.uint8]:
    """Return the ids' hex digits as characters, (n, 32) uint8: what `keys_of` reads."""
    octets = np.ascontiguousarray(keys.astype(">u8")).view(np.uint8).reshape(len(keys), 16)
    return _HEX[np.stack([octets >> 4, octets & 15], axis=-1).reshape(len(keys), 32)]


def uniforms(ids: Ids, stream: int, count: int) -> NDArray[np.float64]:
    """Return draws in the open interval (0, 1).

    Args:
        ids: n ids: 32 hex digits each (`task_id`, or any `digest`), or `Keys`.
        stream: which use the draws are for; different streams of one id are independent.
        count: draws per id.

    Returns:
        (n, count) float64; row i depends on ids[i], `stream` and the column number only.
    """
    keys = keys_of(ids)
    return _open_interval((_bits_of_each if count > _LONG else _bits_of_all)(keys, stream, count))


def normals(ids: Ids, stream: int, count: int) -> NDArray[np.float64]:
    """Return standard normal draws, (n, count) float64, by the inverse cumulative distribution."""
    return ndtri(uniforms(ids, stream, count))


def normals_at(identity: str, stream: int, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return some draws of one id: `normals([identity], stream, count)[0, numbers]` without the draws between.

    Args:
        identity: 32 hex digits.
        stream: as for `uniforms`.
        numbers: (n,) ascending numbers of draws.
    """
    if not len(numbers):
        return np.empty(0)
    return ndtri(_open_interval(_bits_of_each(keys_of([identity]), stream, int(numbers[-1]) + 1)[0, numbers]))


def _open_interval(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    mantissa = bits >> np.uint64(12)  # 52 bits: with a half added they still fit a float64
    return (mantissa.astype(np.float64) + 0.5) * 2.0**-52


def _bits_of_each(keys: Keys, stream: int, count: int) -> NDArray[np.uint64]:
    """Return raw bits (n, count) by numpy's generator: fastest where a row has many draws."""
    bits = np.empty((len(keys), count), np.uint64)
    for row, (high, low) in enumerate(keys.tolist()):
        bits[row] = np.random.Philox(key=high << 64 | low, counter=stream << 192).random_raw(count)
    return bits


def _bits_of_all(keys: Keys, stream: int, count: int) -> NDArray[np.uint64]:
    """Return the same bits for all rows at once: fastest where there are many rows of few draws."""
    blocks = -(-count // 4)
    counter = np.zeros((4, len(keys) * blocks), np.uint64)
    counter[0] = np.tile(np.arange(1, blocks + 1, dtype=np.uint64), len(keys))  # numpy's starts at 1
    counter[3] = stream
    words = _in_blocks(counter, np.repeat(keys, blocks, axis=0))
    return words.T.reshape(len(keys), blocks * 4)[:, :count]


def _in_blocks(counter: NDArray[np.uint64], keys: Keys) -> NDArray[np.uint64]:
    """Return Philox's output for counters (4, n) under keys (n, 2), as (4, n)."""
    out = np.empty_like(counter)
    for start in range(0, counter.shape[1], _ROWS):
        part = slice(start, start + _ROWS)
        out[:, part] = _philox(counter[:, part], keys[part])
    return out


def _philox(counter: NDArray[np.uint64], keys: Keys) -> NDArray[np.uint64]:
    a, b, c, d = counter
    high_key, low_key = keys[:, 0].copy(), keys[:, 1].copy()
    for number in range(_ROUNDS):
        if number:
            low_key += np.uint64(_WEYL[0])
            high_key += np.uint64(_WEYL[1])
        high_a, low_a = _multiply(a, _MULTIPLIERS[0])
        high_c, low_c = _multiply(c, _MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ low_key, low_c, high_a ^ d ^ high_key, low_a
    return np.stack([a, b, c, d])


def _multiply(x: NDArray[np.uint64], constant: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return high and low 64 bits of x times a 64-bit constant."""
    high, low = np.uint64(constant >> 32), np.uint64(constant & 0xFFFFFFFF)
    x_high, x_low = x >> _HALF, x & _LOW
    middle = x_high * low + (x_low * low >> _HALF)
    other = x_low * high + (middle & _LOW)
    return x_high * high + (middle >> _HALF) + (other >> _HALF), x * np.uint64(constant)
