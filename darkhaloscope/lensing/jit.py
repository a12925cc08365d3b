"""How the renderer's functions are compiled."""

from __future__ import annotations

from pathlib import Path

from darkhaloscope.compiled import compiler

# No "nnan" and "ninf": a ray that is not finite must stay visible. "contract" (fused multiply-add) is why
# CPU targets differ in the last bits; the target is recorded with the data.
FAST = {"contract", "arcp", "afn", "nsz", "reassoc"}

njit = compiler(Path(__file__).parent, fastmath=FAST)
inline = compiler(Path(__file__).parent, fastmath=FAST, inline="always")
