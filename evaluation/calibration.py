"""Scores as probabilities: fits on a calibration split, and whether probabilities hold on another one.

`darkhaloscope.stats.calibration` says what a fit means and carries it to another share of lenses. Formulas only:
`evaluation.calibrate` reads, fits and stores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from darkhaloscope.stats.calibration import Temperature
from darkhaloscope.stats.intervals import wilson
from training.roc import MetricsError, check_scores

N_BINS = 15
"""Bins of a reliability diagram, of equally many rows."""

_LEAST_SLOPE = 1e-3  # log odds a standard deviation of the logits: an AUROC of 0.5003


@dataclass(frozen=True)
class Isotonic:
    """Probability as a rising staircase with ramps between `logit` (k,) -> `value` (k,): Zadrozny & Elkan 2002 (KDD).

    It fits any shape, but ties scores: rank by logits, never by it.
    """

    logit: tuple[float, ...]
    value: tuple[float, ...]

    def probability(self, logit: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities, (n,) float64; beyond the fit's ends those of the ends."""
        return np.interp(np.asarray(logit, np.float64), self.logit, self.value)


def fit_temperature(logit: ArrayLike, label: ArrayLike) -> Temperature:
    """Fit by maximum likelihood; separable classes end at a tiny temperature rather than at none.

    Targets are Platt's (1999): (n+ + 1) / (n+ + 2) for lenses and 1 / (n- + 2) for others, so that a fit to few
    rows, or to rows that separate, is never surer than they allow.

    Args:
        logit: (n,) float32 or better.
        label: (n,) 0 or 1.

    Raises:
        MetricsError: see `training.roc.check_scores`; also logits that do not rank lenses above others.
    """
    logit, label = check_scores(logit, label)
    x, m = logit.astype(np.float64), int(label.sum())
    target = np.where(label, (m + 1) / (m + 2), 1 / (len(label) - m + 2))
    centre, scale = x.mean(), x.std()
    z = (x - centre) / (scale or 1.0)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        t = free[0] * z + free[1]
        error = expit(t) - target
        return float(np.mean(np.logaddexp(0, t) - target * t)), np.array([np.mean(error * z), np.mean(error)])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    if slope <= _LEAST_SLOPE or scale == 0:
        raise MetricsError(
            "logits do not rank lenses above others, or are all equal: there is nothing to "
            "calibrate; look at the AUROC and at whether labels and checkpoint belong together"
        )
    return Temperature(float(scale / slope), float(offset - slope * centre / scale))


def fit_isotonic(logit: ArrayLike, label: ArrayLike) -> Isotonic:
    """Fit a rising curve of probability by least squares; arguments and errors as `fit_temperature`."""
    logit, label = check_scores(logit, label)
    fit = IsotonicRegression(out_of_bounds="clip").fit(logit.astype(np.float64), label.astype(np.float64))
    return Isotonic(tuple(fit.X_thresholds_.tolist()), tuple(fit.y_thresholds_.tolist()))


def reliability(probability: ArrayLike, label: ArrayLike, n_bins: int = N_BINS) -> dict[str, Any]:
    """Return the reliability diagram in bins of equally many rows, and the adaptive calibration error.

    Equal probabilities share a bin. The error is the mean distance between predicted and observed share, weighted by
    rows (Nixon et al. 2019, CVPR workshops, arXiv:1904.01685). Finite bins make it positive even for a perfect model:
    `ece_if_calibrated` is what this one would have on average.

    Args:
        probability: (n,) 0 to 1.
        label: (n,) 0 or 1.
        n_bins: bins, fewer where probabilities tie.

    Returns:
        {"ece", "ece_if_calibrated", "bins": [{"predicted", "observed", "low", "high", "n"}, ...]}.

    Raises:
        MetricsError: no rows, or probabilities that are NaN or outside 0 to 1.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(label, np.float64)
    if not p.size or p.shape != y.shape or not np.all((p >= 0) & (p <= 1)):
        raise MetricsError(
            f"reliability of {p.size} probabilities and {y.size} labels: expected as many, 0 to 1"
        )
    edges = np.unique(np.sort(p)[(np.arange(1, n_bins) * p.size) // n_bins])
    index = np.searchsorted(edges, p, side="right")
    n = np.bincount(index, minlength=len(edges) + 1)
    used = np.flatnonzero(n)
    n, predicted, hits, spread = (
        np.bincount(index, w, minlength=len(edges) + 1)[used] for w in (None, p, y, p * (1 - p))
    )
    predicted, observed = predicted / n, hits / n
    low, high = wilson(hits, n)
    noise = np.sqrt(2 / np.pi * spread) / n  # mean of |normal| with the bin's binomial variance
    columns = {"predicted": predicted, "observed": observed, "low": low, "high": high, "n": n.astype(int)}
    return {
        "ece": float(np.average(np.abs(predicted - observed), weights=n)),
        "ece_if_calibrated": float(np.average(noise, weights=n)),
        "bins": [
            dict(zip(columns, row, strict=True))
            for row in zip(*(v.tolist() for v in columns.values()), strict=True)
        ],
    }
