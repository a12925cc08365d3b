"""What a GPU host's torch can do, checked by doing it: python -m bootstrap.gpu_check.

Prints one line of facts, or says what is wrong and what to do; exit status 1. What training can do without is said too.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch

OLDEST = (2, 8)
SHARED = Path("/dev/shm")  # shared memory
SHARED_GIB = 4  # 12 workers x 4 batches of 1,024 stamps are 1.2 GiB, and the kernel counts what is in flight
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


def hints() -> list[str]:
    """Return what this host cannot do that training can do without, empty where nothing is."""
    found = []
    if SHARED.exists() and (free := shutil.disk_usage(SHARED).free / 2**30) < SHARED_GIB:
        found.append(
            f"{SHARED} has {free:.1f} GiB free, through which processes that read shards pass batches; start the "
            f"container with --shm-size={2 * SHARED_GIB}g, or train with --num_workers 2"
        )
    doubled = torch.compile(lambda x: 2 * x + 1)
    try:
        doubled(torch.ones(_SIDE, device="cuda")).sum().item()
    except Exception as error:  # whatever a compiler that is missing or does not fit raises
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        found.append(
            f"torch.compile does not work here ({said}); it needs triton, a C compiler and Python's headers: "
            "install them, or leave --compile out (python benchmarks/train_gpu.py --eager)"
        )
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
    for hint in hints():
        print(f"gpu_check: not fatal: {hint}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
