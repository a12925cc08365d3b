"""What a gate says: figure, interval, N, threshold, verdict; and the statistics that gates share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from darkhaloscope.stats.effects import cohens_d
from darkhaloscope.stats.intervals import CONFIDENCE

Verdict = Literal["pass", "fail", "unresolved", "reported"]
VERDICTS = ("fail", "unresolved", "pass", "reported")
"""In the order in which they are shown."""
SIGMAS = 2.0  # standard errors that are chance where one gate is asked
CLASSIFIERS, DIFFERENCES = 7, 27  # gates of each figure that are asked together
FAIL_SIGMAS = -float(ndtri(ndtr(-SIGMAS) / CLASSIFIERS))  # 2.7: as unlikely for any of them as 2 is for one
D_SIGMAS = -float(ndtri(ndtr(-SIGMAS) / (2 * DIFFERENCES)))  # 3.3: the same, to either side
AUC_RESOLVED = 0.03  # standard error above which an AUC says too little: a shortcut of AUC 0.56 would pass
D_BOUND = 0.1  # difference of two class means, in standard deviations, that is let pass
_Z = float(ndtri(0.5 + CONFIDENCE / 2))


@dataclass(frozen=True)
class Gate:
    """One gate and what came out.

    Attributes:
        name: short, unique.
        about: "data": the stamps; "model": what a network makes of them.
        asks: the question, for a reader.
        figure: what was measured, in words, such as AUC.
        value: the figure; None where it could not be measured.
        low, high: its 95 % interval; None where there is none.
        n: what it was measured on, such as {"positives": 128, "controls": 202}.
        threshold: the rule, in words.
        verdict: "unresolved": too few stamps to say; "reported": no gate, a figure to compare with.
        note: what a reader should know.
        pictures: files that explain it.
    """

    name: str
    about: Literal["data", "model"]
    asks: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    n: dict[str, int]
    threshold: str
    verdict: Verdict
    note: str = ""
    pictures: Sequence[str] = field(default=())


def block_auc(score: np.ndarray, label: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUC within blocks, averaged, and its standard error for independent rows where the truth is 0.5.

    Rows are compared only with rows of their own block (split, fold), so that blocks whose scores or class shares
    differ lend it nothing: the stratified rank test of van Elteren (1960, Bull. Inst. Int. Stat. 37, 351). Weights are
    the inverse variances (m + n + 1) / (12 m n) of independent rows. Ties count half.

    Args:
        score: (n, c) higher for positives; each column is a case of its own.
        label: (n, c) bool.
        blocks: (n,) any integers; a block of one class says nothing and is left out.

    Returns:
        (AUC, standard error), (c,) each; NaN where no block has both classes.
    """
    total, weights = np.zeros(score.shape[1]), np.zeros(score.shape[1])
    for block in np.unique(blocks):
        here = blocks == block
        positive, ranks = label[here], rankdata(score[here], axis=0)
        m = positive.sum(axis=0)
        n = len(positive) - m
        both = (m > 0) & (n > 0)
        weight = np.where(both, 12.0 * m * n / (m + n + 1), 0.0)
        above = (ranks * positive).sum(axis=0) - m * (m + 1) / 2
        total += weight * above / np.where(both, m * n, 1)
        weights += weight
    there = np.where(weights > 0, weights, np.nan)
    return total / there, 1.0 / np.sqrt(there)


def auc_verdict(area: float, null: float, error: float) -> Verdict:
    """Judge an AUC that should be 0.5: only an excess is a shortcut, less than 0.5 is chance."""
    if not np.isfinite(area) or not np.isfinite(error):
        return "unresolved"
    excess = (area - max(null, 0.5)) / error
    if excess > FAIL_SIGMAS:
        return "fail"
    return "pass" if excess <= SIGMAS and error <= AUC_RESOLVED else "unresolved"


AUC_RULE = (
    f"AUC at most 0.5 + {SIGMAS:g} standard errors; unresolved to {FAIL_SIGMAS:.1f}, or where the error is above "
    f"{AUC_RESOLVED:g}"
)


def auc_gate(
    name: str, about: Literal["data", "model"], asks: str, area: float, null: float, error: float,
    n: dict[str, int], note: str = "", judged: bool = True,
) -> Gate:  # fmt: skip
    """Return the gate "the classes cannot be told" from an AUC, or (not judged) the figure alone."""
    bounds = np.clip((area, area - _Z * error, area + _Z * error), 0, 1)
    value, low, high = (float(v) if np.isfinite(v) else None for v in bounds)
    rule, verdict = (AUC_RULE, auc_verdict(area, null, error)) if judged else ("none: reported", "reported")
    if verdict == "unresolved":
        note = _joined(note, _wanted(error, AUC_RESOLVED))
    return Gate(name, about, asks, "AUC", value, low, high, n, rule, verdict, note)


def _wanted(error: float, resolved: float) -> str:
    """Say how many stamps would settle a gate: errors fall with the root of their number."""
    if not np.isfinite(error):
        return "there are none to compare"
    if error <= resolved:
        return "chance, or a weak shortcut: other stamps would say"
    return f"{(error / resolved) ** 2:.1f} times as many stamps would say"


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


D_RULE = (
    f"|d| at most {D_BOUND:g}, or within {D_SIGMAS:.1f} standard errors of 0; unresolved where a d of {D_BOUND:g} is "
    f"within {SIGMAS:g} errors"
)


def difference_gate(
    name: str, about: Literal["data", "model"], asks: str, values: ArrayLike, label: ArrayLike, blocks: ArrayLike,
    note: str = "",
) -> Gate:  # fmt: skip
    """Return the gate "this quantity has the same mean in both classes": Cohen's d within blocks, averaged."""
    values, label, blocks = np.asarray(values, float), np.asarray(label), np.asarray(blocks)
    there = np.isfinite(values)
    found, weights, apart = [], [], False
    for block in np.unique(blocks):
        both = [values[there & (blocks == block) & c] for c in (label, ~label)]
        if min(map(len, both)) >= 2:
            apart |= not any(map(np.ptp, both)) and not np.isclose(both[0][0], both[1][0])
            d, error = cohens_d([len(v) for v in both], [v.mean() for v in both], [v.var() for v in both])
            found.append(d)
            weights.append(1.0 / error**2)
    n = {"positives": int((there & label).sum()), "controls": int((there & ~label).sum())}
    if not found:
        return Gate(name, about, asks, "Cohen's d", None, None, None, n, D_RULE, "unresolved", note)
    if apart:  # no spread to measure the difference in, and none could be larger
        told = _joined(note, "each class has one value, its own")
        return Gate(name, about, asks, "Cohen's d", None, None, None, n, D_RULE, "fail", told)
    d, error = float(np.average(found, weights=weights)), float(np.sum(weights) ** -0.5)
    if np.ptp(values[there]) == 0:
        verdict: Verdict = "pass"  # one and the same value says nothing, however few the stamps
    elif abs(d) > max(D_BOUND, D_SIGMAS * error):
        verdict = "fail"
    else:
        verdict = "pass" if abs(d) <= D_BOUND and SIGMAS * error <= D_BOUND else "unresolved"
    if verdict == "unresolved":
        note = _joined(note, _wanted(error, D_BOUND / SIGMAS))
    low, high = d - _Z * error, d + _Z * error
    return Gate(name, about, asks, "Cohen's d", d, low, high, n, D_RULE, verdict, note)


def counts(gates: Sequence[Gate]) -> dict[str, int]:
    """Return how many gates have which verdict."""
    verdicts: list[Any] = [g.verdict for g in gates]
    return {v: verdicts.count(v) for v in VERDICTS}
