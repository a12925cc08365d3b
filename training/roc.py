"""The ROC curve of a binary classifier from its logits, with ties grouped, and the area under it.

Everything is computed from integer counts at distinct logits, so equal logits share one point of the curve
and no order of the input can change a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from darkhaloscope.errors import Explained
from darkhaloscope.stats.intervals import CONFIDENCE, clopper_pearson


class MetricsError(Explained, ValueError):
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
