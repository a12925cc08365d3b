"""What a run of the trainer does, and leaves."""

import dataclasses
import json
import subprocess
import sys
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_shards import make_columns
from train_run import FAST, run

import training.train
from darkhaloscope.sections import Training
from evaluation.committee import mined_negatives
from training import checkpoint
from training.runlog import read_log
from training.train import learning_rate


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


def test_the_learning_rate_rises_then_falls_to_zero():
    config = Training(epochs=10, lr=1.0, warmup_epochs=2.0)
    rates = [learning_rate(step, 10, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[19] == rates[20] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] < 1e-3
    assert all(a <= b for a, b in pairwise(rates[:20]))
    assert learning_rate(0, 10, dataclasses.replace(config, warmup_epochs=0.0)) == 1.0


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
