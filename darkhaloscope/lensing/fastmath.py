"""Branch-free float32 functions that the compiler turns into vector code (no library calls in the ray loop).

Polynomials are Chebyshev interpolants, computed here at import; relative errors are below 3e-7.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.polynomial import Chebyshev, Polynomial

from .jit import inline

F32 = np.float32


def _fit(function, low: float, high: float, degree: int) -> tuple[np.float32, ...]:  # type: ignore[no-untyped-def]
    """Power coefficients, lowest first, of the Chebyshev interpolant of ``function`` on [low, high]."""
    series = Chebyshev.interpolate(function, degree, domain=[low, high])
    return tuple(F32(c) for c in series.convert(kind=Polynomial).coef)


def _atan_ratio(w):  # type: ignore[no-untyped-def]
    root = np.sqrt(np.maximum(w, 1e-30))
    return np.arctan(root) / root


def _atanh_ratio(w):  # type: ignore[no-untyped-def]
    root = np.sqrt(np.maximum(w, 1e-30))
    return np.arctanh(root) / root


HIGHEST = 2.0 / 3.0  # (1 - q) / (1 + q) at the smallest axis ratio allowed, 0.2
ATAN = _fit(_atan_ratio, 0.0, HIGHEST, 7)
ATANH = _fit(_atanh_ratio, 0.0, HIGHEST, 9)
EXP2 = _fit(np.exp2, 0.0, 1.0, 5)
LOG2 = _fit(lambda m: np.log2(m) / (m - 1.0 + 1e-30), 0.70710678, 1.41421357, 7)
ONE, HALF, BIAS = F32(1.0), F32(0.5), np.int32(127)
SQRT_HALF_BITS = np.int32(0x3F3504F3)


@intrinsic
def _bits(typingctx, x):  # type: ignore[no-untyped-def]
    """The float32's bits as int32."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def _float(typingctx, x):  # type: ignore[no-untyped-def]
    """The int32's bits as float32."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@inline
def atan_ratio(w):  # type: ignore[no-untyped-def]
    """``atan(sqrt(w)) / sqrt(w)`` for w in [0, 2/3]."""
    c = ATAN
    w2 = w * w
    low = (c[0] + c[1] * w) + w2 * (c[2] + c[3] * w)
    return low + (w2 * w2) * ((c[4] + c[5] * w) + w2 * (c[6] + c[7] * w))


@inline
def atanh_ratio(w):  # type: ignore[no-untyped-def]
    """``atanh(sqrt(w)) / sqrt(w)`` for w in [0, 2/3]."""
    c = ATANH
    w2 = w * w
    w4 = w2 * w2
    low = (c[0] + c[1] * w) + w2 * (c[2] + c[3] * w)
    mid = (c[4] + c[5] * w) + w2 * (c[6] + c[7] * w)
    return low + w4 * (mid + w4 * (c[8] + c[9] * w))


@inline
def exp2(x):  # type: ignore[no-untyped-def]
    """``2**x`` for |x| <= 126; beyond, the value at the end."""
    x = min(max(x, F32(-126.0)), F32(126.0))
    whole = np.floor(x)
    f = x - whole
    c = EXP2
    f2 = f * f
    poly = (c[0] + c[1] * f) + f2 * ((c[2] + c[3] * f) + f2 * (c[4] + c[5] * f))
    return poly * _float((np.int32(whole) + BIAS) << np.int32(23))


@inline
def log2(x):  # type: ignore[no-untyped-def]
    """Base-2 logarithm of a positive, normal float32."""
    bits = _bits(x)
    exponent = (bits - SQRT_HALF_BITS) >> np.int32(23)
    m = _float(bits - (exponent << np.int32(23)))
    t = m - ONE
    c = LOG2
    m2 = m * m
    low = (c[0] + c[1] * m) + m2 * (c[2] + c[3] * m)
    poly = low + (m2 * m2) * ((c[4] + c[5] * m) + m2 * (c[6] + c[7] * m))
    return F32(exponent) + t * poly
