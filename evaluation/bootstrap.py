"""Intervals by resampling whole sky cells: hosts of one cell share seeing, depth and large-scale structure.

Rows of one cell are not independent, so row-wise intervals are too narrow. Here the cells of the test set are
drawn with replacement; both classes, and with them the threshold at a given FPR, are drawn anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.stats.intervals import CONFIDENCE
from training.roc import Roc, check_scores

MIN_CELLS = 20
"""Cells below which percentiles of resampled cells are known to be too narrow to be called an interval."""


@dataclass(frozen=True)
class CellBootstrap:
    """Resampled statistics.

    Attributes:
        values: (resample, statistic) float64; resamples that lacked a class are left out.
        n_resamples: how many were drawn.
        n_cells: sky cells they were drawn from.
    """

    values: np.ndarray
    n_resamples: int
    n_cells: int

    @property
    def n_one_class(self) -> int:
        """Resamples left out because every row was of one class."""
        return self.n_resamples - len(self.values)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
        """Return the percentile interval of each statistic, NaN with fewer than two cells."""
        if self.n_cells < 2 or not len(self.values):
            empty = np.full(self.values.shape[1], np.nan)
            return empty, empty
        tail = (1 - confidence) / 2
        low, high = np.quantile(self.values, [tail, 1 - tail], axis=0)
        return low, high


def resample_cells(
    logit: ArrayLike,
    label: ArrayLike,
    cell: ArrayLike,
    statistic: Callable[[Roc], np.ndarray],
    n_resamples: int = 1_000,
    seed: int = 0,
) -> CellBootstrap:
    """Evaluate `statistic` on ROC curves of resampled sky cells.

    The rows are sorted once; a resample only weighs them by how often their cell was drawn.

    Args:
        logit: (n,) float32 or better.
        label: (n,) 0 or 1.
        cell: (n,) sky cell of each row.
        statistic: curve -> (k,) figures, which may use its rates and counts but not its thresholds: points on
            a straight line between others are left out.
        n_resamples: number of resamples.
        seed: of the draws, which depend on it and on the number of cells only.

    Raises:
        MetricsError: see `training.metrics.check_scores`.
    """
    logit, label = check_scores(logit, label)
    order = np.argsort(logit)[::-1]
    logit, label = logit[order], label[order]
    starts = _segments(logit, label)
    threshold = np.concatenate([[np.inf], logit[np.append(starts[1:], logit.size) - 1]])
    cells, index = np.unique(np.asarray(cell)[order], return_inverse=True)
    positive = label.astype(np.int32)

    def curve(weight: np.ndarray) -> Roc:
        false, true = (_cumulated(of_class * weight, starts) for of_class in (1 - positive, positive))
        return Roc(threshold, false, true)

    width = len(statistic(curve(np.ones_like(positive))))
    resampled = (curve(draw.astype(np.int32)[index]) for draw in _cell_counts(len(cells), n_resamples, seed))
    values = [statistic(roc) for roc in resampled if roc.n_positives and roc.n_negatives]
    return CellBootstrap(np.reshape(values, (len(values), width)), n_resamples, len(cells))


def _segments(logit: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return where the segments of a ROC curve start: rows of equal logit, or a run of rows of one class.

    Points inside a run lie on a straight line between its ends, whatever the rows weigh: leaving them out
    changes no figure and makes a resample several times faster.
    """
    groups = np.concatenate([[0], np.flatnonzero(np.diff(logit)) + 1])
    n = np.diff(np.append(groups, logit.size))
    positives = np.add.reduceat(label.astype(np.int64), groups)
    kind = np.where(positives == 0, 0, np.where(positives == n, 1, 2))
    first = np.concatenate([[True], (kind[1:] != kind[:-1]) | (kind[1:] == 2)])
    return groups[first]


def _cumulated(weight: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.add.reduceat(weight, starts), dtype=np.int64)])


def _cell_counts(n_cells: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each of `n_cells` cells was drawn in `n_cells` draws with replacement."""
    for number in range(n_resamples):
        drawn = uniforms([digest("cell bootstrap", seed, number)], stream=0, count=n_cells)[0]
        yield np.bincount((drawn * n_cells).astype(np.int64), minlength=n_cells)
