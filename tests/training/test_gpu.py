"""What only a CUDA device can show.

python -m pytest -m gpu tests/training/test_gpu.py tests/training/test_render_torch.py

Needs pytest beside what the trainer needs, and no more.
"""

import numpy as np
import pytest
import torch
from field_cases import experiment, field

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.experiment import load
from darkhaloscope.records import SAMPLES, STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch
from training import checkpoint
from training.batch import Batch, make_batch
from training.data import World
from training.delivery import Delivery
from training.live import HOST_COLUMNS, LiveInjection
from training.make_shards import stamps_of
from training.noise_torch import normals
from training.painter import Painter
from training.preprocess import Preprocessing
from training.runlog import read_log
from training.setup import set_up
from training.train import main, take_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TINY = ["--experiment", "experiments/gen2.toml", "--arch", "small_resnet", "--batch_size", "8", "--device", "cuda",
        "--num_workers", "2", "--epochs", "2"]  # fmt: skip


def pinned(batch):
    return Batch(*(t.pin_memory() if t.numel() else t for t in batch))


def test_noise_is_that_of_the_cpu():
    keys = torch.arange(-50, 50) * 7919
    torch.testing.assert_close(
        normals(keys.to(CUDA), (3, 8, 8)).cpu(), normals(keys, (3, 8, 8)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("file", ["gen2", "gen5"])
def test_arcs_are_those_of_the_cpu(file):
    one = experiment(file, training={"min_arc_snr": 100.0, "min_theta_over_psf": 0.5})
    live = LiveInjection(one, 64)
    bare = make_batch(
        stamps_of(field(), experiment(), "train", bare=True), Preprocessing(), "test", HOST_COLUMNS
    )
    lit = np.full(len(bare.label), SAMPLES.index("synthetic_positive"))
    planned = live.plan(live.classed(bare, lit, 0), 0)
    want, made = (
        Delivery(d, Painter(live, d), augment=True, compiled=False)(p, "orientation")
        for d, p in ((CPU, planned), (CUDA, planned.pin_memory()))
    )
    assert made.label.tolist() == want.label.tolist()
    difference = (made.stamps.cpu().float() - want.stamps).flatten(1)
    assert float((difference.std(1) / (want.stamps.flatten(1).std(1))).max()) < 1e-3


@pytest.mark.parametrize("method", ["full", "outer", "sky_asinh"])
def test_a_step_does_not_wait_for_the_device(shards, tmp_path, method):
    settings = {"training.arch": "small_resnet", "training.precision": "bf16", "training.batch_size": 8,
                "training.norm_method": method, "training.num_workers": 0}  # fmt: skip
    run = set_up(
        load("experiments/gen2.toml", settings), shards(), tmp_path, False, False, "cuda", False, World()
    )
    batch = run.deliver(pinned(next(iter(run.stream))), "orientation")
    take_step(run, [batch])  # the first makes the optimiser's state
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        take_step(run, [batch, batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "flags", [["--precision", "bf16", "--compile"], ["--precision", "fp16", "--accumulate", "2"]]
)
def test_it_trains_and_goes_on(shards, tmp_path, flags):
    given = [*TINY, "--data", shards(), "--out_dir", str(tmp_path / "out"), *flags]
    assert main([*given, "--ema_decay", "0.9"]) == 0
    figures = [r for r in read_log(tmp_path / "out" / "log.jsonl") if r["event"] == "epoch"]
    assert len(figures) == 2
    assert all(np.isfinite(r["train_loss"]) for r in figures)
    assert main([*given, "--ema_decay", "0.9", "--resume"]) == 0
    assert checkpoint.load(tmp_path / "out" / "last.pt")["progress"]["finished"]


def test_it_trains_on_arcs_drawn_live(tmp_path):
    rows = {
        "train": stamps_of(field(), experiment(), "train", bare=True),
        "val": stamps_of(field(), experiment(injection={"controls": "paired"}), "train", bare=False),
    }
    how = {"schema": STAMPS.arrow(stamp_metadata()), "codec": "none", "rows_per_group": 4}
    for split, some in rows.items():
        root = f"{tmp_path}/shards/split={split}"
        columns = {n: some.column(n) for n in STAMPS.names}
        commit_chunk(root, 0, [write_part(root, 0, 0, [to_batch(STAMPS, columns, stamp_metadata())], **how)])
    flags = [
        "--live_injection",
        "--min_arc_snr",
        "5",
        "--data",
        f"{tmp_path}/shards",
        "--out_dir",
        str(tmp_path / "out"),
    ]
    assert main([*TINY, *flags]) == 0
    last = read_log(tmp_path / "out" / "log.jsonl")[-1]
    assert last["left_out_rows"] + last["train_rows"] > 8
