"""How far graders agree, with each other, with themselves and with the truth: the one place for kappas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from darkhaloscope.stats.intervals import wilson
from evaluation.gradebook import CANDIDATE, GRADES, LENS, LENS_GRADES, NONLENS, REPEAT

_RESAMPLES = 400
Given = dict[tuple[bool, str, str], int]  # (shown again, kind, name) -> score


def cohen(first: Sequence[int], second: Sequence[int], n_grades: int, linear: bool = False) -> float | None:
    """Return Cohen's kappa of two graders (Cohen 1960, Educ. Psychol. Meas. 20, 37).

    Args:
        first, second: grades of the same items, 0 to n_grades - 1.
        n_grades: number of grades.
        linear: weigh a disagreement by the number of grades between (Cohen 1968); else all count alike.

    Returns:
        1 for full agreement, 0 for what chance would give; None where there is no item, or where both gave one and
        the same grade to all (kappa is 0/0).
    """
    if not len(first) or len({*first, *second}) < 2:
        return None
    weights = "linear" if linear else None
    return float(cohen_kappa_score(first, second, labels=list(range(n_grades)), weights=weights))


def fleiss(counts: np.ndarray) -> float | None:
    """Return Fleiss' kappa of several graders (Fleiss 1971, Psychol. Bull. 76, 378, eq. 7).

    Args:
        counts: (items, grades): how many graders gave an item that grade; at least two, as many for every item.

    Returns:
        As `cohen`.

    Raises:
        ValueError: items with different numbers of grades.
    """
    counts = np.asarray(counts, float)
    if not len(counts):
        return None
    n = counts.sum(1)
    if (n != n[0]).any() or n[0] < 2:
        raise ValueError(
            f"fleiss: items have {sorted(set(n))} grades; each must have the same number, two or more"
        )
    observed = np.mean((np.sum(counts**2, 1) - n) / (n * (n - 1)))
    expected = np.sum((counts.sum(0) / counts.sum()) ** 2)
    return None if expected == 1 else float((observed - expected) / (1 - expected))


def interval(statistic: Callable[[np.ndarray], float | None], n: int) -> tuple[float, float] | None:
    """Return the 95 % range of a statistic under resampling of its items (percentiles of a seeded bootstrap).

    Args:
        statistic: of item numbers (n,); resamples for which it is None are left out.
        n: number of items.

    Returns:
        (low, high); None for fewer than ten items, of which resampling says nothing.
    """
    if n < 10:
        return None
    rng = np.random.default_rng(0)
    found = [v for _ in range(_RESAMPLES) if (v := statistic(rng.integers(0, n, n))) is not None]
    if not found:
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def measured(grades: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how far graders agree with each other, with themselves and with what was planted."""
    graders = sorted({g["grader"] for g in grades})
    given = {g: _given(grades, g) for g in graders}
    first = {g: {k[1:]: v for k, v in given[g].items() if not k[0]} for g in graders}
    pairs = [
        {
            "graders": [a, b],
            **_pair([(first[a][k], first[b][k]) for k in sorted(first[a].keys() & first[b].keys())]),
        }
        for i, a in enumerate(graders)
        for b in graders[i + 1 :]
    ]
    return {
        "graders": {g: _of_grader(given[g]) for g in graders},
        "pairs": pairs,
        "all": _all([first[g] for g in graders]),
    }


def _given(grades: list[dict[str, Any]], grader: str) -> Given:
    """Return (shown again, kind, name) -> score of one grader; the latest where several pages showed it."""
    found = {}
    for g in sorted(grades, key=lambda g: g["time"]):
        if g["grader"] == grader and g["grade"]:
            again, kind = g["truth"]["kind"] == REPEAT, g["truth"]["kind"]
            found[again, CANDIDATE if again else kind, g["truth"]["name"]] = GRADES.index(g["grade"])
    return found


def _of_grader(given: Given) -> dict[str, Any]:
    """Return one grader's counts, self-consistency, and answers to what was planted."""
    twice = [(given[False, *k[1:]], v) for k, v in given.items() if k[0] and (False, *k[1:]) in given]
    called = {
        kind: [GRADES[v] in LENS_GRADES for k, v in given.items() if k[:2] == (False, kind)]
        for kind in (LENS, NONLENS)
    }
    scores = [v for k, v in given.items() if k[:2] == (False, CANDIDATE)]
    return {
        "candidates": {grade: scores.count(i) for i, grade in enumerate(GRADES)},
        "repeats": _pair(twice),
        "planted_lenses_called_lens": _rate(called[LENS]),
        "planted_nonlenses_called_lens": _rate(called[NONLENS]),
    }


def _rate(called: list[bool]) -> dict[str, Any]:
    low, high = (float(v) for v in wilson(sum(called), len(called))) if called else (None, None)
    return {"n": len(called), "called": sum(called), "low": low, "high": high}


def _pair(scores: list[tuple[int, int]]) -> dict[str, Any]:
    """Return agreement of two series of grades of the same objects."""
    both, n = np.array(scores, int).reshape(-1, 2), len(GRADES)

    def kappa(linear: bool) -> Any:
        return lambda at: cohen(both[at, 0].tolist(), both[at, 1].tolist(), n, linear)

    everything = np.arange(len(both))
    return {
        "n": len(both),
        "same": int((both[:, 0] == both[:, 1]).sum()),
        "kappa": kappa(False)(everything),
        "kappa_95": interval(kappa(False), len(both)),
        "kappa_linear": kappa(True)(everything),
        "kappa_linear_95": interval(kappa(True), len(both)),
    }


def _all(graders: list[dict[Any, int]]) -> dict[str, Any] | None:
    """Return Fleiss' kappa over the objects that every grader graded; None for a single grader."""
    if len(graders) < 2:
        return None
    common = sorted(set.intersection(*(set(g) for g in graders)))
    counts = np.zeros((len(common), len(GRADES)), int)
    for g in graders:
        counts[np.arange(len(common)), [g[k] for k in common]] += 1
    return {
        "n": len(common),
        "fleiss_kappa": fleiss(counts),
        "fleiss_kappa_95": interval(lambda at: fleiss(counts[at]), len(common)),
    }
