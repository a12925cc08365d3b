"""Figures of a scores dataset: against scikit-learn, by hand, and with every kind of bad input."""

import json

import numpy as np
import pytest
from fabricate import drawn_logits, fabricated_columns, write_scores
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from darkhaloscope.results import SCORES
from darkhaloscope.stats.intervals import wilson
from evaluation.evaluate import evaluate, main
from evaluation.quoted import quoted_figures
from evaluation.scores import ScoresError, read_scores
from evaluation.strata import AXES, COLUMNS, footprint, mask_class, stratify
from training.roc import Roc, roc_curve


@pytest.fixture(scope="module")
def metrics(scores_root):
    return evaluate(read_scores(scores_root, COLUMNS), n_resamples=200)


def test_figures_agree_with_scikit_learn(scores_root, metrics):
    scores = read_scores(scores_root)
    fpr, tpr, _ = sklearn_roc_curve(scores.label, scores.logit, drop_intermediate=False)
    figures = metrics["figures"]
    assert figures["auroc"]["value"] == pytest.approx(roc_auc_score(scores.label, scores.logit), abs=1e-12)
    for name, target in (("tpr@fpr1e-2", 1e-2), ("tpr@fpr1e-3", 1e-3), ("tpr@fpr1e-4", 1e-4)):
        assert figures[name]["value"] == pytest.approx(tpr[fpr <= target].max())
    assert figures["fpr@tpr0.85"]["value"] == pytest.approx(fpr[tpr >= 0.85].min())


def test_every_figure_has_its_n_interval_and_hashes(scores_root, metrics):
    metrics = json.loads(json.dumps(metrics, allow_nan=False))
    assert metrics["scores_hash"] == read_scores(scores_root).hash
    assert metrics["scored_with"] == {"checkpoint": "c" * 16, "data": "d" * 16}
    assert metrics["n"] == {
        "rows": 4_000,
        "positives": 2_000,
        "negatives": 2_000,
        "positive_hosts": 2_000,
        "repeated_controls": 0,
        "sky_cells": 30,
    }
    assert metrics["unresolved"] == [
        "tpr@fpr1e-2", "tpr@fpr1e-3", "tpr@fpr1e-4", "TPR0", "TPR10", "pauc@logfpr",
    ]  # fmt: skip
    for figure in metrics["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["cell_low"] <= figure["value"] <= figure["cell_high"]
        assert figure["n_positives"] == figure["n_negatives"] == 2_000


def test_the_curve_and_the_histogram_are_those_of_the_scores(scores_root, metrics):
    scores = read_scores(scores_root)
    roc = roc_curve(scores.logit, scores.label)
    curve = metrics["curve"]
    assert curve["fpr"][0] == pytest.approx(1 / 2_000)
    assert (curve["fpr"][-1], curve["tpr"][-1]) == (1.0, 1.0)
    expected = [roc.tpr[roc.fpr <= fpr * (1 + 1e-12)].max() for fpr in curve["fpr"]]
    np.testing.assert_allclose(curve["tpr"], expected)
    histogram = metrics["histogram"]
    assert sum(histogram["positives"]) == sum(histogram["negatives"]) == 2_000


def test_every_rate_has_an_interval(metrics):
    sure = metrics["binary_score_frac"]
    assert (sure["low"], sure["high"]) == pytest.approx(
        tuple(map(float, wilson(round(sure["value"] * 4_000), 4_000)))
    )
    for stratum in metrics["strata"].values():
        for b in stratum["bins"]:
            for rate in ("tpr", "fpr", "auroc"):
                assert b[rate] is None or b[f"{rate}_low"] <= b[rate] <= b[f"{rate}_high"]
    for found in metrics["calibration"]["reliability"].values():
        assert all(b["low"] <= b["observed"] <= b["high"] for b in found["bins"])


def test_without_resamples_there_are_no_cell_bounds_but_all_else(scores_root, metrics):
    found = evaluate(read_scores(scores_root, COLUMNS), n_resamples=0)
    assert found["strata"] == metrics["strata"] and found["curve"]["tpr"] == metrics["curve"]["tpr"]
    assert {f["cell_low"] for f in found["figures"].values()} == {None} == set(found["curve"]["cell_high"])
    assert len(found["curve"]["cell_high"]) == len(found["curve"]["tpr"])


@pytest.mark.parametrize("n", [2, 400])
def test_saturated_scores_find_nothing_and_say_so(tmp_path, n):
    columns = fabricated_columns(n)
    write_scores(tmp_path, columns, np.full(n, 9.0, np.float32))
    found = json.loads(json.dumps(evaluate(read_scores(str(tmp_path), COLUMNS), 10), allow_nan=False))
    figures = found["figures"]
    assert figures["auroc"]["value"] == 0.5
    for name in ("tpr@fpr1e-2", "tpr@fpr1e-4", "TPR0"):
        assert (figures[name]["value"], figures[name]["threshold"]) == (0.0, None)
        assert not figures[name]["resolved"] and figures[name]["high"] > 0
    assert figures["fpr@tpr0.85"]["value"] == 1.0
    assert found["binary_score_frac"]["value"] == 1.0
    assert {b["tpr"] for b in found["strata"]["psfsize_r"]["bins"]} <= {0.0, None}


def test_replicates_of_a_control_change_no_figure(tmp_path):
    columns = fabricated_columns(400)
    logit = drawn_logits(columns)
    write_scores(tmp_path / "once", columns, logit)
    control = columns["is_control"] == 1
    twice = {k: np.concatenate([v, v[control]]) for k, v in columns.items()}
    twice["task_id"][400:] = [f"{i:032x}" for i in range(control.sum())]
    write_scores(tmp_path / "twice", twice, np.concatenate([logit, logit[control] * (1 + 1e-6)]))
    once, again = (evaluate(read_scores(str(tmp_path / name), COLUMNS), 20) for name in ("once", "twice"))
    assert (once["n"]["repeated_controls"], again["n"]["repeated_controls"]) == (0, 200)
    for part in ("figures", "curve", "binary_score_frac", "strata"):
        assert once[part] == again[part]


def test_one_cell_gives_no_interval_and_says_so(tmp_path):
    columns = fabricated_columns(400, n_cells=1)
    write_scores(tmp_path, columns, drawn_logits(columns))
    result = evaluate(read_scores(str(tmp_path), COLUMNS), n_resamples=20)
    assert result["cell_bootstrap"]["enough_cells"] is False
    assert result["figures"]["auroc"]["cell_low"] is None
    assert result["figures"]["auroc"]["low"] is not None


def test_strata_add_up_and_are_judged_at_the_global_threshold():
    columns = fabricated_columns(1_000)
    columns["logit"] = drawn_logits(columns)
    columns["arc_snr"][:10] = np.nan
    label = columns["is_control"] == 0
    strata = stratify(columns, label, threshold=1.0)
    assert set(strata) == {"type", "mask", "footprint", *(a.column for a in AXES)}
    for stratum in strata.values():
        for name, total in (("positives", 500), ("negatives", 500)):
            assert sum(b[f"n_{name}"] for b in stratum["bins"]) + stratum["missing"][name] == total
    assert strata["arc_snr"]["missing"] == {"positives": 5, "negatives": 5}
    sharp = strata["psfsize_r"]["bins"][0]
    inside = columns["psfsize_r"] < 1.1
    assert sharp["high"] == 1.1 and sharp["low"] is None
    assert sharp["tpr"] == np.mean(columns["logit"][inside & label] >= 1.0)
    assert sharp["fpr"] == np.mean(columns["logit"][inside & ~label] >= 1.0)
    found = columns["logit"][inside & label] >= 1.0
    assert (sharp["tpr_low"], sharp["tpr_high"]) == tuple(map(float, wilson(found.sum(), found.size)))
    assert sharp["auroc"] == pytest.approx(roc_auc_score(label[inside], columns["logit"][inside]))


def test_masks_and_footprint_are_classes_of_which_each_row_is_in_one():
    names = {
        "no file": -1,
        "clean": 0,
        "star": 1 << 11 | 1 << 5,
        "bad pixels": 1 << 5 | 1 << 12,
        "galaxy or cluster": 1 << 12,
    }
    assert mask_class(np.array(list(names.values()))).tolist() == list(names)
    assert mask_class(np.array([1, 1 << 16])).tolist() == [
        "clean",
        "clean",
    ]  # a neighbour's pixel, a re-fitted blob
    ra, dec = np.array([180.0, 180, 10, 350]), np.array([20.0, -20, 10, -40])
    expected = ["NGC, Dec ≥ -10", "NGC, Dec < -10", "SGC, Dec ≥ 5", "SGC, Dec < 5"]
    assert footprint(ra, dec).tolist() == expected
    borders = footprint(np.array([180.0, 180, 10, 10]), np.array([-10.0, -10.01, 5, 4.99])).tolist()
    assert borders == expected


@pytest.mark.parametrize("n", [40_000, 2_999_999, 3_000_000])
def test_the_partial_area_needs_the_negatives_of_its_lowest_rate(n):
    roc = Roc(np.array([np.inf, 1.0]), np.array([0, n]), np.array([0, 10]))
    assert quoted_figures(roc, {})["pauc@logfpr"]["resolved"] == (n >= 3_000_000)


def test_purities_are_those_of_the_points_they_are_at(metrics):
    assert len(metrics["purity"]) == 6 * 3
    for row in metrics["purity"]:
        figure = metrics["figures"][row["at"]]
        tpr, fpr = figure["value"], figure["false_positives"] / figure["n_negatives"]
        if row["at"].startswith("fpr@"):
            tpr, fpr = 0.85, figure["value"]
        pi = row["prevalence"]
        assert row["value"] == pytest.approx(pi * tpr / (pi * tpr + (1 - pi) * fpr))
        assert row["low"] <= row["value"] <= row["high"]


def test_an_empty_stratum_has_no_rate_rather_than_zero():
    columns = fabricated_columns(100)
    columns["logit"] = drawn_logits(columns)
    columns["psfsize_r"][:] = 1.25
    empty = stratify(columns, columns["is_control"] == 0, 0.0)["psfsize_r"]["bins"][0]
    assert (empty["n_positives"], empty["tpr"], empty["tpr_low"], empty["auroc"]) == (0, None, None, None)


def test_the_command_writes_the_file_and_prints_the_figures(scores_root, tmp_path, capsys):
    assert main(["--scores", scores_root, "--out", str(tmp_path / "e"), "--resamples", "20"]) == 0
    figures = json.loads((tmp_path / "e" / "metrics.json").read_text())["figures"]
    printed = capsys.readouterr().out
    assert "2,000 injections, 2,000 controls in 30 sky cells" in printed
    assert f"tpr@fpr1e-4    {figures['tpr@fpr1e-4']['value']:.4f}" in printed
    assert printed.count("unresolved") == 6


def test_a_bound_holds_for_both_classes_and_is_recorded(tmp_path, capsys):
    columns = fabricated_columns(400)
    columns["theta_over_psf"] = np.linspace(0, 1, 400)
    columns["theta_over_psf"][300] = np.nan
    write_scores(tmp_path / "s", columns, drawn_logits(columns))
    arguments = ["--scores", str(tmp_path / "s"), "--out", str(tmp_path), "--resamples", "5"]
    assert main([*arguments, "--minimum", "theta_over_psf=0.5", "--minimum", "arc_snr=0"]) == 0
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert result["selection"] == "theta_over_psf >= 0.5 and arc_snr >= 0"
    assert (result["n"]["positives"], result["n"]["negatives"]) == (99, 100)
    assert "with theta_over_psf >= 0.5" in capsys.readouterr().out
    for wrong, message in (("theta=1", "no numeric column"), ("arc_snr", "expected COLUMN=VALUE")):
        with pytest.raises(SystemExit):
            main([*arguments, "--minimum", wrong])
        assert message in capsys.readouterr().err


def bad_nan(root):
    columns = fabricated_columns(20)
    logit = drawn_logits(columns)
    logit[3] = np.nan
    write_scores(root, columns, logit)


def bad_one_class(root):
    columns = fabricated_columns(20)
    columns["label"][:] = 0
    write_scores(root, columns, drawn_logits(columns))


def bad_mixed_models(root):
    for chunk, model in enumerate("ab"):
        columns = fabricated_columns(20, seed=chunk)
        write_scores(root, columns, drawn_logits(columns), chunk, {"checkpoint": model})


def bad_repeated(root):
    for chunk in (0, 1):
        columns = fabricated_columns(20)
        write_scores(root, columns, drawn_logits(columns), chunk)


def bad_column(root):
    import pyarrow as pa

    from darkhaloscope.dataset import commit_chunk, write_part

    schema = pa.schema([f for f in SCORES.arrow() if f.name != "sky_cell"])
    empty = pa.RecordBatch.from_pylist([], schema=schema)
    part = write_part(str(root), 0, 0, [empty], schema)
    from dataclasses import replace

    commit_chunk(str(root), 0, [replace(part, rows=1)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_nan, "1 of 20 logits are NaN or infinite (task_id "),
        (bad_one_class, "one class only: 0 positives and 20 negatives"),
        (bad_mixed_models, "2 different scorings"),
        (bad_repeated, "20 of 40 rows repeat a task_id"),
        (bad_column, "missing column 'sky_cell'"),
        (lambda root: None, "no committed chunk"),
    ],
)
def test_bad_scores_end_with_a_message_and_no_metrics_file(tmp_path, capsys, make, message):
    make(tmp_path / "scores")
    assert main(["--scores", str(tmp_path / "scores"), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_reading_names_the_two_scorings_that_are_mixed(tmp_path):
    bad_mixed_models(tmp_path)
    with pytest.raises(ScoresError, match=r'"a".*"b"'):
        read_scores(str(tmp_path))
