"""Speed of the GPU twin of the renderer, and its agreement with the CPU renderer, on a CUDA device.

    python benchmarks/bench_render_gpu.py [--batches 1024 4096 16384 65536] [--repeats 10]

Writes ``results/render_gpu.json``. A stamp is 64 x 64 pixels in three bands, a Moffat per band; the rows are the
random lenses of the accuracy promise (`tests/lensing/draws.py`). For Sersic and image sources, with and without
compiled formulas, and for every batch size: stamps per second of `draw` alone and of `prepare` and `draw` (the
next batch prepared by a thread meanwhile), peak memory, and the share of the time in which the device computes,
which says what limits. Without a CUDA device it measures the agreement on the CPU, says "not measured on a GPU",
and leaves an earlier device's results alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "lensing")]

from draws import clumpy, relative_rms, scene_of  # noqa: E402
from draws import draw as draw_rows  # noqa: E402
from record import RESULTS, summary, write_result  # noqa: E402

from darkhaloscope.lensing.pixelised import SourceImages  # noqa: E402
from darkhaloscope.lensing.psf import Psf  # noqa: E402
from darkhaloscope.lensing.render import render as cpu_render  # noqa: E402
from darkhaloscope.lensing.scene import Scene  # noqa: E402
from training.render_torch import Prepared, SourceBank, draw, prepare  # noqa: E402

NOT_MEASURED = "not measured on a GPU"
N_BAND, BETA = 3, 2.7
BANK = 500  # source images
AGREEMENT_ROWS = 500
BUSY = 0.8  # share of the time above which the device itself is what limits

Batch = tuple[Scene, Psf, SourceImages | None]


def make_batch(n: int, seed: int, stamps: np.ndarray | None) -> Batch:
    """N random lenses; psfsize 0.75 to 1.6 arcsec, as the survey's, differing by band."""
    rng = np.random.default_rng(seed)
    psf = Psf.from_psfsize(rng.uniform(0.75, 1.6, (n, 1)) * [1.1, 1.0, 0.95], "moffat", BETA)
    sources = None
    if stamps is not None:
        sources = SourceImages(stamps, rng.integers(0, len(stamps), n), 0.03, rng.random(n) < 0.5)
    return scene_of(draw_rows(n, seed), n_band=N_BAND), psf, sources


def prepared(batch: Batch) -> Prepared:
    """The batch, ready to draw."""
    return prepare(batch[0], batch[1], sources=batch[2])


def agreement(device: str, fused: bool, stamps: np.ndarray | None) -> dict[str, float]:
    """Percentiles of the relative rms per stamp and band between the twin and the CPU renderer."""
    batch = make_batch(AGREEMENT_ROWS, 1, stamps)
    bank = None if stamps is None else SourceBank.of(stamps, device)
    made = draw(prepared(batch), bank, device=device, fused=fused).image.cpu().numpy()
    rms = relative_rms(made, cpu_render(batch[0], batch[1], sources=batch[2]).image)
    return {f"p{p}": float(np.percentile(rms, p)) for p in (50, 95, 100)}


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each repeat, the device waited for; two repeats before them are not counted."""
    seconds = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


def overlapped(batch: Batch, bank: SourceBank | None, fused: bool, repeats: int) -> float:
    """Stamps per second where a thread prepares a batch while the device draws the one before."""
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(prepared, batch)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            now, ready = ready.result(), pool.submit(prepared, batch)
            draw(now, bank, device="cuda", fused=fused)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return repeats * len(batch[0]) / seconds


def device_time(work: Callable[[], object]) -> dict[str, Any]:
    """Seconds in kernels of one call and the kernels that take most of them (the profiler's own)."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    kernels = {e.key[:90]: e.self_device_time_total * 1e-6 for e in profile.key_averages()}
    launches = sum(e.count for e in profile.key_averages() if e.self_device_time_total > 0)
    top = sorted(kernels.items(), key=lambda item: -item[1])[:8]
    return {"seconds": sum(kernels.values()), "launches": launches, "largest": dict(top)}


def measure(n: int, stamps: np.ndarray | None, fused: bool, repeats: int) -> dict[str, Any]:
    """All figures of one batch size."""
    batch = make_batch(n, 2, stamps)
    bank = None if stamps is None else SourceBank.of(stamps, "cuda")
    started = time.perf_counter()
    ready = prepared(batch)
    host = time.perf_counter() - started

    def work() -> object:
        return draw(ready, bank, device="cuda", fused=fused)

    seconds = timed(work, repeats)
    torch.cuda.reset_peak_memory_stats()
    rays = draw(ready, bank, device="cuda", fused=fused).rays
    on_device = device_time(work)
    busy = on_device["seconds"] / float(np.median(seconds))
    return {
        "stamps_per_second": summary([n / s for s in seconds]),
        "stamps_per_second_with_prepare": overlapped(batch, bank, fused, repeats),
        "prepare_us_per_stamp": 1e6 * host / n,
        "rays_per_stamp": rays / n,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
        "device_busy": busy,
        "kernel_launches": on_device["launches"],
        "largest_kernels_s": on_device["largest"],
        "limit": "the device's kernels" if busy > BUSY else "the host: launches and waits",
    }


def on_cuda(batches: list[int], repeats: int, stamps: np.ndarray) -> dict[str, Any]:
    """Figures for both kinds of source, plain and fused, by batch size."""
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    for kind, bank in (("sersic", None), ("images", stamps)):
        for fused in (False, True):
            name = f"{kind}, {'fused' if fused else 'plain'}"
            figures[name] = {"agreement_rms": agreement("cuda", fused, bank)}
            for n in batches:
                figures[name][str(n)] = one = measure(n, bank, fused, repeats)
                rate = one["stamps_per_second"]["median"]
                print(
                    f"{name}, batch {n}: {rate:,.0f} stamps/s, device busy {one['device_busy']:.0%}",
                    flush=True,
                )
    return figures


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 4096, 16384, 65536])
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    stamps = clumpy(BANK, seed=3)
    if torch.cuda.is_available():
        print(write_result("render_gpu", on_cuda(args.batches, args.repeats, stamps), ["torch", "triton"]))
        return
    print(NOT_MEASURED)
    earlier = RESULTS / "render_gpu.json"
    if earlier.exists() and json.loads(earlier.read_text())["figures"]["gpu"] != NOT_MEASURED:
        print(f"{earlier} holds a GPU's figures; left as it is")
        return
    torch.set_num_threads(1)
    figures = {
        "gpu": NOT_MEASURED,
        "agreement_rms_cpu_torch": {
            "sersic": agreement("cpu", False, None),
            "images": agreement("cpu", False, stamps),
        },
    }
    print(figures, write_result("render_gpu", figures, ["torch"]))


if __name__ == "__main__":
    main()
