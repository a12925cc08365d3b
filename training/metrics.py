"""Figures of a binary classifier from its logits: ROC with ties grouped, and what can be read off it.

Everything is computed from integer counts at distinct logits, so equal logits share one point of the curve
and no order of the input can change a figure. A rate comes with an interval and, where the negatives are too
few to carry it, marked unresolved.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtrik, ndtri

from darkhaloscope.intervals import CONFIDENCE, clopper_pearson, wilson

__all__ = [
    "FPR_TARGETS",
    "MetricsError",
    "OperatingPoint",
    "Roc",
    "auroc",
    "auroc_interval",
    "binary_score_frac",
    "calibrated_binary_score_frac",
    "check_scores",
    "clopper_pearson",
    "fpr_at_tpr",
    "fpr_name",
    "roc_curve",
    "summarise",
    "tpr_at_fpr",
    "wilson",
]

FPR_TARGETS = (1e-2, 1e-3, 1e-4)
"""False-positive rates at which the true-positive rate is quoted."""

TPR_TARGET = 0.85
"""True-positive rate at which the false-positive rate is quoted."""

MIN_EVENTS = 30
"""False positives a rate must rest on to be called resolved.

An exact 95 % interval of a rate of 30 events spans a factor 2.1; at FPR 1e-4 that takes 300,000 negatives, at
1e-3 30,000, at 1e-2 3,000.
"""

_SURE = 0.99  # a score is "binary" where the probability is beyond this or below its complement


class MetricsError(ValueError):
    """Scores that no figure can be computed from; the message says what was found and expected."""


@dataclass(frozen=True)
class Roc:
    """A ROC curve as cumulative counts at distinct logits, highest first.

    Attributes:
        threshold: (n,) float64, falling; a row is called a lens where logit >= threshold. First is +inf.
        false_positives: (n,) negatives with logit >= threshold.
        true_positives: (n,) positives with logit >= threshold.
    """

    threshold: np.ndarray
    false_positives: np.ndarray
    true_positives: np.ndarray

    @property
    def n_negatives(self) -> int:
        """Number of negatives."""
        return int(self.false_positives[-1])

    @property
    def n_positives(self) -> int:
        """Number of positives."""
        return int(self.true_positives[-1])

    @property
    def fpr(self) -> np.ndarray:
        """False-positive rate of each point."""
        return self.false_positives / self.n_negatives

    @property
    def tpr(self) -> np.ndarray:
        """True-positive rate of each point."""
        return self.true_positives / self.n_positives

    def last_within(self, false_positives: float) -> int:
        """Return the index of the last point with at most that many false positives."""
        return int(np.searchsorted(self.false_positives, false_positives, side="right")) - 1

    def at_fpr(self, fpr: float) -> int:
        """Return the index of the last point whose FPR does not exceed `fpr`."""
        # 0.01 * 300 must allow 3 false positives, whatever its last bit.
        return self.last_within(fpr * self.n_negatives + 1e-9)

    def at_tpr(self, tpr: float) -> int:
        """Return the index of the first point whose TPR is at least `tpr`."""
        return int(np.searchsorted(self.true_positives, tpr * self.n_positives - 1e-9))


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


def check_scores(logit: ArrayLike, label: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (logit, label as bool), checked.

    Raises:
        MetricsError: no rows, different lengths, labels other than 0 and 1, one class only, logits that are
            NaN or infinite, or of half precision (whose ties have already destroyed the ranking).
    """
    logit, label = np.asarray(logit), np.asarray(label)
    if logit.ndim != 1 or logit.shape != label.shape:
        raise MetricsError(f"logits have shape {logit.shape}, labels {label.shape}; expected (n,) and (n,)")
    if logit.size == 0:
        raise MetricsError("no scores: 0 rows; expected at least one positive and one negative")
    if logit.dtype.kind == "f" and logit.dtype.itemsize < 4:
        raise MetricsError(f"logits are {logit.dtype}; rank float32 or better, made before any down-cast")
    if bad := int(np.sum(~np.isfinite(logit))):
        raise MetricsError(
            f"{bad} of {logit.size} logits are NaN or infinite; the model or its input is broken"
        )
    if not np.isin(label, (0, 1)).all():
        raise MetricsError(f"labels are {np.unique(label)[:8]}; expected 0 (not a lens) and 1 (lens)")
    label = label.astype(bool)
    if label.all() or not label.any():
        raise MetricsError(
            f"one class only: {label.sum()} positives and {(~label).sum()} negatives; a ROC needs both"
        )
    return logit, label


def roc_curve(logit: ArrayLike, label: ArrayLike) -> Roc:
    """Return the ROC curve; rows of equal logit enter at one point together.

    Args:
        logit: (n,) float32 or better.
        label: (n,) 0 or 1.

    Raises:
        MetricsError: see `check_scores`.
    """
    logit, label = check_scores(logit, label)
    order = np.argsort(logit)[::-1]
    logit, label = logit[order], label[order]
    ends = np.append(np.flatnonzero(np.diff(logit)), logit.size - 1)
    true = np.cumsum(label)[ends]
    return Roc(
        np.concatenate([[np.inf], logit[ends]]),
        np.concatenate([[0], ends + 1 - true]),
        np.concatenate([[0], true]),
    )


def auroc(roc: Roc) -> float:
    """Return the area under the curve: P(positive above negative) + half P(tie) (Mann-Whitney)."""
    return float(np.trapezoid(roc.true_positives, roc.false_positives) / (roc.n_positives * roc.n_negatives))


def auroc_interval(roc: Roc, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of the AUROC of independent rows (DeLong et al. 1988, Biometrics 44, 837).

    The normal interval is taken on the log-odds of the area, so that it stays inside 0 to 1. Where the
    classes separate completely the variance is 0 and says nothing; the exact bound for as many successes as
    the smaller class has rows stands in.
    """
    area = auroc(roc)
    positives, negatives = np.diff(roc.true_positives), np.diff(roc.false_positives)
    m, n = roc.n_positives, roc.n_negatives
    below = (n - roc.false_positives[1:] + negatives / 2) / n  # per positive: share of negatives it beats
    above = (roc.true_positives[:-1] + positives / 2) / m  # per negative: share of positives above it
    variance = (np.sum(positives * (below - area) ** 2) / max(m - 1, 1) / m) + (
        np.sum(negatives * (above - area) ** 2) / max(n - 1, 1) / n
    )
    if variance == 0 or not 0 < area < 1:
        k = round(area * min(m, n))
        low, high = clopper_pearson(k, min(m, n), confidence)
        return float(low), float(high)
    half = ndtri(0.5 + confidence / 2) * np.sqrt(variance) / (area * (1 - area))
    odds = np.log(area / (1 - area))
    return float(1 / (1 + np.exp(half - odds))), float(1 / (1 + np.exp(-half - odds)))


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


def binary_score_frac(logit: ArrayLike) -> float:
    """Return the share of rows whose probability is below 0.01 or above 0.99."""
    logit = np.asarray(logit)
    if logit.size == 0:
        raise MetricsError("binary_score_frac of 0 rows")
    return float(np.mean(np.abs(logit) > np.log(_SURE / (1 - _SURE))))


def calibrated_binary_score_frac(area: float, prevalence: float) -> float:
    """Return the `binary_score_frac` that a calibrated model of this AUROC and prevalence would have.

    Equal-variance binormal model: the log likelihood ratio is N(+-d^2/2, d^2) in the two classes, with
    AUROC = Phi(d / sqrt 2) (Green & Swets 1966); the calibrated logit adds the log odds of the prevalence.
    An area below 0.5 is taken as 0.5: no calibrated model ranks worse than chance.

    Raises:
        MetricsError: a prevalence outside 0 to 1, ends excluded.
    """
    if not 0 < prevalence < 1:
        raise MetricsError(f"prevalence {prevalence}: expected a number between 0 and 1")
    normal = NormalDist()
    if area >= 1:
        return 1.0
    sure, prior = np.log(_SURE / (1 - _SURE)), np.log(prevalence / (1 - prevalence))
    d = np.sqrt(2) * normal.inv_cdf(max(area, 0.5))
    if d < 1e-9:
        return float(abs(prior) > sure)
    share = 0.0
    for mean, weight in ((d * d / 2, prevalence), (-d * d / 2, 1 - prevalence)):
        above = 1 - normal.cdf((sure - prior - mean) / d)
        below = normal.cdf((-sure - prior - mean) / d)
        share += weight * (above + below)
    return float(share)


def fpr_name(fpr: float) -> str:
    """Return the name a figure at this rate has in logs and tables: 1e-4 -> "tpr@fpr1e-4"."""
    mantissa, exponent = f"{fpr:.0e}".split("e")
    return f"tpr@fpr{mantissa}e{int(exponent)}"


def summarise(logit: ArrayLike, label: ArrayLike) -> dict[str, Any]:
    """Return the figures of a validation pass as one flat, JSON-ready dict.

    Keys: `n_positives`, `n_negatives`, `auroc`, `tpr@fpr1e-2` (1e-3, 1e-4), `fpr@tpr0.85`, each with
    `_low` and `_high`; `binary_score_frac`, `binary_score_frac_calibrated`; `unresolved`, the names of the
    figures that too few rows carry.

    Raises:
        MetricsError: see `check_scores`.
    """
    roc = roc_curve(logit, label)
    area = auroc(roc)
    low, high = auroc_interval(roc)
    figures: dict[str, Any] = {"n_positives": roc.n_positives, "n_negatives": roc.n_negatives}
    figures |= {"auroc": area, "auroc_low": low, "auroc_high": high}
    points = {fpr_name(fpr): tpr_at_fpr(roc, fpr) for fpr in FPR_TARGETS}
    points[f"fpr@tpr{TPR_TARGET}"] = fpr_at_tpr(roc)
    for name, point in points.items():
        figures |= {name: point.value, f"{name}_low": point.low, f"{name}_high": point.high}
    prevalence = roc.n_positives / (roc.n_positives + roc.n_negatives)
    figures["binary_score_frac"] = binary_score_frac(logit)
    figures["binary_score_frac_calibrated"] = calibrated_binary_score_frac(area, prevalence)
    figures["unresolved"] = [name for name, point in points.items() if not point.resolved]
    return figures
