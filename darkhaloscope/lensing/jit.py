"""How the renderer's functions are compiled."""

from __future__ import annotations

from pathlib import Path

from darkhaloscope.compiled import compiler

# No "nnan" and "ninf": a ray that is not finite must stay visible. "contract" (fused multiply-add) is why
# CPU targets differ in the last bits; the target is recorded with the data.
FAST = {"contract", "arcp", "afn", "nsz", "reassoc"}

# "forceinline": a function that calls another would otherwise use the copy compiled with it after loading from the
# cache, but the other's own copy while compiling; the two round differently, and a process that compiled would draw
# other last bits than one that found the cache filled.
njit = compiler(Path(__file__).parent, fastmath=FAST, forceinline=True)
inline = compiler(Path(__file__).parent, fastmath=FAST, inline="always")
