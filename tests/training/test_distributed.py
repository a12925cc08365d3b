"""Two ranks do together what one process does alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from training import checkpoint
from training.runlog import read_log

FLAGS = ["--arch", "small_resnet", "--epochs", "3", "--lr", "1e-3", "--num_workers", "1", "--device", "cpu",
         "--precision", "fp32", "--ema_decay", "0.5"]  # fmt: skip

# A network without batch statistics, whose gradient of a batch is the mean of the gradients of its parts; every
# rank notes which rows it saw.
PROGRAM = """
import json, os, sys, time, signal, torch
torch.set_num_threads(1)
from torch import nn
import training.models as models, training.train as t
def plain(channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), 32
models.ARCHITECTURES["small_resnet"] = plain
seen, original, step, left = {"train": [], "val": []}, t.turned, t.take_step, int(os.environ.get("STOP", "0"))
def turned(run, batch, number):
    seen["train"] += batch.task_ids()
    return original(run, batch, number)
def predict(model, batch, precision, inner=t.predict):
    seen["val"] += batch.task_ids()
    return inner(model, batch, precision)
def take_step(*given):
    global left
    left -= 1
    if left == 0 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return step(*given)
t.turned, t.predict, t.take_step = turned, predict, take_step
status = t.main(sys.argv[2:])
open(f"{sys.argv[1]}/seen-{os.environ.get('RANK', '0')}.json", "w").write(json.dumps(seen))
sys.exit(status)
"""


def launch(folder: Path, ranks: int, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    start = [sys.executable, str(program)] if ranks == 1 else [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), str(program),
    ]  # fmt: skip
    import os

    command = [*start, str(folder), "--out_dir", str(folder / "out"), *FLAGS, *flags]
    done = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=done)


def rows(folder: Path, split: str, ranks: int) -> list[list[str]]:
    return [json.loads((folder / f"seen-{rank}.json").read_text())[split] for rank in range(ranks)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path, str]:
    from tiny_shards import make_columns, write_shards

    root = tmp_path_factory.mktemp("ranks")
    write_shards(root / "pack/split=train", [make_columns(64, i) for i in range(2)])
    write_shards(root / "pack/split=val", [make_columns(48, 1000, split="val")])
    data = ["--data", str(root / "pack")]
    # One step an epoch on all rows: then which rank has which row cannot matter.
    one = launch(root / "one", 1, *data, "--batch_size", "128", "--no-augment")
    two = launch(root / "two", 2, *data, "--batch_size", "64", "--no-augment")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    return root / "one", root / "two", str(root / "pack")


def test_two_ranks_reach_the_weights_and_figures_of_one(pair):
    one, two, _ = pair
    a, b = (checkpoint.load(p / "out/last.pt") for p in (one, two))
    for part in ("model", "training_state"):
        weights = [c[part] if part == "model" else c[part]["weights"] for c in (a, b)]
        for name, value in weights[0].items():
            torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)
    logs = [[r for r in read_log(p / "out/log.jsonl") if r["event"] == "epoch"] for p in (one, two)]
    assert [len(log) for log in logs] == [3, 3]
    for x, y in zip(*logs, strict=True):
        assert x["val_loss"] == pytest.approx(y["val_loss"], rel=1e-4)
        assert (x["n_positives"], x["n_negatives"]) == (y["n_positives"], y["n_negatives"]) == (24, 24)


def test_every_row_is_seen_once_an_epoch_by_one_of_the_ranks(pair):
    one, two, _ = pair
    for split, count in (("train", 128), ("val", 48)):
        first, second = rows(two, split, 2)
        assert len(first) + len(second) == 3 * count
        assert sorted(first + second) == sorted(rows(one, split, 1)[0])
        assert abs(len(first) - len(second)) <= 3


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_they_go_on_together(pair, tmp_path):
    _, _, data = pair
    flags = ["--data", data, "--batch_size", "16", "--dropout", "0.2"]
    whole = launch(tmp_path / "whole", 2, *flags)
    assert whole.returncode == 0, whole.stderr
    parts = launch(tmp_path / "parts", 2, *flags, STOP="6")
    assert parts.returncode != 0
    stopped = checkpoint.load(tmp_path / "parts/out/last.pt")
    assert stopped["progress"]["step"] == 6
    assert read_log(tmp_path / "parts/out/log.jsonl")[-1]["signal"] == signal.SIGTERM
    assert launch(tmp_path / "parts", 2, *flags, "--resume").returncode == 0
    a, b = (checkpoint.load(tmp_path / p / "out/last.pt") for p in ("whole", "parts"))
    assert all(torch.equal(v, b["model"][k]) for k, v in a["model"].items())
    refused = launch(tmp_path / "parts", 1, *flags, "--resume")
    assert refused.returncode == 2
    assert "ranks was 2, is 1" in refused.stderr


@pytest.mark.gpu
def test_ranks_of_a_gpu_host_average_their_gradients_over_nccl(pair, tmp_path):
    if not distributed.is_nccl_available() or torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    done = launch(tmp_path, 2, "--data", pair[2], "--batch_size", "16", "--device", "cuda")
    assert done.returncode == 0, done.stderr
