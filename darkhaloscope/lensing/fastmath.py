"""Branch-free float32 functions that the compiler turns into vector code (no library calls in the ray loop).

Polynomials are Chebyshev interpolants, computed here at import; relative errors are below 3e-7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numpy.polynomial import Chebyshev, Polynomial

from .jit import inline

F32 = np.float32
intrinsic: Any = extending.intrinsic


def _fit(function, low: float, high: float, degree: int) -> tuple[np.float32, ...]:
    """Power coefficients, lowest first, of the Chebyshev interpolant of ``function`` on [low, high]."""
    series = Chebyshev.interpolate(function, degree, domain=[low, high])
    return tuple(F32(c) for c in series.convert(kind=Polynomial).coef)


def _atan_ratio(w):
    root = np.sqrt(np.maximum(w, 1e-30))
    return np.arctan(root) / root


def _atanh_ratio(w):
    root = np.sqrt(np.maximum(w, 1e-30))
    return np.arctanh(root) / root


HIGHEST = 2.0 / 3.0  # (1 - q) / (1 + q) at the smallest axis ratio allowed, 0.2
ATAN = _fit(_atan_ratio, 0.0, HIGHEST, 7)
ATANH = _fit(_atanh_ratio, 0.0, HIGHEST, 9)
EXP2 = _fit(np.exp2, 0.0, 1.0, 5)
LOG2 = _fit(lambda m: np.log2(m) / (m - 1.0 + 1e-30), 0.70710678, 1.41421357, 7)
ONE = F32(1.0)
SQRT_HALF_BITS = 0x3F3504F3

# Bit tricks are intrinsics on 32-bit integers: numba's own integers are 64 bits wide and would halve the
# number of rays in a vector register.


@intrinsic
def _split(typingctx, x):
    """Exponent (as float32) and mantissa in [sqrt(1/2), sqrt(2)) of a positive, normal float32."""

    def codegen(context, builder, signature, args):
        i32, f32 = ir.IntType(32), ir.FloatType()
        bits = builder.bitcast(args[0], i32)
        exponent = builder.ashr(builder.sub(bits, i32(SQRT_HALF_BITS)), i32(23))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, i32(23))), f32)
        pair = (builder.sitofp(exponent, f32), mantissa)
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(types.float32, 2)(types.float32), codegen


@intrinsic
def _power_of_two(typingctx, whole):
    """``2**whole`` of an integral float32 in [-126, 126]."""

    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        exponent = builder.add(builder.fptosi(args[0], i32), i32(127))
        return builder.bitcast(builder.shl(exponent, i32(23)), ir.FloatType())

    return types.float32(types.float32), codegen


@intrinsic
def select(typingctx, condition, a, b):
    """``a if condition else b`` of two float32, without a branch (a branch stops vectorisation)."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return types.float32(types.boolean, types.float32, types.float32), codegen


@inline
def lower(a, b):
    """The smaller of two float32."""
    return select(a < b, a, b)


@inline
def higher(a, b):
    """The larger of two float32."""
    return select(a > b, a, b)


@inline
def atan_ratio(w):
    """``atan(sqrt(w)) / sqrt(w)`` for w in [0, 2/3]."""
    c = ATAN
    w2 = w * w
    low = (c[0] + c[1] * w) + w2 * (c[2] + c[3] * w)
    return low + (w2 * w2) * ((c[4] + c[5] * w) + w2 * (c[6] + c[7] * w))


@inline
def atanh_ratio(w):
    """``atanh(sqrt(w)) / sqrt(w)`` for w in [0, 2/3]."""
    c = ATANH
    w2 = w * w
    w4 = w2 * w2
    low = (c[0] + c[1] * w) + w2 * (c[2] + c[3] * w)
    mid = (c[4] + c[5] * w) + w2 * (c[6] + c[7] * w)
    return low + w4 * (mid + w4 * (c[8] + c[9] * w))


@inline
def exp2(x):
    """``2**x`` for x in [-80, 100]; beyond, the value at the end.

    The floor is far above float32's smallest normal number: arithmetic on numbers below that one is a hundred
    times slower.
    """
    x = lower(higher(x, F32(-80.0)), F32(100.0))
    whole = np.floor(x)
    f = x - whole
    c = EXP2
    f2 = f * f
    poly = (c[0] + c[1] * f) + f2 * ((c[2] + c[3] * f) + f2 * (c[4] + c[5] * f))
    return poly * _power_of_two(whole)


@inline
def log2(x):
    """Base-2 logarithm of a positive, normal float32."""
    exponent, m = _split(x)
    t = m - ONE
    c = LOG2
    m2 = m * m
    low = (c[0] + c[1] * m) + m2 * (c[2] + c[3] * m)
    poly = low + (m2 * m2) * ((c[4] + c[5] * m) + m2 * (c[6] + c[7] * m))
    return exponent + t * poly
