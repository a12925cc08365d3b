"""Noise of values of which some are no noise: the one place for the median absolute deviation."""

from __future__ import annotations

import numpy as np

MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def mad_sigma(values: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Return 1.4826 times the median absolute deviation from the median, in the unit of `values`.

    Args:
        values: any shape.
        axis: over which; all by default.
    """
    middle = np.median(values, axis=axis, keepdims=True)
    return MAD_TO_SIGMA * np.median(np.abs(values - middle), axis=axis)
