"""Normal deviates that depend on a row's key and the pixel's number alone, on any torch device.

A generator with a state would give a row other noise in another batch. Here each deviate is a hash of its place:
the finaliser of SplitMix64 (Steele, Lea & Flood 2014, OOPSLA, "Fast splittable pseudorandom number generators"),
then Box & Muller (1958, Ann. Math. Stat. 29, 610). Bits are equal on every device; logarithms differ in the last.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The same 64 bits as a signed number: torch has no unsigned arithmetic."""
    return value - (1 << 64) if value >= 1 << 63 else value


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros: torch's own shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def normals(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal deviates, (n, *shape) float32, on the device of the keys.

    Args:
        keys: (n,) int64.
        shape: of one row's deviates.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    number = torch.arange(1, pairs + 1, device=keys.device)
    bits = _mixed(_mixed(keys)[:, None] + number * _STEP)
    # 24 bits each: what a float32 holds; the half keeps the logarithm finite
    u, v = (((part & 0xFFFFFF).float() + 0.5) * 2.0**-24 for part in (bits, _shifted(bits, 32)))
    radius, angle = torch.sqrt(-2.0 * torch.log(u)), 2.0 * math.pi * v
    both = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=2)
    return both.reshape(len(keys), -1)[:, :count].reshape(len(keys), *shape)
