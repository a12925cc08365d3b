"""Do positives and controls differ in what is no lens: seeing, depth, magnitude, extinction?

A class that sits in better seeing can be told by its seeing. Rows are counted once a host and class, in narrow bins,
as they are laid out; counts of parts add up, so that ten million rows need no more memory than one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darkhaloscope.records import SPLITS
from darkhaloscope.stats.effects import cohens_d

BINS = 400
AXES: dict[str, tuple[float, float, str]] = {
    "psfsize_r": (0.5, 2.5, "arcsec"),
    "psfdepth_r": (22.0, 28.0, "AB mag"),
    "mag_r": (14.0, 24.0, "AB mag"),
    "ebv": (0.0, 0.4, "mag"),
    "total_mag_r": (14.0, 24.0, "AB mag"),
}
"""Quantity -> lower edge, upper edge, unit. total_mag_r: of host and arc in positives, of the host in controls."""


@dataclass(frozen=True)
class Tally:
    """What has been counted of one quantity.

    counts: (split, class, bin), class 0 controls and 1 positives; values beyond the edges are in the outermost bins.
    moments: (split, class, 3), number, sum and sum of squares.
    """

    counts: NDArray[np.int64]
    moments: NDArray[np.float64]

    @staticmethod
    def of(axis: str, values: np.ndarray, split: np.ndarray, positive: np.ndarray) -> Tally:
        """Count values, (n,), that are finite, by split (number in `SPLITS`) and class."""
        low, high, _ = AXES[axis]
        there = np.isfinite(values)
        values, group = np.asarray(values, np.float64)[there], (2 * split + positive)[there]
        place = np.clip(((values - low) / (high - low) * BINS).astype(np.int64), 0, BINS - 1)
        n = 2 * len(SPLITS)
        counts = np.bincount(group * BINS + place, minlength=n * BINS).reshape(len(SPLITS), 2, BINS)
        sums = [
            np.bincount(group, weights=w, minlength=n).astype(np.float64)
            for w in (np.ones(len(values)), values, values**2)
        ]
        return Tally(counts, np.stack(sums, axis=1).reshape(len(SPLITS), 2, 3))

    def __add__(self, other: Tally) -> Tally:
        """Return the tally of both."""
        return Tally(self.counts + other.counts, self.moments + other.moments)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain lists, without the empty bins at both ends."""
        filled = np.flatnonzero(self.counts.sum(axis=(0, 1)))
        first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        return {
            "first": first,
            "counts": self.counts[:, :, first:last].tolist(),
            "moments": self.moments.tolist(),
        }

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Tally:
        """Return the tally that `as_json` wrote."""
        some, counts = np.array(found["counts"], np.int64), np.zeros((len(SPLITS), 2, BINS), np.int64)
        counts[:, :, found["first"] : found["first"] + some.shape[2]] = some
        return Tally(counts, np.array(found["moments"], np.float64))


Tallies = dict[str, Tally]


def add_tallies(parts: Iterable[Tallies]) -> Tallies:
    """Return the sum of the parts' tallies, axis by axis."""
    total: Tallies = {}
    for part in parts:
        for axis, tally in part.items():
            total[axis] = total[axis] + tally if axis in total else tally
    return total


def balance_table(tallies: Tallies) -> list[dict[str, Any]]:
    """Return how the classes differ, a row a quantity and split ("all" first); None where a class is empty.

    cohens_d is positives against controls (`effects.cohens_d`), with its standard error; auc the chance that a
    positive's value is above a control's (ties count half), its standard error that of Hanley & McNeil (1982, Radiology
    143, 29); ks the largest difference of the cumulative distributions. 0, 0.5 and 0 mean: no difference.
    """
    rows = []
    for axis, tally in tallies.items():
        for split in ("all", *SPLITS):
            which = slice(None) if split == "all" else [SPLITS.index(split)]
            counts, moments = tally.counts[which].sum(axis=0), tally.moments[which].sum(axis=0)
            rows.append({"quantity": axis, "split": split} | _difference(counts, moments))
    return rows


def auc_of(positives: np.ndarray, controls: np.ndarray) -> float:
    """Return the chance that a positive's value is above a control's, from counts in the same bins; NaN without any."""
    n = float(positives.sum()) * float(controls.sum())
    return float((positives * (controls.cumsum() - controls / 2)).sum() / n) if n else float("nan")


def _difference(counts: np.ndarray, moments: np.ndarray) -> dict[str, Any]:
    n0, n1 = moments[:, 0]
    found: dict[str, Any] = {"positives": int(n1), "controls": int(n0)}
    if min(n0, n1) < 2:
        return found | dict.fromkeys(MEASURES)
    mean, square = moments[:, 1] / moments[:, 0], moments[:, 2] / moments[:, 0]
    d, d_error = cohens_d((n1, n0), mean[::-1], (square - mean**2)[::-1])
    below = np.cumsum(counts / moments[:, :1], axis=1)
    auc = auc_of(counts[1], counts[0])
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (n1 - 1) * (q1 - auc**2) + (n0 - 1) * (q2 - auc**2)) / (n0 * n1)
    numbers = (
        mean[1], mean[0], d, d_error, auc,
        np.sqrt(max(variance, 0.0)), np.abs(below[1] - below[0]).max(),
    )  # fmt: skip
    return found | {name: round(float(v), 6) for name, v in zip(MEASURES, numbers, strict=True)}


MEASURES = ("mean_positives", "mean_controls", "cohens_d", "cohens_d_se", "auc", "auc_se", "ks")
