"""Which rows of a search may end among its best: only of those are pixels kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Best:
    """The best logits of some rows of a search.

    Pixels are a hundred times the rest of a row. A task that knows what earlier ones found keeps few of them: of n rows
    in no order, about `most` (1 + ln(n / most)).

    Attributes:
        most: how many there are at most.
        known: no row below this logit is among the best of the whole search, as others found.
        logits: (k,) rising.
    """

    most: int
    known: float = -np.inf
    logits: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    @property
    def floor(self) -> float:
        """The logit below which no row can be among the best."""
        return max(self.known, float(self.logits[0]) if len(self.logits) == self.most else -np.inf)

    def with_rows(self, logits: np.ndarray) -> Best:
        """Return the best of these and of further rows, (n,), NaN where they have no score."""
        higher = logits[logits >= self.floor]
        return replace(self, logits=np.sort(np.concatenate([self.logits, higher]))[-self.most :])
