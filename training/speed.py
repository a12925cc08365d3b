"""How fast a run is, and how much of what the device can do that is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.predict import Precision, autocast

# Dense peak of NVIDIA's data sheets, 1e12 FLOP/s, for (half precision, fp32 by TF32 off). First match wins.
_DATA_SHEETS = (
    ("GH200", 989.0, 67.0),
    ("H200", 989.0, 67.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100", 989.0, 67.0),
    ("A100", 312.0, 19.5),
)
_SIDES = {"cuda": 4096}  # of the matrix product that stands in for a data sheet; elsewhere:
_SIDE, _REPEATS = 256, 3  # processors without half precision take seconds for a larger one
_PASSES = 3  # a training step costs about three forward passes: forward, and twice as much backward


class Clock:
    """Images a second, and the share of the time that was spent waiting for data."""

    def __init__(self) -> None:
        self.rows, self._waited, self._began = 0, 0.0, time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block as waiting."""
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def figures(self, flops: int, peak: float, ranks: int = 1) -> dict[str, float]:
        """Return the figures of the time since the beginning.

        Args:
            flops: floating-point operations of one image's forward pass.
            peak: FLOP/s of one rank's device, of `peak_flops`.
            ranks: processes that each do as much as this one.

        Returns:
            `images_per_s` of all ranks, `data_wait_share`, `train_seconds`, and `flops_utilisation`: the share
            of the peak that the network's own operations took (MFU of Chowdhery et al. 2022, appendix B).
        """
        passed = time.perf_counter() - self._began
        rate = self.rows / passed
        return {
            "images_per_s": rate * ranks,
            "data_wait_share": self._waited / passed,
            "train_seconds": passed,
            "flops_utilisation": _PASSES * flops * rate / peak,
        }


def peak_flops(device: torch.device, precision: Precision) -> tuple[float, str]:
    """Return the most FLOP/s a device can do, and where the number is from: a data sheet, or a measurement."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, half, single in _DATA_SHEETS:
            if known in name:
                return 1e12 * (single if precision == "fp32" else half), f"data sheet of {known}"
    side = _SIDES.get(device.type, _SIDE)
    return _measured(device, precision, side), f"a {side} x {side} matrix product, measured"


def _measured(device: torch.device, precision: Precision, side: int) -> float:
    a = torch.ones(side, side, device=device)
    best = float("inf")
    with torch.no_grad(), autocast(device, precision):
        for _ in range(_REPEATS):
            began = time.perf_counter()
            (a @ a)[0, 0].item()
            best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best
