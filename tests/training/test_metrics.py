"""Figures of a classifier: against scikit-learn, against hand-made ties, and by coverage of the intervals."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from darkhaloscope.stats.intervals import clopper_pearson, wilson
from training.calibration import binary_score_frac, calibrated_binary_score_frac
from training.metrics import summarise
from training.operating_points import fpr_at_tpr, fpr_name, mean_tpr, tpr_at_fpr
from training.roc import MetricsError, auroc, auroc_interval, roc_curve


def binormal(rng, n_positives, n_negatives, separation=2.0, decimals=None):
    logit = np.r_[rng.normal(separation, 1, n_positives), rng.normal(0, 1, n_negatives)].astype(np.float32)
    label = np.r_[np.ones(n_positives, int), np.zeros(n_negatives, int)]
    shuffle = rng.permutation(len(label))
    return (logit if decimals is None else logit.round(decimals))[shuffle], label[shuffle]


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_curve_and_area_agree_with_scikit_learn(decimals):
    logit, label = binormal(np.random.default_rng(1), 700, 2_000, decimals=decimals)
    roc = roc_curve(logit, label)
    fpr, tpr, threshold = sklearn_roc_curve(label, logit, drop_intermediate=False)
    np.testing.assert_allclose(roc.fpr, fpr, atol=1e-15)
    np.testing.assert_allclose(roc.tpr, tpr, atol=1e-15)
    np.testing.assert_array_equal(roc.threshold[1:], threshold[1:])
    assert auroc(roc) == pytest.approx(roc_auc_score(label, logit), abs=1e-12)
    for target in (1e-2, 1e-3, 0.3):
        assert tpr_at_fpr(roc, target).value == pytest.approx(tpr[fpr <= target].max(), abs=1e-15)
    assert fpr_at_tpr(roc, 0.85).value == pytest.approx(fpr[tpr >= 0.85].min(), abs=1e-15)


def test_tied_logits_pass_or_fail_together():
    # A saturated epoch: half the positives share their logit with one negative of a hundred.
    label = np.r_[np.ones(10, int), np.zeros(100, int)]
    logit = np.r_[np.full(5, 9.0), np.full(5, 7.0), 7.0, np.full(99, -9.0)].astype(np.float32)
    for order in (np.arange(110), np.arange(110)[::-1], np.random.default_rng(0).permutation(110)):
        roc = roc_curve(logit[order], label[order])
        assert tpr_at_fpr(roc, 1e-3).value == 0.5  # the tie is not broken in the positives' favour
        assert tpr_at_fpr(roc, 1e-2).value == 1.0
        assert auroc(roc) == pytest.approx((5 * 100 + 5 * 99.5) / 1000)


def test_all_logits_equal_is_chance():
    roc = roc_curve(np.zeros(8, np.float32), [0, 1] * 4)
    assert auroc(roc) == 0.5
    assert tpr_at_fpr(roc, 1e-2).value == 0.0
    assert fpr_at_tpr(roc).value == 1.0


def test_neighbouring_float32_logits_are_told_apart_where_probabilities_are_not():
    logit = np.array([20.0, np.nextafter(np.float32(20), np.float32(21))], np.float32)
    assert (1 / (1 + np.exp(-logit)))[0] == (1 / (1 + np.exp(-logit)))[1] == 1.0
    assert auroc(roc_curve(logit, [0, 1])) == 1.0


@pytest.mark.parametrize("n", [100, 300, 1_000, 3_000])
def test_a_rate_of_exactly_the_target_is_within_it(n):
    # 1 % of n negatives lie above the only positive; floating-point products must not lose one.
    logit = np.r_[np.full(n // 100, 2.0), 1.0, np.zeros(n - n // 100)]
    label = np.r_[np.zeros(n // 100, int), 1, np.zeros(n - n // 100, int)]
    assert tpr_at_fpr(roc_curve(logit, label), 0.01).value == 1.0


def test_perfect_separation_is_stated_with_its_uncertainty():
    roc = roc_curve(np.r_[np.ones(50), np.zeros(200)], np.r_[np.ones(50, int), np.zeros(200, int)])
    low, high = auroc_interval(roc)
    assert auroc(roc) == high == 1.0
    assert low == pytest.approx(0.025 ** (1 / 50))
    assert fpr_at_tpr(roc).fpr_high == pytest.approx(1 - 0.025 ** (1 / 200))


@pytest.mark.parametrize(
    ("n", "fpr", "resolved"),
    [
        (300_000, 1e-4, True),
        (299_000, 1e-4, False),
        (30_000, 1e-3, True),
        (29_900, 1e-3, False),
        (3_000, 1e-2, True),
    ],
)
def test_a_figure_is_unresolved_where_its_negatives_cannot_carry_it(n, fpr, resolved):
    logit = np.r_[np.linspace(0, 1, n), np.linspace(0.5, 1.5, 400)]
    roc = roc_curve(logit, np.r_[np.zeros(n, int), np.ones(400, int)])
    point = tpr_at_fpr(roc, fpr)
    assert point.resolved is resolved
    assert point.false_positives == int(fpr * n + 1e-9)
    assert point.low < point.value < point.high


def test_the_width_of_the_fpr_interval_is_the_published_one():
    n = np.array([10_000, 100_000, 300_000, 1_000_000])
    low, high = clopper_pearson(1e-4 * n, n)
    np.testing.assert_allclose(high / low, [220, 3.8, 2.1, 1.5], rtol=0.02)


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(4)
    truth = {
        "tpr": 1 - ndtr(ndtri(0.99) - 2),
        "fpr": 1 - ndtr(ndtri(0.15) + 2),
        "auroc": ndtr(2 / np.sqrt(2)),
    }
    hits = dict.fromkeys(truth, 0)
    trials = 300
    for _ in range(trials):
        roc = roc_curve(*binormal(rng, 300, 3_000))
        bounds = {"auroc": auroc_interval(roc)}
        for name, point in (("tpr", tpr_at_fpr(roc, 0.01)), ("fpr", fpr_at_tpr(roc, 0.85))):
            bounds[name] = (point.low, point.high)
        for name, (low, high) in bounds.items():
            hits[name] += low <= truth[name] <= high
    for name, count in hits.items():
        assert 0.91 <= count / trials <= 0.995, (name, count / trials)


def test_the_area_interval_is_delongs_with_ties_counted_half():
    logit, label = binormal(np.random.default_rng(3), 40, 60, decimals=0)
    wins = np.sign(logit[label == 1][:, None] - logit[label == 0][None, :]) / 2 + 0.5
    area = wins.mean()
    variance = wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 60
    half = 1.959964 * np.sqrt(variance) / (area * (1 - area))
    low, high = auroc_interval(roc_curve(logit, label))
    assert np.log(high / (1 - high)) - np.log(low / (1 - low)) == pytest.approx(2 * half, rel=1e-6)


def test_wilson_and_clopper_pearson_agree_with_scipy():
    for k, n in ((0, 12), (3, 12), (12, 12), (1, 1), (40, 65_090)):
        for function, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
            expected = binomtest(k, n).proportion_ci(0.95, method=method)
            np.testing.assert_allclose(function(k, n), expected, atol=1e-12)
    assert np.isnan(wilson([0], [0])).all()
    with pytest.raises(ValueError, match="1 of 2 rates"):
        wilson([1, 3], [2, 2])


@pytest.mark.parametrize(
    ("area", "prevalence", "expected"),
    [(0.98, 0.5, 0.45), (0.995, 0.5, 0.71), (0.98, 1 / 31, 0.83), (0.995, 1 / 31, 0.91)],
)
def test_calibrated_binary_score_frac_is_the_published_one(area, prevalence, expected):
    assert calibrated_binary_score_frac(area, prevalence) == pytest.approx(expected, abs=0.005)


def test_a_calibrated_model_has_the_calibrated_binary_score_frac():
    rng = np.random.default_rng(5)
    d, prevalence = 3.0, 0.2
    label = rng.random(200_000) < prevalence
    logit = rng.normal(np.where(label, d * d / 2, -d * d / 2), d) + np.log(prevalence / (1 - prevalence))
    area = auroc(roc_curve(logit, label))
    assert binary_score_frac(logit) == pytest.approx(
        calibrated_binary_score_frac(area, prevalence), abs=0.005
    )
    assert binary_score_frac(np.array([4.6, -4.6, 4.5, 0.0])) == 0.5


def test_calibrated_binary_score_frac_at_the_ends():
    assert calibrated_binary_score_frac(1.0, 0.5) == 1.0
    assert calibrated_binary_score_frac(0.5, 0.5) == calibrated_binary_score_frac(0.0, 0.5) == 0.0
    assert calibrated_binary_score_frac(0.5, 0.001) == 1.0  # always sure of "no"
    with pytest.raises(MetricsError, match="prevalence 1"):
        calibrated_binary_score_frac(0.9, 1)


@pytest.mark.parametrize(
    ("logit", "label", "message"),
    [
        ([], [], "0 rows"),
        ([1.0, 2.0], [1, 1], "one class only: 2 positives and 0 negatives"),
        ([1.0, np.nan, np.inf], [1, 0, 0], "2 of 3 logits are NaN or infinite"),
        ([1.0, 2.0], [1, 2], "expected 0"),
        ([1.0], [1, 0], "shape"),
        (np.array([1.0, 2.0], np.float16), [1, 0], "float16"),
    ],
)
def test_scores_that_carry_no_figure_are_refused_with_the_reason(logit, label, message):
    with pytest.raises(MetricsError, match=message):
        summarise(logit, label)


def test_summary_names_what_is_unresolved_and_is_json_ready():
    import json

    logit, label = binormal(np.random.default_rng(6), 400, 4_000)
    figures = json.loads(json.dumps(summarise(logit, label)))
    assert figures["n_negatives"] == 4_000
    assert figures["unresolved"] == ["tpr@lowfpr", "tpr@fpr1e-3", "tpr@fpr1e-4"]
    assert figures["tpr@fpr1e-2_low"] < figures["tpr@fpr1e-2"] < figures["tpr@fpr1e-2_high"]
    assert figures["auroc_low"] < figures["auroc"] < figures["auroc_high"]
    assert [fpr_name(x) for x in (1e-2, 1e-4, 5e-5)] == ["tpr@fpr1e-2", "tpr@fpr1e-4", "tpr@fpr5e-5"]


def test_one_row_of_each_class_gives_figures_and_says_they_are_unresolved():
    figures = summarise(np.array([1.0, 0.0]), np.array([1, 0]))
    assert figures["auroc"] == 1.0
    assert figures["auroc_low"] < 0.1
    assert len(figures["unresolved"]) == 5


def test_the_mean_over_low_rates_is_steadier_than_one_rate_and_orders_models():
    rng = np.random.default_rng(8)
    draws = {d: [roc_curve(*binormal(rng, 300, 3_000, d)) for _ in range(40)] for d in (2.5, 2.8)}
    means = {d: np.array([mean_tpr(roc)[0] for roc in rocs]) for d, rocs in draws.items()}
    points = {d: np.array([tpr_at_fpr(roc, 1e-3).value for roc in rocs]) for d, rocs in draws.items()}

    def steadiness(v):
        return (v[2.8].mean() - v[2.5].mean()) / v[2.5].std()

    assert steadiness(means) > 1.2 * steadiness(points)
    value, low, high = mean_tpr(draws[2.5][0])
    assert low < value < high
    curve = draws[2.5][0]
    by_hand = [curve.tpr[curve.at_fpr(f)] for f in np.geomspace(1 / 3_000, 1e-2, 25)]
    assert value == pytest.approx(np.mean(by_hand))
