"""Calibration fits and reliability: against scikit-learn, by hand, and with ties, saturation, one class and one row."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from darkhaloscope.stats.calibration import at_prevalence
from evaluation.calibration import fit_isotonic, fit_temperature, reliability
from training.roc import MetricsError


def drawn(n, temperature=2.5, bias=-0.7, seed=0):
    """Logits whose calibrated ones are logit / temperature + bias."""
    rng = np.random.default_rng(seed)
    logit = (3 * rng.normal(size=n)).astype(np.float32)
    return logit, rng.random(n) < expit(logit / temperature + bias)


def test_the_fit_recovers_the_temperature_and_the_bias_and_is_scikit_learns():
    logit, label = drawn(40_000)
    fit = fit_temperature(logit, label)
    assert (fit.temperature, fit.bias) == pytest.approx((2.5, -0.7), abs=0.06)
    oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(logit[:, None].astype(float), label)
    assert 1 / fit.temperature == pytest.approx(oracle.coef_[0, 0], rel=2e-3)
    assert fit.bias == pytest.approx(oracle.intercept_[0], rel=2e-3)
    assert np.all(np.diff(fit.logits(np.sort(logit))) >= 0)  # order is kept


def test_a_shift_and_a_scale_of_all_logits_change_no_probability():
    logit, label = drawn(2_000)
    once = fit_temperature(logit, label).probability(logit)
    moved = logit.astype(float) * 1e3 + 5e4
    np.testing.assert_allclose(fit_temperature(moved, label).probability(moved), once, atol=1e-3)


def test_separated_classes_and_few_rows_give_finite_fits_that_are_not_sure():
    fit = fit_temperature([10.0, 11, 12, 20, 21, 22], [0, 0, 0, 1, 1, 1])
    assert np.all((fit.probability([10, 22]) > 0.1) & (fit.probability([10, 22]) < 0.9))
    one_each = fit_temperature([0.0, 1.0], [0, 1])
    assert one_each.probability([0.0, 1.0]) == pytest.approx([1 / 3, 2 / 3], abs=1e-3)


@pytest.mark.parametrize(
    ("logit", "label", "message"),
    [
        ([1.0, 2.0], [1, 1], "one class only"),
        ([1.0], [1], "one class only"),
        ([np.nan, 2.0], [0, 1], "NaN"),
        ([2.0, 1.0, 2.1, 0.9], [0, 1, 0, 1], "do not rank lenses above others"),
        ([5.0, 5.0, 5.0, 5.0], [0, 1, 0, 1], "do not rank lenses above others"),  # saturated
    ],
)
def test_rows_that_calibrate_nothing_are_refused_with_the_reason(logit, label, message):
    with pytest.raises(MetricsError, match=message):
        fit_temperature(logit, label)


def test_the_isotonic_fit_is_scikit_learns_with_ties():
    logit, label = drawn(3_000)
    logit = logit.round(1)
    fit, oracle = fit_isotonic(logit, label), IsotonicRegression(out_of_bounds="clip").fit(logit, label)
    where = np.linspace(-20, 20, 401)
    np.testing.assert_allclose(fit.probability(where), oracle.predict(where), atol=1e-6)
    assert np.all(np.diff(fit.probability(where)) >= 0)


def test_another_share_of_lenses_is_bayes_rule():
    # Two normals: the log odds are logit + log(pi / (1 - pi)).
    x = np.linspace(-3, 3, 13)
    fitted, wanted = 0.5, 0.01

    def truth(pi):
        return expit(2 * x + np.log(pi / (1 - pi)))

    np.testing.assert_allclose(at_prevalence(truth(fitted), fitted, wanted), truth(wanted), rtol=1e-6)
    np.testing.assert_allclose(at_prevalence(truth(0.3), 0.3, 0.3), truth(0.3), rtol=1e-9)
    assert at_prevalence([0.0, 1.0], 0.5, 0.1) == pytest.approx([0, 1], abs=1e-4)  # an isotonic fit's ends


def test_reliability_agrees_with_scikit_learn_where_no_probabilities_tie():
    rng = np.random.default_rng(1)
    p = rng.random(3_000)
    label = rng.random(3_000) < p**2
    found = reliability(p, label, 10)
    observed, predicted = calibration_curve(label, p, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([b["observed"] for b in found["bins"]], observed, atol=0.01)
    np.testing.assert_allclose([b["predicted"] for b in found["bins"]], predicted, atol=0.01)
    assert {b["n"] for b in found["bins"]} == {300}
    assert found["ece"] == pytest.approx(np.mean(np.abs(observed - predicted)), abs=0.005)


def test_reliability_by_hand_with_ties_in_one_bin():
    found = reliability([0.2] * 4 + [0.9] * 2, [0, 0, 1, 1, 1, 1], 3)
    assert [(b["n"], b["predicted"], b["observed"]) for b in found["bins"]] == [
        (4, pytest.approx(0.2), 0.5), (2, pytest.approx(0.9), 1.0),
    ]  # fmt: skip
    assert found["ece"] == pytest.approx((4 * 0.3 + 2 * 0.1) / 6)
    assert all(b["low"] <= b["observed"] <= b["high"] for b in found["bins"])


def test_the_error_of_a_calibrated_model_is_the_one_it_is_said_to_have():
    rng = np.random.default_rng(2)
    runs = []
    for _ in range(60):
        p = rng.beta(0.5, 0.5, 600)
        found = reliability(p, rng.random(600) < p)
        runs.append((found["ece"], found["ece_if_calibrated"]))
    measured, said = np.mean(runs, axis=0)
    assert measured == pytest.approx(said, rel=0.06)


def test_reliability_of_one_row_one_class_and_saturated_scores():
    assert reliability([0.7], [1])["ece"] == pytest.approx(0.3)
    assert reliability([0.0, 0.0, 0.0], [0, 0, 0]) == {
        "ece": 0.0, "ece_if_calibrated": 0.0,
        "bins": [{"predicted": 0.0, "observed": 0.0, "low": 0.0, "high": pytest.approx(0.5615, abs=1e-3), "n": 3}],
    }  # fmt: skip
    for wrong in ([np.nan], [1.2], []):
        with pytest.raises(MetricsError, match="expected as many, 0 to 1"):
            reliability(wrong, [1] * len(wrong))
