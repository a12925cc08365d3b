import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import typing
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_shards import make_columns, write_shards

import training.train
from darkhaloscope.config import ConfigError
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import load
from darkhaloscope.sections import Training
from evaluation.committee import mined_negatives
from training import checkpoint
from training.checkpoint import CheckpointError
from training.options import DEFAULT_EXPERIMENT, REPOSITORY, experiment_of, parser
from training.preprocess import PreprocessingError
from training.runlog import LossMeter, RunLog, StopRequest, read_log
from training.train import learning_rate, main, train

FAST = ["--arch", "small_resnet", "--seed", "42", "--epochs", "3", "--batch_size", "16", "--lr", "3e-3",
        "--num_workers", "0", "--device", "cpu"]  # fmt: skip


MEASURED = ("images_per_s", "data_wait_share", "train_seconds", "flops_utilisation")


def run(root: str, out: Path, *flags: str) -> int:
    return main(["--data", root, "--out_dir", str(out), *FAST, *flags])


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


def test_it_learns_a_planted_signal_and_leaves_what_it_says(shards, tmp_path, capsys):
    root, out = shards(train=256, val=64), tmp_path / "out"
    assert run(root, out, "--epochs", "4") == 0
    log = read_log(out / "log.jsonl")
    assert [r["event"] for r in log] == ["start", *["epoch"] * 4]
    assert log[-1]["auroc"] > 0.95
    assert log[-1]["train_loss"] < log[1]["train_loss"]
    assert {"tpr@fpr1e-4", "tpr@fpr1e-4_low", "binary_score_frac", "binary_score_frac_calibrated", "val_loss",
            "images_per_s", "data_wait_share"} <= log[-1].keys()  # fmt: skip
    written = json.loads((out / "config.json").read_text())
    assert written["experiment"]["training"]["batch_size"] == 16
    assert (written["data"]["train"]["rows"], written["parameters"]) == (256, 195_205)
    model, preprocessing, config = checkpoint.load_finder_model(out / "best.pt")
    assert (model.arch, preprocessing.norm_method, config.training.epochs) == ("small_resnet", "sky_asinh", 4)
    printed = capsys.readouterr().out
    assert "195,205 parameters" in printed
    assert "128 positives and 128 negatives" in printed


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


def test_early_stopping_ends_the_run_and_best_is_the_best_epoch(shards, tmp_path, monkeypatch):
    values = iter([0.6, 0.9, 0.8, 0.7, 0.95])
    original = training.train.summarise
    monkeypatch.setattr(training.train, "summarise", lambda *a: original(*a) | {"tpr@lowfpr": next(values)})
    out = tmp_path / "out"
    assert run(shards(), out, "--epochs", "9", "--early_stopping_patience", "2") == 0
    assert len([r for r in read_log(out / "log.jsonl") if r["event"] == "epoch"]) == 4
    assert checkpoint.load(out / "best.pt")["metrics"]["tpr@lowfpr"] == 0.9
    assert checkpoint.load(out / "last.pt")["progress"]["best_epoch"] == 1


def test_selection_by_loss_takes_the_lowest(shards, tmp_path, monkeypatch):
    values = iter([0.5, 0.2, 0.3])
    original = training.train.validate
    monkeypatch.setattr(training.train, "validate", lambda r: original(r) | {"val_loss": next(values)})
    out = tmp_path / "out"
    assert run(shards(), out, "--selection_metric", "loss") == 0
    assert checkpoint.load(out / "best.pt")["metrics"]["val_loss"] == 0.2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_and_the_seeds_flags_train(shards, tmp_path, precision):
    out = tmp_path / "out"
    flags = "--loss focal --focal_alpha 0.25 --focal_gamma 2.0 --min_theta_over_psf 0.6 --norm_method outer "
    flags += "--norm_clip 10 --meta_cols psfsize_r,psfdepth_r --weight_decay 1e-2 --dropout 0.1 --augment"
    assert run(shards(), out, *flags.split(), "--precision", precision, "--epochs", "1") == 0
    content = checkpoint.load(out / "last.pt")
    assert content["preprocessing"]["meta_cols"] == ["psfsize_r", "psfdepth_r"]
    assert 0 < content["data"]["train"]["negatives"] < content["data"]["train"]["negatives_before_bounds"]


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


def test_mined_negatives_are_shown_as_often_as_their_weight_says_and_are_told_everywhere(
    shards, tmp_path, capsys
):
    root, out, listed = shards(), tmp_path / "out", str(tmp_path / "hard.parquet")
    columns = make_columns(48, 0, "float16")  # the first file of `shards`; even rows are negatives
    pq.write_table(pa.table({"task_id": [columns["task_id"][i] for i in (0, 2, 4)]}), listed)
    flags = ["--epochs", "1", "--hard_neg_path", listed, "--hard_neg_weight", "4"]
    assert run(root, out, *flags) == 0
    assert "3 of 3 hard negatives found, in 3 rows" in capsys.readouterr().out
    written = json.loads((out / "config.json").read_text())
    assert (written["shown"]["hard_negative"], written["shown"]["random_negative"]) == (12, 45)
    content = checkpoint.load(out / "best.pt")
    assert mined_negatives(content) == 3, "evaluation.mine refuses a second round by this number"
    assert content["config"]["training"]["hard_neg_weight"] == 4.0
    pq.write_table(pa.table({"task_id": [columns["task_id"][0]]}), listed)
    assert run(root, out, *flags, "--resume") == 2
    assert "hard_negatives was" in capsys.readouterr().err
    assert run(root, tmp_path / "none", "--hard_neg_path", str(tmp_path / "none.parquet")) == 2
    assert "none.parquet" in capsys.readouterr().err


def test_every_setting_of_the_config_is_a_flag_that_takes_effect():
    flags = {a.dest: a.option_strings for a in parser()._actions if a.dest not in ("help",)}
    values = {int: "7", float: "0.3", bool: None, str: "some/file"}
    hints = typing.get_type_hints(Training)
    default = load(DEFAULT_EXPERIMENT).training
    for name, hint in hints.items():
        assert f"--{name}" in parser().format_help(), name
        if typing.get_origin(hint) is typing.Literal:
            value = next(c for c in typing.get_args(hint) if c != getattr(default, name))
        elif typing.get_origin(hint) is tuple:
            value = "psfsize_r, psfdepth_r"
        else:
            value = values[hint]
        given = [f"--{name}", value] if value is not None else [f"--{'no-' * getattr(default, name)}{name}"]
        assert getattr(experiment_of(parser().parse_args(given)).training, name) != getattr(default, name)
    known = {*hints, "experiment", "data", "out_dir", "resume", "overwrite", "seed", "device", "tensorboard"}
    assert set(flags) == known
    assert experiment_of(parser().parse_args(["--use_bf16"])).training.precision == "bf16"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.toml")), ids=lambda p: p.stem)
def test_every_experiment_can_be_trained_as_its_file_says(path):
    experiment_of(parser().parse_args(["--experiment", str(path)]))


@pytest.mark.parametrize(("flag", "error"), [("--lr=0", ConfigError), ("--dropout=1", ConfigError),
                                             ("--meta_cols=arc_snr", PreprocessingError)])  # fmt: skip
def test_settings_out_of_range_are_refused(flag, error):
    with pytest.raises(error):
        experiment_of(parser().parse_args([flag]))


def test_the_learning_rate_rises_then_falls_to_zero():
    config = Training(epochs=10, lr=1.0, warmup_epochs=2.0)
    rates = [learning_rate(step, 10, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[19] == rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] < 1e-3
    assert all(a <= b for a, b in pairwise(rates[:20]))
    assert learning_rate(0, 10, dataclasses.replace(config, warmup_epochs=0.0)) == 1.0


def test_a_gradient_that_is_not_finite_is_found_late_and_still_named():
    meter = LossMeter()
    ids = [torch.full((2, 16), i, dtype=torch.uint8) for i in range(5)]
    for i, one in enumerate(ids):
        meter.add(torch.tensor(0.5), torch.tensor(float("inf") if i == 3 else 1.0), torch.tensor(0), one)
    with pytest.raises(FloatingPointError, match="03" * 16):
        meter.fetch()


def test_a_second_signal_is_not_caught():
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == before[signal.SIGINT]


def test_train_refuses_rather_than_exits(tmp_path):
    with pytest.raises(Explained):
        train(load(DEFAULT_EXPERIMENT), str(tmp_path), tmp_path / "out")
    (tmp_path / "last.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        train(load(DEFAULT_EXPERIMENT), str(tmp_path), tmp_path, resume=True)


def test_the_trainer_needs_neither_spark_nor_the_survey_libraries(shards, tmp_path):
    """A GPU host has torch, timm, pyarrow, numpy, numba, scikit-learn, h5py and matplotlib."""
    program = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"pyspark", "boto3", "botocore", "s3fs", "astropy", "astropy_healpix", "fitsio",
                                      "lenstronomy", "galsim", "sep", "photutils", "jinja2"}}:
            raise ImportError(name + " is not on a GPU host")
sys.meta_path.insert(0, Blocked())
from training.train import main
sys.exit(main({["--data", shards(train=32, val=16), "--out_dir", str(tmp_path / "out"), *FAST, "--epochs", "1"]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "done:" in done.stdout
