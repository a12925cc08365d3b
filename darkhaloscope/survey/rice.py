"""Decode a RICE-compressed, dithered tile: the pixels of `fitsio`, bit for bit, several times as fast.

FITS Standard 4.0 (Pence et al.), section 10.4.1 (Rice), 10.2 (quantisation and dithering), appendix I (the
dither's random numbers); White, Greenfield, Pence et al. (2009, PASP 121, 414).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from darkhaloscope.compiled import compiler

BLOCK = 32  # pixels that share a number of split bits
SPLIT_NONE = 25  # stands for 32 bits a pixel
N_RANDOM = 10_000
ZERO = -2147483646  # SUBTRACTIVE_DITHER_2: a pixel that is exactly 0
LARGEST_NULL = -2147483647  # this and what is below it stand for "no value"

_njit = compiler(Path(__file__).parent)


def _random() -> np.ndarray:
    """Return the standard's random numbers (Park & Miller 1988), float32 as the survey's library has them."""
    values, seed = np.empty(N_RANDOM, np.float32), 1
    for i in range(N_RANDOM):
        seed = 16807 * seed % 2147483647
        values[i] = seed / 2147483647
    return values


RANDOM = _random()
BEYOND = 8  # bytes that must follow a tile's code, whatever they are: it is read eight at a time
PEEK = 57  # bits that `_peek` gives at least


def _count_zeros(_context: Any, _value: Any) -> Any:
    def emit(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], cgutils.false_bit)

    return types.uint64(types.uint64), emit


_leading_zeros: Any = intrinsic(_count_zeros)


def _load_word(_context: Any, code: Any, _at: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        first = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(first, ir.IntType(64).as_pointer()), align=1)
        return builder.bswap(word) if sys.byteorder == "little" else word

    return types.uint64(code, types.int64), emit


_eight_bytes: Any = intrinsic(_load_word)


@_njit
def _peek(code: np.ndarray, bit: int) -> np.uint64:
    """Return the code from a bit on, the first bit highest; at least `PEEK` bits of it are there."""
    return _eight_bytes(code, np.int64(bit >> 3)) << np.uint64(bit & 7)


@_njit
def _long_code(code: np.ndarray, bit: Any, split: int, end: int) -> tuple[np.int64, np.int64]:
    """Return the value of a code of any length and the first bit after it; -1 where it ends too early."""
    word = _peek(code, bit)
    if split == SPLIT_NONE:  # not compressible: differences as they are
        return np.int64(word >> np.uint64(32)), np.int64(bit + 32)
    zeros: Any = 0
    while word >> np.uint64(64 - PEEK) == 0:
        zeros, bit = zeros + PEEK, bit + PEEK
        if bit >= end:
            return np.int64(0), np.int64(-1)
        word = _peek(code, bit)
    lead = np.int64(_leading_zeros(word))
    value, bit = np.int64(zeros + lead) << split, bit + lead + 1
    if split:
        if bit >= end:
            return np.int64(0), np.int64(-1)
        value, bit = value | np.int64(_peek(code, bit) >> np.uint64(64 - split)), bit + split
    return value & 0xFFFFFFFF, np.int64(bit)


@_njit
def _rice(code: np.ndarray, n: int, out: np.ndarray) -> bool:
    """Decode the first n pixels, int32, of a tile; return False where the code ends too early.

    A code is zeros, a one, and `split` bits. What has been read is shifted out of a word that is filled up when it has
    less than a pixel's code: so a pixel waits for a count of zeros and two shifts, and not for memory.
    """
    end = 8 * (code.size - BEYOND)
    value: Any = 0
    bit: Any = 32
    last, pixel = np.int64(np.int32(_peek(code, 0) >> np.uint64(32))), 0
    while pixel < n:
        if bit >= end:
            return False
        split = np.int64(_peek(code, bit) >> np.uint64(59)) - 1
        stop, bit = min(pixel + BLOCK, n), bit + 5
        if split > SPLIT_NONE:
            return False
        if split < 0:  # all equal to the last
            out[pixel:stop] = last
            pixel = stop
        word, left = np.uint64(0), np.int64(0)  # the code from `bit` on, and how much of it is there
        while pixel < stop:
            length = np.int64(_leading_zeros(word)) + 1 + split
            if length > left:
                if bit >= end:
                    return False
                word, left = _peek(code, bit), np.int64(PEEK)
                length = np.int64(_leading_zeros(word)) + 1 + split
            if length > left or split == SPLIT_NONE:
                value, bit = _long_code(code, bit, split, end)
                if bit < 0:
                    return False
                left = np.int64(0)
            else:
                zeros = length - 1 - split
                word <<= np.uint64(zeros + 1)
                value = zeros << split | np.int64(word >> np.uint64(1) >> np.uint64(63 - split))
                word <<= np.uint64(split)
                left, bit = left - length, bit + length
            last = np.int64(np.int32(last + (~(value >> 1) if value & 1 else value >> 1)))
            out[pixel] = last
            pixel += 1
    return bit <= end


@_njit
def _pixels(
    room: np.ndarray, width: int, window: tuple[int, int, int, int],
    scale: float, zero: float, dither: int, seed: int, out: np.ndarray,
) -> bool:  # fmt: skip
    """Turn a window of a tile's integers into `out`, float32; return False where a pixel has no value."""
    xa, xb, ya, yb = window
    iseed = seed % N_RANDOM
    first: Any = 0  # pixel from which on the random numbers are those from `start` on
    start = np.int64(RANDOM[iseed] * 500)
    whole = True
    for y in range(ya, yb):
        x: Any = xa
        while x < xb:
            at = y * width + x
            while at - first >= N_RANDOM - start:  # they start again, elsewhere
                first += N_RANDOM - start
                iseed = (iseed + 1) % N_RANDOM
                start = np.int64(RANDOM[iseed] * 500)
            n = min(xb - x, N_RANDOM - start - (at - first))
            random = RANDOM[start + at - first :][:n]
            whole &= _run(room[at : at + n], random, scale, zero, dither, out[y - ya, x - xa :][:n])
            x += n
    return whole


@_njit
def _run(
    values: np.ndarray, random: np.ndarray, scale: float, zero: float, dither: int, out: np.ndarray
) -> bool:
    """Turn integers into float32, given a random number for each; return False where one stands for no value."""
    whole = True
    for i in range(len(values)):
        value = values[i]
        whole &= value > LARGEST_NULL
        shift = np.float64(value) - np.float64(random[i]) + 0.5 if dither else np.float64(value)
        exact_zero = dither == 2 and value == ZERO
        out[i] = np.float32(0.0) if exact_zero else np.float32(shift * scale + zero)
    return whole


@_njit
def decode_pieces(
    code: np.ndarray, room: np.ndarray, pieces: np.ndarray, places: np.ndarray, quantum: np.ndarray,
    side: tuple[int, int], dither: int, seed: int, out: np.ndarray, good: np.ndarray,
) -> None:  # fmt: skip
    """Decode pieces of tiles into windows.

    Args:
        code: (n,) uint8, the tiles' compressed bytes and `BEYOND` more.
        room: int32 scratch of at least a tile's pixels.
        pieces: (m, 8) int64: window, tile, its pixels x0, x1, y0, y1 in the tile, half open, and x, y of the first in
            the window.
        places: (m, 2) int64, first byte in `code` and number of bytes of each piece's tile; none: passed over.
        quantum: (m, 2) float64, ZSCALE and ZZERO of each piece's tile.
        side: width of a tile and of the plane, pixels: the last tile of a row may be narrower.
        dither: 0 none, 1 subtractive, 2 subtractive with exact zeros.
        seed: number of the plane's first random number, 0-based; a tile's is its own number more.
        out: (window, y, x) float32.
        good: (window,) bool, set to False where the code is broken or a pixel has no value: the caller reads such
            windows otherwise.
    """
    columns = -(-side[1] // side[0])
    for k in range(len(pieces)):
        window, tile, xa, xb, ya, yb, x, y = pieces[k]
        start, length = places[k]
        if not length:
            continue
        width = min(side[0], side[1] - tile % columns * side[0])
        part = out[window, y : y + yb - ya, x : x + xb - xa]
        inside, scale, zero = (xa, xb, ya, yb), quantum[k, 0], quantum[k, 1]
        if not _rice(code[start : start + length + BEYOND], yb * width, room) or not _pixels(
            room, width, inside, scale, zero, dither, seed + tile, part
        ):
            good[window] = False
