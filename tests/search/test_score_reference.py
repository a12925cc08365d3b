"""A score means what it did in the evaluation of the same model, and nothing for another."""

import numpy as np
import pytest
from tiny_model import write_model

from darkhaloscope.search import reference as module
from darkhaloscope.search.model import load_model
from darkhaloscope.search.reference import (
    Member,
    Reference,
    ReferenceRefused,
    read_reference,
    thinned,
    write_reference,
)
from darkhaloscope.stats.calibration import Temperature
from darkhaloscope.stats.intervals import clopper_pearson


def made(logits, **more):
    logit, above = thinned(np.asarray(logits))
    return Reference((Member("a" * 16),), "s", logit, above, len(logits), 5, **more)


def test_rates_are_counts_of_negatives_ties_included():
    negatives = np.array([0.0, 1.0, 1.0, 2.0])
    wanted = {3.0: 0, 2.0: 1, 1.5: 1, 1.0: 3, 0.5: 3, 0.0: 4, -1.0: 4}
    assert made(negatives).false_positives(np.array(list(wanted))).tolist() == list(wanted.values())
    rate, high = made(negatives).fpr(np.array([2.0]))
    assert rate[0] == 0.25 and high[0] == clopper_pearson(1, 4)[1]


def test_of_many_negatives_the_highest_are_kept_and_the_rest_never_makes_a_rate_too_low(monkeypatch):
    monkeypatch.setattr(module, "EXACT", 50)
    monkeypatch.setattr(module, "QUANTILES", 20)
    negatives = np.random.default_rng(1).normal(size=3000)
    found = made(negatives)
    assert len(found.logit) <= 70
    at = np.linspace(-4, 4, 200)
    true = (negatives[:, None] >= at).sum(axis=0)
    told = found.false_positives(at)
    assert (told >= true).all() and (told[true < 50] == true[true < 50]).all()
    assert (told - true).max() <= 3000 / 19 + 1


def test_a_probability_follows_the_prevalence_by_bayes_and_is_unknown_without_a_calibration():
    found = made([0.0], calibration=Temperature(0.5, 1.0))
    half = found.probability(np.array([0.3]), 0.5)[0]
    rare = found.probability(np.array([0.3]), 0.001)[0]
    assert half == pytest.approx(1 / (1 + np.exp(-1.6)))
    assert rare / (1 - rare) == pytest.approx(half / (1 - half) * 0.001 / 0.999)
    assert np.isnan(made([0.0]).probability(np.array([0.3]), 0.5)).all()


def test_an_ensemble_averages_calibrated_logits_by_its_members_whatever_their_order():
    members = (Member("a" * 16, Temperature(2.0, 1.0)), Member("b" * 16, Temperature(1.0, -1.0)))
    found = Reference(members, "s", [0.0], [1], 1, 1)
    logits = np.array([[4.0], [2.0]])
    mean, spread = found.combined(logits, ["a" * 64, "b" * 64])
    assert (mean[0], spread[0]) == (2.0, pytest.approx(np.std([3.0, 1.0], ddof=1)))
    assert found.combined(logits[::-1], ["b" * 64, "a" * 64])[0][0] == 2.0


def test_a_reference_of_another_model_or_another_file_is_refused(tmp_path):
    model = load_model(write_model(tmp_path / "a.onnx"))
    own = Reference((Member(model.checkpoint[:16]),), "s", [0.0], [1], 1, 1)
    write_reference(str(tmp_path / "own.json"), own)
    assert read_reference(str(tmp_path / "own.json"), [model]) == own
    write_reference(str(tmp_path / "other.json"), made([0.0]))
    (tmp_path / "text.json").write_text('{"format": 1}')
    with pytest.raises(ReferenceRefused, match=r"aaaa.*same model only"):
        read_reference(str(tmp_path / "other.json"), [model])
    with pytest.raises(ReferenceRefused, match="not a reference"):
        read_reference(str(tmp_path / "text.json"), [model])
