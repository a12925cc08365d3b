"""Pixels in the type that stamps are stored in.

float16 keeps 11 bits, 1/2000 of a pixel's own value, below its noise from about 1e-4 to 6e4 nmgy; below 6e-5 nmgy,
1/40 of the sky's noise at DR10's depth, its steps are 6e-8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from darkhaloscope.compiled import compiler

_njit = compiler(Path(__file__).parent)
_config: Any = numba.config


def _rounded_bits(_context: Any, _value: Any) -> Any:
    def emit(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), emit


_half_bits: Any = intrinsic(_rounded_bits)


def _has_instruction() -> bool:
    """Return whether compiled code may round to float16 by the processor's instruction; without, it does not link."""
    features = binding.get_host_cpu_features()
    return not _config.CPU_NAME and bool(features.get("f16c") or features.get("fp-armv8"))


INSTRUCTION = _has_instruction()


@_njit
def _to_halves(values: np.ndarray, out: np.ndarray) -> None:
    for i in range(values.size):
        out[i] = _half_bits(values[i])


def stored(pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Return pixels in "float16" or "float32", little endian, rounded to nearest, beyond the type's range infinite.

    float32 becomes float16 by the processor's own instruction where it has one: numpy's bits.
    """
    wanted = np.dtype(dtype).newbyteorder("<")
    if not (INSTRUCTION and wanted == "<f2" and pixels.dtype == np.float32):
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(pixels, wanted)
    out = np.empty(pixels.shape, np.uint16)
    _to_halves(pixels.ravel(), out.ravel())
    return out.view(np.float16)
