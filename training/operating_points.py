"""Points of a ROC curve that a survey works at, each with its interval and whether the rows can carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import bdtrik

from darkhaloscope.stats.intervals import CONFIDENCE, clopper_pearson, wilson
from training.roc import MetricsError, Roc

FPR_TARGETS = (1e-2, 1e-3, 1e-4)
"""False-positive rates at which the true-positive rate is quoted."""

TPR_TARGET = 0.85
"""True-positive rate at which the false-positive rate is quoted."""

MIN_EVENTS = 30
"""False positives a rate must rest on to be called resolved.

An exact 95 % interval of a rate of 30 events spans a factor 2.1; at FPR 1e-4 that takes 300,000 negatives, at
1e-3 30,000, at 1e-2 3,000.
"""

LOW_FPR = (1e-4, 1e-2)
"""False-positive rates over which `mean_tpr` averages; see there for few negatives."""

FEW = (0, 10)
"""False positives in the whole test set at which TPR0 and TPR10 are quoted."""

RARE_FPR = (1e-5, 1e-3)
"""False-positive rates over which the partial area is taken: where a survey of millions of galaxies works."""

PREVALENCES = (1e-2, 1e-3, 1e-4)
"""Shares of lenses among the galaxies looked at, for which the purity is quoted."""

_STEPS = 25  # of an average over log FPR: twelve a decade


@dataclass(frozen=True)
class OperatingPoint:
    """One point of a ROC curve: the asked-for rate, the figure, its interval, and what it rests on.

    Attributes:
        target: the rate that was asked for (an FPR, or a TPR).
        value: the other rate at the last threshold that keeps the target.
        low: lower 95 % bound of `value`, the threshold's own uncertainty included.
        high: upper 95 % bound of `value`.
        threshold: logit of the point.
        false_positives: negatives at or above it.
        fpr_low: exact 95 % lower bound of the FPR at this threshold.
        fpr_high: exact 95 % upper bound of the FPR at this threshold.
        n_negatives: negatives.
        n_positives: positives.
        resolved: False where fewer than `MIN_EVENTS` events carry the figure: quote it as unresolved.
    """

    target: float
    value: float
    low: float
    high: float
    threshold: float
    false_positives: int
    fpr_low: float
    fpr_high: float
    n_negatives: int
    n_positives: int
    resolved: bool


def tpr_at_fpr(roc: Roc, fpr: float) -> OperatingPoint:
    """Return the largest TPR whose FPR, on these negatives, does not exceed `fpr`.

    Its interval adds two uncertainties in quadrature: of the threshold (how many negatives lie above the true
    one is binomial in n_negatives and `fpr`), and Wilson's of the TPR at a given threshold. Rows are taken as
    independent; resample whole sky cells (evaluation.bootstrap) where hosts share seeing and depth.
    """
    n, m = roc.n_negatives, roc.n_positives
    i = roc.at_fpr(fpr)
    few, many = _binomial_range(n, fpr)
    # The threshold lies between the K-th and (K+1)-th negative, K in few .. many.
    least = roc.true_positives[roc.last_within(few - 1)] if few > 0 else 0
    most = roc.true_positives[roc.last_within(many)]
    bounds = _quadrature(roc.tpr[i], (least / m, most / m), wilson(roc.true_positives[i], m))
    return _point(roc, i, fpr, roc.tpr[i], bounds, fpr * n >= MIN_EVENTS - 1e-9)


def fpr_at_tpr(roc: Roc, tpr: float = TPR_TARGET) -> OperatingPoint:
    """Return the smallest FPR that keeps at least `tpr` of the positives.

    Its interval is built as that of `tpr_at_fpr`, with the exact one of the FPR at a given threshold.
    Resolved where at least `MIN_EVENTS` negatives pass, and as many positives are missed at `tpr`.
    """
    n, m = roc.n_negatives, roc.n_positives
    i = roc.at_tpr(tpr)
    few, many = _binomial_range(m, tpr)
    least = roc.fpr[max(int(np.searchsorted(roc.true_positives, few)) - 1, 0)]
    most = roc.fpr[min(int(np.searchsorted(roc.true_positives, many + 1)), len(roc.fpr) - 1)]
    bounds = _quadrature(roc.fpr[i], (least, most), clopper_pearson(roc.false_positives[i], n))
    resolved = roc.false_positives[i] >= MIN_EVENTS and (1 - tpr) * m >= MIN_EVENTS - 1e-9
    return _point(roc, i, tpr, roc.fpr[i], bounds, resolved)


def tpr_within(roc: Roc, false_positives: int) -> OperatingPoint:
    """Return the largest TPR with at most that many false positives among all negatives: TPR0, TPR10.

    Figures of the lens-finding challenge (Metcalf et al. 2019, A&A 625, A119), with "at most" as our reading of ten:
    they depend on how many negatives there are, and compare only where that is alike.
    Its interval is Wilson's at this threshold; resampled sky cells have the threshold's uncertainty in them too.
    Resolved where `false_positives` are at least `MIN_EVENTS`, so TPR0 and TPR10 never are.
    """
    n, m = roc.n_negatives, roc.n_positives
    i = roc.last_within(false_positives)
    low, high = wilson(roc.true_positives[i], m)
    bounds = float(low), float(high)
    return _point(roc, i, false_positives / n, roc.tpr[i], bounds, false_positives >= MIN_EVENTS)


def log_partial_area(roc: Roc, between: tuple[float, float] = RARE_FPR) -> float:
    """Return the mean TPR over log FPR between two rates: the partial area of the ROC on a log axis, 0 to 1.

    Exact for the curve as `at_fpr` reads it, a staircase that keeps each FPR. Below 1/n it is TPR0, since no rate
    between 0 and 1/n can be told from 0 with n negatives.
    """
    first, last = (roc.at_fpr(fpr) for fpr in between)
    edges = roc.false_positives[first + 1 : last + 1] / roc.n_negatives
    widths = np.diff(np.log(np.clip([between[0], *edges, between[1]], *between)))
    return float(roc.tpr[first : last + 1] @ widths / np.log(between[1] / between[0]))


def log_partial_area_interval(roc: Roc, between: tuple[float, float] = RARE_FPR) -> tuple[float, float]:
    """Return 95 % bounds of `log_partial_area`: the means of its points' bounds, as if they erred together."""
    return _mean_of_points(roc, *between)[1:]


def purity(tpr: float, fpr: float, prevalence: float) -> float | None:
    """Return the share of lenses among what passes, pi TPR / (pi TPR + (1 - pi) FPR); None where nothing does.

    Raises:
        MetricsError: a prevalence outside 0 to 1, ends excluded.
    """
    if not 0 < prevalence < 1:
        raise MetricsError(f"prevalence {prevalence}: expected a number between 0 and 1")
    lenses, others = prevalence * tpr, (1 - prevalence) * fpr
    return lenses / (lenses + others) if lenses + others > 0 else None


def _quadrature(value: float, *ranges: tuple[Any, Any]) -> tuple[float, float]:
    """Combine independent ranges around `value`: their distances from it are added in quadrature."""
    below = np.hypot.reduce([float(value - low) for low, _ in ranges])
    above = np.hypot.reduce([float(high - value) for _, high in ranges])
    return max(float(value - below), 0.0), min(float(value + above), 1.0)


def _binomial_range(n: int, rate: float) -> tuple[int, int]:
    """Return counts between which a binomial (n, rate) variable falls with at least 95 % probability."""
    tail = (1 - CONFIDENCE) / 2
    if not 0 < rate < 1:
        raise MetricsError(f"rate {rate}: expected a number between 0 and 1")
    # bdtrik answers NaN where even k = 0 exceeds the tail: then the lower end is 0.
    low, high = (bdtrik(p, n, rate) for p in (tail, 1 - tail))
    return (0 if np.isnan(low) else int(np.ceil(low - 1e-9))), (0 if np.isnan(high) else int(np.ceil(high)))


def _point(
    roc: Roc, i: int, target: float, value: float, bounds: tuple[float, float], resolved: Any
) -> OperatingPoint:
    false = int(roc.false_positives[i])
    fpr_low, fpr_high = clopper_pearson(false, roc.n_negatives)
    return OperatingPoint(
        target=target,
        value=float(value),
        low=bounds[0],
        high=bounds[1],
        threshold=float(roc.threshold[i]),
        false_positives=false,
        fpr_low=float(fpr_low),
        fpr_high=float(fpr_high),
        n_negatives=roc.n_negatives,
        n_positives=roc.n_positives,
        resolved=bool(resolved),
    )


def mean_tpr(roc: Roc) -> tuple[float, float, float]:
    """Return the mean TPR over log FPR in `LOW_FPR`, and bounds: what epochs are compared by.

    TPR at a single low FPR hangs on the handful of negatives above its threshold and jumps from epoch to epoch;
    the mean hangs on all of the most lens-like ones. With n negatives the lower end is at least 1/n (below it a
    curve has no point) and the upper at least 10/n. Bounds are the means of the points' bounds, as if they erred
    together, which they nearly do.
    """
    n = roc.n_negatives
    low, high = max(LOW_FPR[0], 1 / n), min(max(LOW_FPR[1], 10 / n), 0.5)
    return _mean_of_points(roc, min(low, high), high)


def _mean_of_points(roc: Roc, low: float, high: float) -> tuple[float, float, float]:
    """Return the mean over log FPR of TPR and of its bounds."""
    points = [tpr_at_fpr(roc, fpr) for fpr in np.geomspace(low, high, _STEPS)]
    return tuple(float(np.mean([getattr(p, k) for p in points])) for k in ("value", "low", "high"))  # type: ignore


def fpr_name(fpr: float) -> str:
    """Return the name a figure at this rate has in logs and tables: 1e-4 -> "tpr@fpr1e-4"."""
    mantissa, exponent = f"{fpr:.0e}".split("e")
    return f"tpr@fpr{mantissa}e{int(exponent)}"
