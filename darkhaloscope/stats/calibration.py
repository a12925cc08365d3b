"""Scores as probabilities: what a fitted calibration means, for any share of lenses.

A calibrated probability holds for the share of lenses among the rows it was fitted on; `at_prevalence` carries it to
another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.special import logit as log_odds

_CLOSEST = 1e-6  # probability nearest to 0 and 1 that has log odds: an isotonic fit gives both


@dataclass(frozen=True)
class Temperature:
    """calibrated logit = logit / temperature + bias: a temperature with a bias, since classes were mixed otherwise.

    Guo et al. 2017 (ICML, arXiv:1706.04599) scale the logits; with two classes and another share of lenses than in
    training the offset of Platt (1999) is needed too. Order is kept, so no ROC changes.
    """

    temperature: float
    bias: float

    def logits(self, logit: ArrayLike) -> np.ndarray:
        """Return calibrated logits, (n,) float64."""
        return np.asarray(logit, np.float64) / self.temperature + self.bias

    def probability(self, logit: ArrayLike) -> np.ndarray:
        """Return calibrated probabilities, (n,) float64."""
        return expit(self.logits(logit))


def at_prevalence(probability: ArrayLike, fitted: float, wanted: float) -> np.ndarray:
    """Return probabilities for another share of lenses than they were fitted at (Saerens et al. 2002, eq. 2.4).

    Args:
        probability: any shape; kept 1e-6 away from 0 and 1.
        fitted: share of lenses among the rows of the fit.
        wanted: share of lenses among the rows they are for.
    """
    odds = log_odds(np.clip(np.asarray(probability, np.float64), _CLOSEST, 1 - _CLOSEST))
    return expit(odds + log_odds(wanted) - log_odds(fitted))
