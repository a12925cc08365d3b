"""Two models on the same lenses: by hand, against scipy, and where they cannot be compared."""

import json

import numpy as np
import pytest
from fabricate import drawn_logits, fabricated_columns, write_scores
from scipy.stats import binom

from evaluation.compare import compare, main, matched
from evaluation.scores import ScoresError, read_scores
from evaluation.section import read_all
from training.roc import MetricsError


def write(root, logit, columns, checkpoint):
    write_scores(root, columns, logit, provenance={"checkpoint": checkpoint, "d4": False, "split": "test"})
    return str(root)


def test_lenses_that_divide_the_models_are_counted_by_hand():
    label = np.array([1] * 10 + [0] * 100)
    controls = np.linspace(0, 1, 100)
    a = np.concatenate([[5, 5, 5, 5, 5, 5, 5, 0, 0, 0], controls])
    b = np.concatenate([[5, 0, 0, 0, 0, 0, 5, 5, 0, 0], controls * 2])
    found = compare(a, b, label, 0.01)
    assert (found.tpr_a, found.tpr_b, found.only_a, found.only_b) == (0.7, 0.3, 5, 1)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 6, 0.5))
    assert found.low < 0.4 < found.high and not found.resolved


def test_each_model_works_at_its_own_threshold():
    rng = np.random.default_rng(0)
    label = np.arange(6_000) % 2
    logit = rng.normal(size=6_000) + 2 * label
    found = compare(logit, 7 * logit - 40, label, 0.01)  # the same ranking on another scale
    assert (found.only_a, found.only_b, found.p_value) == (0, 0, 1.0)
    assert found.low < 0 < found.high and found.resolved


def test_saturated_models_find_nothing_rather_than_everything():
    label = np.array([1, 1, 0, 0])
    found = compare(np.full(4, 9.0), np.array([2.0, 2, 1, 0]), label, 0.01)
    assert (found.tpr_a, found.tpr_b, found.only_b) == (0, 1, 2)


def test_one_class_is_refused():
    with pytest.raises(MetricsError, match="one class only"):
        compare(np.ones(3), np.zeros(3), np.ones(3), 0.01)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    root = tmp_path_factory.mktemp("two")
    columns = fabricated_columns(800)
    good, poor = drawn_logits(columns, 0, 4.0), drawn_logits(columns, 1, 1.0)
    shuffled = np.random.default_rng(0).permutation(800)[:780]
    fewer = {k: v[shuffled] for k, v in columns.items()}
    return (
        write(root / "a", good, columns, "aa"),
        write(root / "b", poor[shuffled], fewer, "bb"),
        good,
        poor,
        columns,
    )


def test_rows_are_matched_by_task_id_in_whatever_order(two):
    a, b, good, poor, _ = two
    logit_a, logit_b, label, alone = matched(read_scores(a), read_scores(b))
    assert (len(label), alone) == (780, 20)
    pairs = dict(zip(good.tolist(), poor.tolist(), strict=True))
    assert all(pairs[x] == y for x, y in zip(logit_a.tolist(), logit_b.tolist(), strict=True))


def test_a_control_galaxy_counts_once(tmp_path):
    columns = fabricated_columns(40)
    control = columns["is_control"] == 1
    twice = {k: np.concatenate([v, v[control]]) for k, v in columns.items()}
    twice["task_id"][40:] = [f"{i:032x}" for i in range(control.sum())]
    urls = [write(tmp_path / name, drawn_logits(twice, i), twice, name) for i, name in enumerate("ab")]
    label = matched(*map(read_scores, urls))[2]
    assert (label.sum(), (~label).sum()) == (20, 20)


def test_the_command_leaves_a_section_for_the_report(two, tmp_path, capsys):
    assert main([two[0], two[1], "--names", "good", "poor", "--out", str(tmp_path)]) == 0
    section = read_all(str(tmp_path))["compare"]
    figures = section["figures"]["tpr@fpr1e-2"]
    assert figures["only_a"] > 5 * figures["only_b"] and figures["p_value"] < 1e-6 and figures["low"] > 0
    for name in ("tpr_a", "tpr_b"):
        low, high = figures[f"{name}_95"]
        assert low < figures[name] < high and f"{low:.4f} to {high:.4f}" in section["tables"][0]["rows"][0]
    assert section["made_from"] == {
        "scores of good": read_scores(two[0]).hash,
        "scores of poor": read_scores(two[1]).hash,
    }
    assert "20 rows that only one model scored" in section["tables"][0]["note"]
    assert "good finds" in capsys.readouterr().out
    json.dumps(section, allow_nan=False)


def test_scores_that_cannot_be_compared_are_refused(two, tmp_path, capsys):
    assert main([two[0], two[0], "--out", str(tmp_path)]) == 1
    assert "both are scores of model" in capsys.readouterr().err
    others = fabricated_columns(40, seed=9)
    with pytest.raises(ScoresError, match="no task_id in common"):
        matched(read_scores(two[0]), read_scores(write(tmp_path / "c", drawn_logits(others), others, "cc")))
    flipped = {k: v[:40].copy() for k, v in two[4].items()}
    flipped["label"] = 1 - flipped["label"]
    with pytest.raises(ScoresError, match="40 rows have two labels"):
        matched(read_scores(two[0]), read_scores(write(tmp_path / "d", drawn_logits(flipped), flipped, "dd")))
    assert list(tmp_path.glob("*.json")) == []
