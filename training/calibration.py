"""Whether scores are probabilities: the share of sure ones, beside what a calibrated model would have."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from training.roc import MetricsError

_SURE = 0.99  # a score is "binary" where the probability is beyond this or below its complement


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
