"""A calibration is fitted on one split, stored, and shown to hold on another; it is never fitted on the test split."""

import json
from pathlib import Path

import numpy as np
import pytest
from fabricate import drawn_logits, fabricated_columns, write_scores

from evaluation.calibrate import CalibrationError, calibrate, main, read_calibration
from evaluation.evaluate import evaluate
from evaluation.evaluate import main as evaluate_main
from evaluation.scores import read_scores
from evaluation.strata import COLUMNS

MODEL = {"checkpoint": "c" * 16, "d4": False}


def write(root, split, seed, drop_controls=0, n=4_000, **provenance):
    """Write scores four times too sure, of which a share of the controls may be missing."""
    columns = fabricated_columns(n, seed=seed)
    logit = 4 * drawn_logits(columns, seed) + 1
    keep = (columns["label"] == 1) | (np.random.default_rng(seed).random(n) >= drop_controls)
    columns = {k: v[keep] for k, v in columns.items()}
    write_scores(root, columns, logit[keep], provenance={**MODEL, "data": "d", "split": split, **provenance})
    return str(root)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Scores of the split val and URL of the calibration that the command fits on them."""
    root = tmp_path_factory.mktemp("cal")
    scores = write(root / "val", "val", 1, drop_controls=0.7)
    assert main(["--scores", scores, "--out", str(root / "c.json")]) == 0
    return scores, str(root / "c.json")


def test_what_was_fitted_is_read_back_with_where_it_is_from(stored):
    scores, url = stored
    made, found = calibrate(read_scores(scores)), read_calibration(url)
    assert found == made
    assert found.scores_hash == read_scores(scores).hash
    assert found.n_positives == 2_000 and found.prevalence == pytest.approx(0.77, abs=0.01)
    assert found.temperature.temperature == pytest.approx(
        4 / 2.5, rel=0.1
    )  # two normals 2.5 apart: slope 2.5


def test_probabilities_hold_on_the_test_split_though_its_share_of_lenses_differs(stored, tmp_path):
    test = read_scores(write(tmp_path / "test", "test", 2), COLUMNS)
    found = evaluate(test, 10, calibration=read_calibration(stored[1]))["calibration"]
    errors = {name: r["ece"] for name, r in found["reliability"].items()}
    assert errors["raw"] > 0.06
    assert errors["temperature"] < 0.025 and errors["isotonic"] < 0.025
    assert found["fitted_on"]["split"] == "val" and found["prevalence"] == 0.5
    without = evaluate(test, 10)["calibration"]
    assert list(without["reliability"]) == ["raw"] and without["fitted_on"] is None


@pytest.mark.parametrize("split", ["test", "train", None])
def test_rows_that_prove_nothing_are_refused(tmp_path, capsys, split):
    scores = write(tmp_path / "s", split, 3, n=40)
    assert main(["--scores", scores, "--out", str(tmp_path / "c.json")]) == 1
    assert f"scores of the split {split!r}, expected 'val'" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def test_one_class_and_nan_are_refused(tmp_path, capsys):
    scores = write(tmp_path / "s", "val", 3, drop_controls=1.0, n=40)
    assert main(["--scores", scores, "--out", str(tmp_path / "c.json")]) == 1
    assert "one class only: 20 positives and 0 negatives" in capsys.readouterr().err


def test_a_calibration_of_another_model_or_of_these_very_rows_is_refused(stored, tmp_path, capsys):
    other = write(tmp_path / "other", "test", 4, n=40, checkpoint="e" * 16)
    arguments = ["--out", str(tmp_path), "--resamples", "2", "--calibration", stored[1], "--scores"]
    assert evaluate_main([*arguments, other]) == 1
    assert "eeeeeeeeeeeeeeee" in capsys.readouterr().err
    assert evaluate_main([*arguments, stored[0]]) == 1
    assert "fitted on these very scores" in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()


def test_a_file_that_is_no_calibration_is_refused(stored, tmp_path):
    with pytest.raises(CalibrationError, match="no such calibration"):
        read_calibration(str(tmp_path / "none.json"))
    (tmp_path / "cut.json").write_text(Path(stored[1]).read_text()[:100])
    with pytest.raises(CalibrationError, match="not JSON"):
        read_calibration(str(tmp_path / "cut.json"))
    (tmp_path / "metrics.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(CalibrationError, match="not a calibration"):
        read_calibration(str(tmp_path / "metrics.json"))


def test_rows_of_which_nobody_knows_what_they_are_give_no_figures(tmp_path, capsys):
    columns = fabricated_columns(20)
    columns["label"][3] = -1
    write_scores(tmp_path / "s", columns, drawn_logits(columns))
    assert evaluate_main(["--scores", str(tmp_path / "s"), "--out", str(tmp_path)]) == 1
    assert "1 of 20 rows have a label other than 0 and 1" in capsys.readouterr().err
