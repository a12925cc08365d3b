"""Counts of a quantity that need no more memory for many rows than for few, and the quantiles they give."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Histogram:
    """Counts in equal bins, for quantiles to a bin's width; what lies beyond the range is in the end bins."""

    low: float
    high: float
    bins: int = 4000
    unit: str = ""
    counts: np.ndarray = field(init=False)
    unknown: int = 0
    extremes: tuple[float, float] = (np.inf, -np.inf)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.bins, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values; those that are not finite are unknown."""
        known = values[np.isfinite(values)]
        self.unknown += len(values) - len(known)
        if len(known):
            width = (self.high - self.low) or 1.0  # of one value only, all are in the first bin
            at = ((known - self.low) / width * self.bins).astype(np.int64)
            self.counts += np.bincount(at.clip(0, self.bins - 1), minlength=self.bins)
            self.extremes = (min(self.extremes[0], known.min()), max(self.extremes[1], known.max()))

    def quantile(self, share: float) -> float | None:
        """Return a quantile, to a bin's width; the extremes exactly; None where nothing was counted."""
        total = int(self.counts.sum())
        if not total:
            return None
        if share in (0.0, 1.0):
            return float(self.extremes[int(share)])
        bin_ = int(np.searchsorted(np.cumsum(self.counts), share * total))
        return self.low + (bin_ + 0.5) * (self.high - self.low) / self.bins
