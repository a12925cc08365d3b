"""Resampled sky cells: by hand, against analytic intervals, and where classes are missing."""

import numpy as np

from evaluation.bootstrap import _cell_counts, resample_cells
from training.roc import auroc, auroc_interval, roc_curve


def test_resampled_cells_give_wider_intervals_where_cells_differ():
    rng = np.random.default_rng(2)
    cell = np.repeat(np.arange(40), 100)
    label = np.tile([0, 1], 2_000)
    shift = rng.normal(0, 1.0, 40)[cell]  # a cell's seeing makes all its injections easy or hard
    logit = rng.normal(size=4_000) + label * (2 + shift)
    widths = []
    for groups in (cell, np.arange(4_000)):
        low, high = resample_cells(logit, label, groups, lambda r: np.array([auroc(r)]), 200).interval()
        widths.append((high - low)[0])
    assert widths[0] > 2 * widths[1]


def test_resampled_rows_agree_with_the_analytic_interval_and_repeat_exactly():
    rng = np.random.default_rng(3)
    label = rng.random(2_000) < 0.4
    logit = (rng.normal(size=2_000) + 1.5 * label).round(1)
    runs = [
        resample_cells(logit, label, np.arange(2_000), lambda r: np.array([auroc(r)]), 400, seed)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0].values, runs[1].values)
    assert not np.array_equal(runs[0].values, runs[2].values)
    np.testing.assert_allclose(
        np.ravel(runs[0].interval()), auroc_interval(roc_curve(logit, label)), atol=0.003
    )


def test_a_resample_is_the_rows_of_the_drawn_cells_repeated():
    rng = np.random.default_rng(5)
    cell, label = rng.integers(100, 112, 300), rng.integers(0, 2, 300)
    logit = (rng.normal(size=300) + label + (cell - 106) / 4).round(1)

    def statistic(roc):
        return np.array([auroc(roc), roc.n_positives, roc.n_negatives, roc.tpr[roc.at_fpr(0.1)]])

    found = resample_cells(logit, label, cell, statistic, 20, seed=3).values
    cells = np.unique(cell)
    for values, counts in zip(found, _cell_counts(len(cells), 20, 3), strict=True):
        rows = np.repeat(np.arange(300), counts[np.searchsorted(cells, cell)])
        np.testing.assert_allclose(values, statistic(roc_curve(logit[rows], label[rows])))


def test_resamples_without_both_classes_are_counted():
    # Two cells, one class each: half of the resamples draw one cell twice.
    result = resample_cells(
        [2.0, 1.0, 0.0, 0.5], [1, 1, 0, 0], [7, 7, 9, 9], lambda r: np.array([auroc(r)]), 400
    )
    assert 150 < result.n_one_class < 250
    assert np.all(result.values == 1.0)
