"""What a GPU host's torch can do, checked by doing it: python -m bootstrap.gpu_check.

Prints one line of facts, or says what is wrong and what to do; exit status 1.
"""

from __future__ import annotations

import os
import sys

import torch

OLDEST = (2, 8)
_SIDE = 256


def faults() -> list[str]:
    """Return what is wrong with this host's torch, empty where nothing is."""
    found = []
    version = tuple(int(v) for v in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST:
        found.append(
            f"torch {torch.__version__}: expected {OLDEST[0]}.{OLDEST[1]} or newer; take a newer image"
        )
    if not torch.cuda.is_available():
        found.append(
            f"torch {torch.__version__} ({torch.version.cuda or 'built without CUDA'}) sees no GPU: this is not the "
            "host's own torch, or its driver is older than that CUDA; use an image whose torch matches its driver"
        )
        return found
    if not torch.cuda.is_bf16_supported():
        found.append(f"{torch.cuda.get_device_name()}: no bf16; train with --precision fp16 or fp32")
        return found
    ones = torch.ones(_SIDE, _SIDE, device="cuda", dtype=torch.bfloat16)
    if (ones @ ones)[0, 0].item() != _SIDE:
        found.append("a product of bf16 matrices is wrong; the driver and this torch do not fit")
    return found


def main() -> int:
    """Check; return the exit status."""
    found = faults()
    for fault in found:
        print(f"gpu_check: {fault}", file=sys.stderr)
    if found:
        return 1
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    print(
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.device_count()} x "
        f"{torch.cuda.get_device_name()} of {memory:.0f} GiB, bf16 works, {os.cpu_count()} cores"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
