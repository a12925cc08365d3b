"""How far two groups are apart: the one place for effect sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cohens_d(n: Sequence[float], mean: Sequence[float], variance: Sequence[float]) -> tuple[float, float]:
    """Return the difference of two means in pooled standard deviations, and its standard error.

    Hedges & Olkin (1985, "Statistical Methods for Meta-Analysis", eq. 5.14 without the small-sample factor).

    Args:
        n, mean, variance: number, mean and variance (over n) of the first and the second group, at least three values
            in all.

    Returns:
        (first - second) / pooled deviation, and its error; 0 where neither group varies beyond rounding.
    """
    (n1, n2), (m1, m2) = n, mean
    spread = sum(k * max(float(v), 0.0) for k, v in zip(n, variance, strict=True))
    deviation = np.sqrt(spread / (n1 + n2 - 2))
    d = float((m1 - m2) / deviation) if deviation > 1e-6 * abs(m2) else 0.0
    return d, float(np.sqrt((n1 + n2) / (n1 * n2) + d**2 / (2 * (n1 + n2))))
