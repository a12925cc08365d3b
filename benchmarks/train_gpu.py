"""Speed of training on a CUDA device, from the source tree alone: it makes its own shards first.

    python benchmarks/train_gpu.py [--hosts 65536] [--seconds 20] [--workers 12] [--eager] [--shards DIR]

Writes ``results/train_gpu.json``. For each network of `CASES`, bf16, on 64 x 64 stamps in three bands: images per
second of the trainer's own step (augmentation, forward, backward, optimiser) sustained from packed float16 shards, from
one batch that stays on the device, and with arcs drawn live onto bare stamps; the share of time spent waiting for data,
the share in which the device computes, the share of its peak, memory, and what limits. Without a CUDA device every case
takes two steps on the CPU in small, so that the benchmark is known to run, and the result says "not measured on a GPU";
an earlier device's results are left alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from record import RESULTS, write_result  # noqa: E402

from darkhaloscope.experiment import Experiment, load  # noqa: E402
from darkhaloscope.simulated.field import FieldPlan  # noqa: E402
from training.data import World, make_loader  # noqa: E402
from training.make_shards import make_shards  # noqa: E402
from training.run import Run  # noqa: E402
from training.setup import set_up  # noqa: E402
from training.speed import Clock  # noqa: E402
from training.train import delivered, take_step  # noqa: E402

NOT_MEASURED = "not measured on a GPU"
CASES = {  # name: (network, rows of a batch, target in images/s)
    "ConvNeXt-Tiny, stride-4 stem": ("convnext_tiny", 1024, 40_000),
    "ConvNeXt-Tiny, stride-2 stem": ("convnext_tiny_stride2", 512, 10_000),
    "ResNet18 of generation 1": ("resnet18", 512, 7_000),
}
TARGETS = {"shards_over_device": 0.90, "live_cost": 0.20, "data_wait_share": 0.05}
WAYS = ("on_device", "from_shards", "live")
WARM_UP, PROFILED = 10, 5  # steps
BUSY = 0.8  # share of the time above which the device itself is what limits


def experiment_of(arch: str, batch: int, live: bool, gpu: bool, workers: int, compiled: bool) -> Experiment:
    """Generation 2 with another network."""
    return load(
        HERE.parent / "experiments" / "gen2.toml",
        {
            "training.arch": arch, "training.batch_size": batch if gpu else 4, "training.live_injection": live,
            "training.compile": gpu and compiled, "training.precision": "bf16" if gpu else "fp32",
            "training.num_workers": workers if gpu else 0, "training.epochs": 1_000_000,
            "splits.train": 0.8, "splits.val": 0.2, "splits.test": 0.0,
        },
    )  # fmt: skip


def shards(folder: Path, hosts: int, cells: int) -> dict[bool, str]:
    """Shards of the same hosts, bare (True) and with injections (False)."""
    made = {}
    for bare in (True, False):
        made[bare] = str(folder / ("bare" if bare else "rendered"))
        experiment = experiment_of("convnext_tiny", 4, bare, False, 0, False)
        counts = {"train": hosts, "val": max(hosts // 64, 8)}
        make_shards(made[bare], counts, experiment, FieldPlan(42, cells=cells), rendered=not bare)
    return made


def steps(run: Run, fixed: bool) -> Iterator[tuple[Clock, int]]:
    """Take steps for ever; yield a clock, which may be replaced, and the rows of each step."""
    batches = iter(make_loader(run.stream, run.config.num_workers, run.device.type == "cuda"))
    kept = delivered(run, next(batches), 0)
    clock = Clock()
    run.network.train()
    for number in range(sys.maxsize):
        run.progress.position = number
        if fixed:
            planned = kept
        else:
            with clock.waiting():
                planned = next(batches)
        take_step(run, [delivered(run, planned, 0)])
        clock.rows += len(planned.label)
        given = yield clock, len(planned.label)
        clock = given if given is not None else clock


def device_seconds(work: Iterator[tuple[Clock, int]]) -> float:
    """Seconds in kernels of some steps, of the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(PROFILED):
            next(work)
        torch.cuda.synchronize()
    return sum(e.self_device_time_total for e in profile.key_averages()) * 1e-6


def measure(run: Run, fixed: bool, seconds: float) -> dict[str, Any]:
    """Sustained figures of one case on a CUDA device."""
    work = steps(run, fixed)
    for _ in range(WARM_UP):
        next(work)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    clock = Clock()
    rows = work.send(clock)[1]
    started, count = time.perf_counter(), 1
    while time.perf_counter() - started < seconds:
        next(work)
        count += 1
    torch.cuda.synchronize()
    figures = clock.figures(run.cost.flops, run.peak_flops)
    busy = min(device_seconds(work) / PROFILED * count / figures["train_seconds"], 1.0)
    waits = figures["data_wait_share"] > TARGETS["data_wait_share"]
    computes = "the device's kernels" if busy > BUSY else "the host: launches"
    return figures | {
        "rows_of_a_batch": rows,
        "device_busy": busy,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
        "limit": "the loader" if waits else computes,
    }


def opened(
    arch: str, batch: int, way: str, roots: dict[bool, str], gpu: bool, workers: int, out: Path,
    compiled: bool = False,
) -> Run:  # fmt: skip
    """A training run of one case, ready to step."""
    live = way == "live"
    experiment = experiment_of(arch, batch, live, gpu, workers, compiled)
    return set_up(experiment, roots[live], out, False, True, "cuda" if gpu else "cpu", False, World())


def on_cuda(
    roots: dict[bool, str], seconds: float, workers: int, out: Path, compiled: bool
) -> dict[str, Any]:
    """Figures of every case and way, to hold against the targets; written after each case."""
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "targets": TARGETS, "workers": workers}
    for name, (arch, batch, target) in CASES.items():
        figures[name] = one = settings_of(batch, target, compiled) | {
            way: measure(
                opened(arch, batch, way, roots, True, workers, out, compiled), way == "on_device", seconds
            )
            for way in WAYS
        }
        rate = {way: one[way]["images_per_s"] for way in WAYS}
        one |= {
            "shards_over_device": rate["from_shards"] / rate["on_device"],
            "live_cost": 1 - rate["live"] / rate["from_shards"],
        }
        print(name, {w: f"{r:,.0f} images/s, {one[w]['limit']}" for w, r in rate.items()}, flush=True)
        write_result("train_gpu", figures, ["torch", "timm", "triton"])
    return figures


def settings_of(batch: int, target: int, compiled: bool) -> dict[str, Any]:
    """What a case is measured with."""
    mode = "default, any number of rows" if compiled else "none"
    return {"batch_at_most": batch, "compile": mode, "precision": "bf16", "target_images_per_s": target}


def on_cpu(roots: dict[bool, str], out: Path) -> dict[str, Any]:
    """Two steps of every case and way: that it runs, no more."""
    figures: dict[str, Any] = {"gpu": NOT_MEASURED, "targets": TARGETS}
    for name, (arch, batch, target) in CASES.items():
        for way in WAYS:
            work = steps(opened(arch, batch, way, roots, False, 0, out), way == "on_device")
            rows = sum(next(work)[1] for _ in range(2))
            assert rows, name
        figures[name] = settings_of(batch, target, True) | {
            "images_per_s": NOT_MEASURED, "two_steps_on_the_cpu": f"ran: {', '.join(WAYS)}",
        }  # fmt: skip
    return figures


def main() -> None:
    """Measure and write."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hosts", type=int, default=65_536, help="of the shards, on a GPU (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default: %(default)s)")
    p.add_argument("--workers", type=int, default=12, help="that read shards (default: %(default)s)")
    p.add_argument("--eager", action="store_true", help="do not compile: a host without a C compiler")
    p.add_argument("--shards", type=Path, help="folder for shards, kept (default: a temporary one)")
    a = p.parse_args()
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as temporary:
        folder, out = a.shards or Path(temporary), Path(temporary) / "run"
        roots = shards(folder, a.hosts if gpu else 32, 8 if gpu else 4)
        if gpu:
            on_cuda(roots, a.seconds, a.workers, out, not a.eager)
            print(RESULTS / "train_gpu.json")
            return
        print(NOT_MEASURED)
        figures = on_cpu(roots, out)
    earlier = RESULTS / "train_gpu.json"
    if earlier.exists() and json.loads(earlier.read_text())["figures"]["gpu"] != NOT_MEASURED:
        print(f"{earlier} holds a GPU's figures; left as it is")
        return
    print(write_result("train_gpu", figures, ["torch", "timm"]))


if __name__ == "__main__":
    main()
