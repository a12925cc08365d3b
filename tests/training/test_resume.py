"""A run that is killed and resumed ends with the bits of one that was not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training import checkpoint, models
from training.runlog import read_log
from training.train import main

# A scaler, dropout, accumulation, a running mean and metadata: everything that has a state.
FLAGS = ["--arch", "small_resnet", "--batch_size", "2", "--accumulate", "2", "--epochs", "2", "--lr", "3e-3",
         "--warmup_epochs", "0.5", "--device", "cpu", "--dropout", "0.3", "--ema_decay", "0.95", "--precision", "fp16",
         "--meta_cols", "psfsize_r", "--num_workers", "2", "--checkpoint_every", "25"]  # fmt: skip
STEPS = 200  # 400 rows an epoch: 200 batches, 100 steps
KILLED_AFTER = 130  # the checkpoint of step 125 is what it left

TINY = """
from torch import nn
from training import models
def tiny(channels):
    layers = [nn.Conv2d(channels, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers), 4
"""

PROGRAM = f"""
{TINY}
import os, signal, sys, torch
torch.set_num_threads(1)
models.ARCHITECTURES["small_resnet"] = tiny
import training.train as t
original, taken = t.take_step, []
def take_step(*given):
    taken.append(1)
    if len(taken) > {KILLED_AFTER}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given)
t.take_step = take_step
t.main(sys.argv[1:])
"""


def states(out: Path) -> dict:
    content = checkpoint.load(out / "last.pt")
    return {k: content[k] for k in ("model", "training_state", "progress")}


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_two_hundred_steps_are_those_of_a_run_that_was_killed_between(shards, tmp_path, monkeypatch):
    names: dict = {}
    exec(TINY, names)
    monkeypatch.setitem(models.ARCHITECTURES, "small_resnet", names["tiny"])
    root = shards(train=400, val=16)
    assert main(["--data", root, "--out_dir", str(tmp_path / "whole"), *FLAGS]) == 0
    command = ["--data", root, "--out_dir", str(tmp_path / "parts"), *FLAGS]
    killed = subprocess.run([sys.executable, "-c", PROGRAM, *command], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert checkpoint.load(tmp_path / "parts" / "last.pt")["progress"]["step"] == 125
    assert main([*command, "--resume"]) == 0
    whole, parts = states(tmp_path / "whole"), states(tmp_path / "parts")
    assert whole["progress"]["step"] == STEPS
    assert whole["training_state"]["scaler"]["scale"] > 0
    assert not same(whole["model"], whole["training_state"]["weights"]), "the running mean is what is scored"
    assert same(whole, parts)
    losses = [
        [r["train_loss"] for r in read_log(tmp_path / name / "log.jsonl") if r["event"] == "epoch"]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]


def test_checkpoints_are_kept_as_often_as_asked_and_removed_by_a_new_run(shards, tmp_path):
    flags = ["--data", shards(train=32, val=16), "--out_dir", str(tmp_path), "--arch", "small_resnet", "--device",
             "cpu", "--batch_size", "16", "--num_workers", "0"]  # fmt: skip
    assert main([*flags, "--epochs", "5", "--keep_every", "2"]) == 0
    assert sorted(p.name for p in tmp_path.glob("epoch-*.pt")) == ["epoch-0002.pt", "epoch-0004.pt"]
    assert checkpoint.load(tmp_path / "epoch-0002.pt")["progress"]["epoch"] == 2
    assert main([*flags, "--epochs", "1", "--overwrite"]) == 0
    assert not list(tmp_path.glob("epoch-*.pt"))


def test_tensorboard_has_the_numbers_of_the_log(shards, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ["--data", shards(train=32, val=16), "--out_dir", str(tmp_path), "--arch", "small_resnet", "--device",
             "cpu", "--batch_size", "16", "--num_workers", "0", "--epochs", "2", "--tensorboard"]  # fmt: skip
    assert main(flags) == 0
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = [s.value for s in board.Scalars("epoch/val_loss")]
    logged = [r["val_loss"] for r in read_log(tmp_path / "log.jsonl") if r["event"] == "epoch"]
    assert shown == pytest.approx(logged)


def test_without_tensorboard_the_flag_says_what_to_install(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    flags = [
        "--data",
        shards(train=32, val=16),
        "--out_dir",
        str(tmp_path),
        "--device",
        "cpu",
        "--num_workers",
        "0",
    ]
    assert main([*flags, "--arch", "small_resnet", "--tensorboard"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
