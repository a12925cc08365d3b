"""A run that is stopped goes on as if it had not been, and never on other settings or data."""

import os
import signal
from pathlib import Path

import pytest
import torch
from train_run import run

import training.train
from training import checkpoint
from training.runlog import RunLog, StopRequest, read_log

MEASURED = ("images_per_s", "data_wait_share", "train_seconds", "flops_utilisation")


def stop_after(monkeypatch, steps: int, number: int = signal.SIGTERM) -> None:
    """Have the process receive a signal in the middle of a step."""
    original, taken = training.train.take_step, []

    def step(*given):
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), number)
        return original(*given)

    monkeypatch.setattr(training.train, "take_step", step)


def final_state(out: Path) -> dict:
    content = checkpoint.load(out / "last.pt")
    return {"model": content["model"], "optimizer": content["training_state"]["optimizer"]["state"]}


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize(("workers", "stop"), [("0", 3), ("0", 6), ("2", 9), ("2", 14)])
def test_a_stopped_and_resumed_run_ends_with_the_bits_of_one_that_was_not(
    shards, tmp_path, monkeypatch, workers, stop
):
    root = shards()  # 6 steps an epoch
    flags = ["--num_workers", workers, "--dropout", "0.3"]
    assert run(root, tmp_path / "whole", *flags) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, stop)
        assert run(root, tmp_path / "parts", *flags) == 128 + signal.SIGTERM
    assert checkpoint.load(tmp_path / "parts" / "last.pt")["progress"]["step"] == stop
    assert run(root, tmp_path / "parts", *flags, "--resume") == 0
    assert equal(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    timeless = [
        [{k: v for k, v in r.items() if k not in MEASURED}
         for r in read_log(tmp_path / name / "log.jsonl") if r["event"] == "epoch"]
        for name in ("whole", "parts")
    ]  # fmt: skip
    assert timeless[0] == timeless[1]
    assert len(timeless[0]) == 3


def test_ctrl_c_stops_with_a_checkpoint_and_resuming_a_finished_run_does_nothing(
    shards, tmp_path, monkeypatch
):
    root, out = shards(), tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 2, signal.SIGINT)
        assert run(root, out) == 128 + signal.SIGINT
    assert run(root, out, "--resume") == 0
    before = (out / "last.pt").read_bytes()
    assert run(root, out, "--resume") == 0
    assert (out / "last.pt").read_bytes() == before


def test_a_killed_run_resumes_from_its_last_epoch_without_repeating_the_log(shards, tmp_path, monkeypatch):
    root, out = shards(), tmp_path / "out"
    original, taken = training.train.take_step, []

    def die(*given):
        taken.append(1)
        if len(taken) == 9:
            raise KeyError("as if the power failed")
        return original(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(training.train, "take_step", die)
        run(root, out)
    RunLog(out, keep_to_step=6).write("epoch", 12, epoch=1)  # written, its checkpoint was not
    assert run(root, out, "--resume") == 0
    assert [r["epoch"] for r in read_log(out / "log.jsonl") if r["event"] == "epoch"] == [0, 1, 2]


def test_an_earlier_run_is_neither_overwritten_nor_resumed_with_other_settings(shards, tmp_path, capsys):
    root, out = shards(), tmp_path / "out"
    assert run(root, out, "--epochs", "1") == 0
    assert run(root, out, "--epochs", "1") == 2
    assert "--resume goes on with it, --overwrite replaces it" in capsys.readouterr().err
    assert run(root, out, "--epochs", "1", "--resume", "--lr", "1e-4", "--seed", "7") == 2
    assert "seed was 42, is 7; lr was 0.003, is 0.0001" in capsys.readouterr().err
    assert run(root, out, "--epochs", "1", "--overwrite", "--lr", "1e-4") == 0


def test_other_data_is_not_resumed_on(shards, tmp_path, capsys):
    root, out = shards(), tmp_path / "out"
    assert run(root, out, "--epochs", "1") == 0
    Path(root).rename(tmp_path / "gone")
    assert run(shards(train=64), out, "--epochs", "1", "--resume") == 2
    assert "train data: content_hash was" in capsys.readouterr().err


def test_a_second_signal_is_not_caught():
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]
