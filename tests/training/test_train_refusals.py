"""A run that cannot go on ends in one line that says why, and loses nothing that was saved."""

import errno

import pytest
import torch
from tiny_shards import make_columns, write_shards
from train_run import run

import training.train
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import load
from training import checkpoint
from training.checkpoint import CheckpointError
from training.options import DEFAULT_EXPERIMENT
from training.runlog import LossMeter
from training.train import train


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_rows(shards, tmp_path, monkeypatch, capsys):
    original = training.train.delivered
    seen = []

    def poisoned(run_, batch, number):
        seen.append(batch.task_ids())
        batch = original(run_, batch, number)
        return batch._replace(stamps=batch.stamps * torch.nan) if len(seen) == 2 else batch

    monkeypatch.setattr(training.train, "delivered", poisoned)
    assert run(shards(), tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert all(t in message for t in seen[1])
    assert not any(t in message for t in seen[0])
    assert not (tmp_path / "out" / "last.pt").exists()


def test_a_gradient_that_is_not_finite_is_found_late_and_still_named():
    meter = LossMeter()
    ids = [torch.full((2, 16), i, dtype=torch.uint8) for i in range(5)]
    for i, one in enumerate(ids):
        meter.add(torch.tensor(0.5), torch.tensor(float("inf") if i == 3 else 1.0), torch.tensor(0), one)
    with pytest.raises(FloatingPointError, match="03" * 16):
        meter.fetch()


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (torch.OutOfMemoryError("2 GiB wanted"), "lower --batch_size (and raise --accumulate"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "lower --batch_size"),
        (RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "), "lower --num_workers"),
    ],
)
def test_out_of_memory_says_what_to_reduce(shards, tmp_path, monkeypatch, capsys, error, advice):
    def full(*given):
        raise error

    monkeypatch.setattr(training.train, "take_step", full)
    assert run(shards(), tmp_path / "out") == 1
    assert advice in capsys.readouterr().err


def test_a_full_disk_in_mid_run_leaves_the_checkpoint_of_the_epoch_before(
    shards, tmp_path, monkeypatch, capsys
):
    out, written = tmp_path / "out", []
    original = torch.save

    def fill(content, sink):
        written.append(content["progress"]["epoch"])
        if len(written) > 2:  # best.pt and last.pt of the first epoch found room
            sink.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        original(content, sink)

    monkeypatch.setattr(checkpoint.torch, "save", fill)
    assert run(shards(), out) == 2
    assert "No space left" in capsys.readouterr().err
    assert checkpoint.load(out / "last.pt")["progress"]["epoch"] == 1
    assert not list(out.glob("*.tmp"))


def test_bad_data_and_bad_flags_are_refused_with_a_message(shards, tmp_path, capsys):
    root, no_positives = shards(), str(tmp_path / "no_positives")
    write_shards(f"{no_positives}/split=train", [make_columns(48, 0)])
    lenses = make_columns(48, 1, split="val")
    write_shards(f"{no_positives}/split=val", [{k: v[::2] for k, v in lenses.items()}])
    for flags, message in (
        (["--num_workers", "50"], "row groups for 50 readers"),
        (["--meta_cols", "theta_e_arcsec"], "know the label"),
        (["--min_theta_over_psf", "99"], "0 positives and 0 negatives"),
        (["--batch_size", "1"], "batch_size = 1; expected at least 2"),
        (["--data", str(tmp_path / "none")], "split=train"),
        (["--out_dir", __file__], "is a file; --out_dir is the folder of a run"),
        (["--experiment", str(tmp_path)], "is a folder; expected a file"),
        *([] if torch.cuda.is_available() else [(["--device", "cuda"], "this torch sees no GPU")]),
        (["--data", no_positives], "val: 0 positives and 24 negatives"),
        (
            ["--meta_cols", "psfsize,theta_e_arcsec"],
            "['psfsize', 'theta_e_arcsec'] are unknown or know the label",
        ),
        (["--meta_cols", "psfsize"], "allowed: ebv, mag_g"),
        (["--pretrained", str(tmp_path / "none.safetensors")], "no such file of weights"),
        (["--experiment", "experiments/gen99.toml"], "no such experiment file"),
    ):
        assert run(root, tmp_path / "out", *flags) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_train_refuses_rather_than_exits(tmp_path):
    with pytest.raises(Explained):
        train(load(DEFAULT_EXPERIMENT), str(tmp_path), tmp_path / "out")
    (tmp_path / "last.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        train(load(DEFAULT_EXPERIMENT), str(tmp_path), tmp_path, resume=True)
