"""Intervals of rates whose trials come in clusters, as injections share hosts."""

import numpy as np
import pytest

from darkhaloscope.stats.intervals import cluster_sums, clustered, effective_trials, wilson


def sums_of(n, k):
    """CLUSTER_SUMS of clusters along the last axis."""
    n, k = np.asarray(n), np.asarray(k)
    return np.stack(
        [n.sum(-1), k.sum(-1), (n > 0).sum(-1), (n * n).sum(-1), (n * k).sum(-1), (k * k).sum(-1)], -1
    )


@pytest.mark.parametrize("confidence", [0.68, 0.95])
def test_clusters_of_one_trial_give_wilsons_interval_to_the_last_bit(confidence):
    n = np.array([1, 2, 3, 7, 49, 1_000_003])
    for k in (0 * n, n // 3, n // 2, n - 1, n):
        sums = np.stack([n, k, n, n, k, k], axis=-1)
        np.testing.assert_array_equal(clustered(sums, confidence), wilson(k, n, confidence))


def test_the_design_effect_is_the_variance_between_clusters_over_the_binomial_one():
    n, k = np.array([4, 6, 10, 5, 5, 8]), np.array([4, 2, 9, 1, 5, 3])
    p = k.sum() / n.sum()
    between = len(n) * np.var(k - p * n, ddof=1) / n.sum() ** 2
    t = 2.0261924630 / 2.5705818356  # Student's t at 0.975 with 37 and with 5 degrees of freedom
    expected = n.sum() / (between / (p * (1 - p) / (n.sum() - 1))) * t**2
    assert effective_trials(sums_of(n, k)) == pytest.approx(expected, rel=1e-9)
    assert (n.sum() ** 2 / (n**2).sum()) < expected < n.sum(), "neither bound is what is tested"


def test_the_interval_covers_where_trials_of_a_cluster_are_alike_and_wilsons_does_not():
    rng = np.random.default_rng(0)
    p, alike, clusters, draws = 0.7, 0.2, 30, 4_000
    n = rng.integers(1, 40, (draws, clusters))  # beta-binomial: two trials of a cluster correlate by `alike`
    k = rng.binomial(n, rng.beta(p * (1 / alike - 1), (1 - p) * (1 / alike - 1), (draws, clusters)))
    sums = sums_of(n, k)
    covered = [
        np.mean((low <= p) & (p <= high)) for low, high in (clustered(sums), wilson(sums[:, 1], sums[:, 0]))
    ]
    assert 0.93 < covered[0] < 0.965 and covered[1] < 0.65


def test_where_trials_of_a_cluster_are_independent_the_interval_is_hardly_wider():
    rng = np.random.default_rng(1)
    n = np.full((2_000, 60), 10)
    sums = sums_of(n, rng.binomial(n, 0.4))
    low, high = clustered(sums)
    plain = wilson(sums[:, 1], sums[:, 0])
    assert np.mean((low <= 0.4) & (high >= 0.4)) > 0.945
    assert 1.0 <= np.mean(high - low) / np.mean(plain[1] - plain[0]) < 1.1


@pytest.mark.parametrize(
    ("n", "k"), [([5, 5, 5, 5], [0, 0, 0, 0]), ([5, 5, 5, 5], [5, 5, 5, 5]), ([20], [7])]
)
def test_without_a_variance_to_be_had_the_clusters_are_the_trials(n, k):
    share = sum(k) / sum(n)
    np.testing.assert_allclose(clustered(sums_of(n, k)), wilson(share * len(n), len(n)), rtol=1e-12)


def test_fewer_say_no_more_than_all_trials_and_no_less_than_clusters_that_are_one_trial_each():
    assert effective_trials(sums_of([2, 2, 2], [1, 1, 1])) == 6, "more alike between clusters than by chance"
    assert effective_trials(sums_of([9, 9, 9], [9, 0, 9])) == 3
    assert effective_trials(sums_of([9, 1], [9, 0])) == pytest.approx(100 / 82)
    assert np.isnan(clustered(np.zeros((2, 6)))).all()


def test_sums_are_those_of_a_plain_loop_and_parts_without_a_common_cluster_add_up():
    rng = np.random.default_rng(2)
    bins, cluster = rng.integers(-1, 4, 300), np.sort(rng.integers(0, 40, 300)) << 40
    success = rng.random(300) < 0.3
    expected = [
        sums_of(*zip(*((sum(here), sum(success[here])) for c in set(cluster)
                       if any(here := (bins == b) & (cluster == c))), strict=True))
        for b in range(4)
    ]  # fmt: skip
    made = cluster_sums(bins, cluster, success, 5)
    np.testing.assert_array_equal(made[:4], expected)
    assert made.dtype == np.int64 and not made[4].any()
    middle = np.searchsorted(cluster, cluster[150])
    parts = [
        cluster_sums(bins[s], cluster[s], success[s], 5)
        for s in (slice(middle), slice(middle, None), slice(0))
    ]
    np.testing.assert_array_equal(sum(parts), made)
