"""Effect sizes are what the book says."""

import numpy as np
import pytest

from darkhaloscope.stats.effects import cohens_d


def of(one: list[float], other: list[float]) -> tuple[float, float]:
    groups = [np.array(one), np.array(other)]
    return cohens_d([len(g) for g in groups], [g.mean() for g in groups], [g.var() for g in groups])


def test_d_is_the_difference_of_means_in_pooled_deviations():
    d, error = of([1.0, 3.0, 5.0], [0.0, 2.0, 4.0])
    assert d == pytest.approx(1 / 2)  # both have the sample deviation 2
    assert error == pytest.approx(np.sqrt(6 / 9 + 0.25 / 12))


def test_the_sign_is_that_of_the_first_group():
    assert of([0.0, 2.0], [1.0, 3.0])[0] < 0


def test_groups_that_do_not_vary_do_not_differ_by_rounding():
    assert of([1.0, 1.0, 1.0], [1.0, 1.0])[0] == 0


def test_the_error_is_the_scatter_of_d():
    rng = np.random.default_rng(1)
    found = [of(rng.normal(0.3, 1, 60).tolist(), rng.normal(0, 1, 90).tolist()) for _ in range(2_000)]
    d, error = np.array(found).T
    assert np.std(d) == pytest.approx(np.mean(error), rel=0.05)
