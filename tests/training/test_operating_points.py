"""Figures at a handful of false positives: by hand, against scikit-learn, and with ties, saturation and one row."""

import numpy as np
import pytest
from scipy.integrate import quad
from sklearn.metrics import roc_curve as sklearn_roc_curve

from darkhaloscope.stats.intervals import matched_difference
from training.operating_points import (
    MIN_EVENTS,
    log_partial_area,
    log_partial_area_interval,
    purity,
    tpr_at_fpr,
    tpr_within,
)
from training.roc import MetricsError, roc_curve


def drawn(n, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    logit = rng.normal(size=n) + 2.5 * label
    return (logit if decimals is None else logit.round(decimals)), label


def test_tpr0_and_tpr10_by_hand_with_a_tie_at_the_threshold():
    logit = [9, 8, 7, 7, 6, 5, 4]
    label = [1, 1, 0, 1, 0, 1, 0]
    roc = roc_curve(logit, label)
    # The lens at 7 is tied with a control: it passes only together with it.
    assert [tpr_within(roc, k).value for k in (0, 1, 2, 3)] == [0.5, 0.75, 1.0, 1.0]
    assert (tpr_within(roc, 0).false_positives, tpr_within(roc, 0).threshold) == (0, 8.0)
    assert tpr_within(roc, 10).false_positives == 3


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("few", [0, 10])
def test_tpr0_and_tpr10_agree_with_scikit_learn(few, decimals):
    logit, label = drawn(4_000, decimals)
    fpr, tpr, _ = sklearn_roc_curve(label, logit, drop_intermediate=False)
    found = tpr_within(roc_curve(logit, label), few)
    assert found.value == pytest.approx(tpr[np.round(fpr * (~label).sum()) <= few].max())
    assert found.low <= found.value <= found.high
    assert not found.resolved


def test_a_count_of_enough_controls_is_resolved():
    logit, label = drawn(4_000)
    assert tpr_within(roc_curve(logit, label), MIN_EVENTS).resolved


@pytest.mark.parametrize("decimals", [None, 1])
@pytest.mark.parametrize("between", [(1e-5, 1e-3), (1e-2, 0.5), (2e-3, 3e-3)])
def test_the_partial_area_is_the_integral_of_scikit_learns_staircase(between, decimals):
    logit, label = drawn(3_000, decimals)
    fpr, tpr, _ = sklearn_roc_curve(label, logit, drop_intermediate=False)

    def stairs(log_fpr):
        return tpr[np.searchsorted(fpr, np.exp(log_fpr) * (1 + 1e-12), side="right") - 1]

    low, high = np.log(between)
    jumps = np.log(fpr[(fpr > between[0]) & (fpr < between[1])])
    expected = sum(
        quad(stairs, a, b)[0]
        for a, b in zip([low, *np.unique(jumps)], [*np.unique(jumps), high], strict=True)
    )
    assert log_partial_area(roc_curve(logit, label), between) == pytest.approx(
        expected / (high - low), abs=1e-6
    )


def test_the_partial_area_of_few_controls_is_tpr0_and_of_no_use():
    logit, label = drawn(500)
    roc = roc_curve(logit, label)
    assert log_partial_area(roc, (1e-5, 1e-3)) == tpr_within(roc, 0).value
    low, high = log_partial_area_interval(roc, (1e-5, 1e-3))
    assert low == 0 and low <= tpr_within(roc, 0).value <= high


def test_the_partial_area_of_saturated_and_of_perfect_scores():
    assert log_partial_area(roc_curve([3.0] * 6, [0, 1] * 3)) == 0
    assert tpr_within(roc_curve([3.0] * 6, [0, 1] * 3), 0).value == 0
    assert log_partial_area(roc_curve([1, 0], [1, 0])) == 1  # one row of each class


def test_purity_by_hand_and_where_nothing_passes():
    assert purity(0.5, 1e-3, 1e-3) == pytest.approx(0.0005 / (0.0005 + 0.000999))
    assert purity(0.5, 0.0, 1e-3) == 1
    assert purity(0.0, 1e-3, 1e-3) == 0
    assert purity(0.0, 0.0, 1e-3) is None
    with pytest.raises(MetricsError, match="between 0 and 1"):
        purity(0.5, 0.1, 1.0)


def test_a_partial_area_is_a_mean_of_the_points_it_is_of():
    roc = roc_curve(*drawn(20_000))
    points = [tpr_at_fpr(roc, f).value for f in np.geomspace(1e-3, 1e-1, 2_000)]
    assert log_partial_area(roc, (1e-3, 1e-1)) == pytest.approx(np.mean(points), abs=2e-3)


def test_the_interval_of_a_matched_difference_is_the_published_one_and_covers():
    # Agresti & Min 2005: (b - c)/(n + 2) -+ z sqrt(b + c + 1 - (b - c)^2/(n + 2))/(n + 2)
    low, high = matched_difference(12, 4, 100)
    half = 1.959964 * np.sqrt(17 - 64 / 102) / 102
    assert (low, high) == pytest.approx((8 / 102 - half, 8 / 102 + half))
    assert matched_difference(0, 0, 5)[0] == -matched_difference(0, 0, 5)[1] < 0
    with pytest.raises(ValueError, match="3 and 4 of 6"):
        matched_difference(3, 4, 6)
    draws = np.random.default_rng(0).multinomial(60, [0.12, 0.05, 0.83], 2_000)
    bounds = np.array([matched_difference(b, c, 60) for b, c, _ in draws.tolist()])
    assert 0.935 < np.mean((bounds[:, 0] <= 0.07) & (bounds[:, 1] >= 0.07)) < 0.97
