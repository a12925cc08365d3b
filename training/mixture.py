"""The mixture of an epoch: how often it shows each row, by what the row is.

Weights are showings an epoch: 5 shows every row of a kind five times, 0.25 each row in one epoch of four, by
turns. The number of rows that an epoch shows is the same for every epoch, and which they are is a function of
(seed, epoch) alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.records import SAMPLES
from darkhaloscope.sections import Training
from training.order import in_turns, visit_order
from training.selection import POSITIVE, DataError
from training.shards import Shards

_START, _VISITS = 2, 3  # streams of draws
_BLOCK = 4_096  # row groups planned at a time
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Mixture:
    """How often an epoch shows a row of each kind.

    Attributes:
        weights: showings an epoch, in the order of `records.SAMPLES`.
        negatives_per_positive: 0: as the weights give it; else the weights of the class in surplus are
            lowered until an epoch shows this many negatives for each positive.
    """

    weights: tuple[float, ...] = (1.0,) * len(SAMPLES)
    negatives_per_positive: float = 0.0


def mixture_of(config: Training) -> Mixture:
    """Return the mixture that a config asks for."""
    weights = tuple(
        config.hard_neg_weight if kind == "hard_negative" else getattr(config, f"{kind}_weight")
        for kind in SAMPLES
    )
    return Mixture(weights, config.negatives_per_positive)


def showings(mixture: Mixture, rows: np.ndarray, where: str) -> np.ndarray:
    """Return how many rows of each kind an epoch shows, repeats counted.

    Args:
        mixture: weights, and the ratio they are brought to.
        rows: (kind,) rows there are.
        where: dataset, for messages.

    Raises:
        DataError: a negative weight, or nothing of one class is left.
    """
    weights = np.array(mixture.weights)
    if (weights < 0).any() or mixture.negatives_per_positive < 0:
        raise DataError(f"{mixture}: weights and ratio must be 0 or more")
    shown = weights * rows
    positives, negatives = shown[POSITIVE].sum(), shown[~POSITIVE].sum()
    if mixture.negatives_per_positive and positives and negatives:
        surplus = negatives / (positives * mixture.negatives_per_positive)
        shown[~POSITIVE if surplus > 1 else POSITIVE] *= min(surplus, 1 / surplus)
    shown = np.rint(shown).astype(np.int64)
    if not shown[POSITIVE].sum() or not shown[~POSITIVE].sum():
        there = ", ".join(f"{n:,} {k} x {w:g}" for k, n, w in zip(SAMPLES, rows, weights, strict=True))
        raise DataError(
            f"{where}: an epoch would show {shown[POSITIVE].sum()} positives and {shown[~POSITIVE].sum()} "
            f"negatives: {there}; training needs both: raise a weight or add data"
        )
    return shown


def _rank(ordinal: np.ndarray, rows: int, seed: int, kind: int) -> np.ndarray:
    """Return 0 to rows - 1 for the rows of a kind, neighbours far apart, (n,) int64.

    A golden-ratio (Weyl) sequence: every row group then gives up the same share of its rows.
    """
    step = max(1, round(rows * _GOLDEN))
    while math.gcd(step, rows) > 1:
        step += 1
    start = int(uniforms([digest(seed, kind)], _START, 1)[0, 0] * rows)
    return (ordinal * step + start) % rows


def counts(
    kind: np.ndarray, before: np.ndarray, rows: np.ndarray, shown: np.ndarray, seed: int, epoch: int
) -> np.ndarray:
    """Return how often an epoch shows each of some rows, (n,) int16.

    Args:
        kind: (n,) kind of each row.
        before: (kind,) rows of each kind in front of these.
        rows: (kind,) rows of each kind in all.
        shown: (kind,) rows of each kind that the epoch is to show.
        seed: of which rows come when.
        epoch: number of the epoch.
    """
    count = np.zeros(len(kind), np.int16)
    for k in np.unique(kind):
        of_kind = np.flatnonzero(kind == k)
        rank = _rank(before[k] + np.arange(len(of_kind)), int(rows[k]), seed, int(k))
        count[of_kind] = in_turns(epoch, shown[k], rows[k], rank)
    return count


@dataclass(frozen=True)
class Visits:
    """The visits of an epoch, and which rows each of them shows.

    Attributes:
        order: (visit, 2) row group and number of the visit to it, in the order of the epoch.
        sizes: (visit,) rows shown.
        first: (group + 1,) first row of each group.
        times: (group,) visits to it.
        count: (row,) int16 showings of each row; None: each is shown once.
        phase: (row,) int16: which of the visits to its group are its own.
    """

    order: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    times: np.ndarray
    count: np.ndarray | None = None
    phase: np.ndarray | None = None

    def rows(self, visit: int) -> np.ndarray:
        """Return the rows that a visit shows, as positions among its group's, increasing."""
        group, number = self.order[visit]
        own = slice(*self.first[group : group + 2])
        if self.count is None or self.phase is None:
            return np.arange(own.stop - own.start)
        return np.flatnonzero(in_turns(number, self.count[own], self.times[group], self.phase[own]))


def plan_visits(shards: Shards, shown: np.ndarray, place: np.ndarray, seed: int, epoch: int) -> Visits:
    """Plan an epoch.

    Args:
        shards: the rows there are.
        shown: (kind,) from `showings`.
        place: (group,) where in the epoch, 0 to 1, each row group comes first.
        seed: of the draws.
        epoch: number of the epoch.
    """
    first, groups = shards.first, len(shards.rows)
    if (shown == shards.kind_rows).all():
        times = np.ones(groups, np.int64)
        order = visit_order(place, times)
        return Visits(order, shards.rows[order[:, 0]], first, times)
    count, phase = np.empty(first[-1], np.int16), np.empty(first[-1], np.int16)
    times, sizes = np.empty(groups, np.int64), []  # sizes: (visits to the group,) of each group
    before = np.zeros(len(SAMPLES), np.int64)
    for start in range(0, groups, _BLOCK):  # by blocks, for the memory of it
        edge = first[start : start + _BLOCK + 1]
        rows = slice(edge[0], edge[-1])
        kind = shards.kind[rows]
        count[rows] = counts(kind, before, shards.kind_rows, shown, seed, epoch)
        before += np.bincount(kind, minlength=len(SAMPLES))
        times[start : start + _BLOCK] = most = np.maximum.reduceat(count[rows], edge[:-1] - edge[0])
        each = np.repeat(most, np.diff(edge)).clip(1)
        draw = uniforms([digest(seed, epoch, start)], _VISITS, len(kind))[0]
        phase[rows] = np.minimum(draw * each, each - 1)
        by_visit = [
            np.add.reduceat(in_turns(v, count[rows], each, phase[rows]), edge[:-1] - edge[0])
            for v in range(most.max())
        ]
        sizes += [size[:m] for size, m in zip(np.stack(by_visit, 1), most, strict=True)] if by_visit else []
    order = visit_order(place, times)
    of_group = np.cumsum(times) - times
    return Visits(
        order, np.concatenate(sizes)[of_group[order[:, 0]] + order[:, 1]], first, times, count, phase
    )
