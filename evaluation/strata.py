"""Figures in parts of the test set: where in seeing, depth, brightness and arc strength a finder works.

A stratum is judged at the threshold of the whole test set, since that is how a finder is used. Controls carry
the virtual injection their host would have had, so both classes are divided by the same quantities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkhaloscope.intervals import clopper_pearson, wilson
from darkhaloscope.records import SCORES
from training.roc import auroc, roc_curve


@dataclass(frozen=True)
class Axis:
    """A column of `records.SCORES` and the inner edges that divide it; the outermost bins are open."""

    column: str
    edges: tuple[float, ...]


AXES = (
    Axis("psfsize_r", (1.1, 1.2, 1.3, 1.4, 1.5)),
    Axis("psfdepth_r", (24.0, 24.25, 24.5, 24.75, 25.0)),
    Axis("mag_r", (18.0, 19.0, 20.0, 21.0)),
    Axis("theta_e_arcsec", (0.6, 0.9, 1.2, 1.6, 2.2)),
    Axis("theta_over_fwhm", (0.5, 0.8, 1.0, 1.25, 1.5, 2.0)),
    Axis("arc_snr", (5.0, 10.0, 25.0, 50.0, 100.0)),
)
"""What the test set is divided by. Edges are fixed, so that runs compare."""

COLUMNS = (*(axis.column for axis in AXES), "type")
"""Columns that `stratify` needs."""


def stratify(columns: Mapping[str, np.ndarray], label: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return, per axis, TPR and FPR at `threshold` and the AUROC within each bin, with their N.

    Args:
        columns: `logit` and the columns of `COLUMNS`, each (n,).
        label: (n,) bool.
        threshold: logit at and above which a row counts as found.

    Returns:
        axis -> {"unit", "meaning", "bins": [...], "missing": rows of each class without a value}. Rows of all
        bins and the missing ones add up to the test set.
    """
    strata = {}
    for axis in AXES:
        values = np.asarray(columns[axis.column], float)
        index = np.where(np.isfinite(values), np.digitize(values, axis.edges), -1)
        edges = (None, *axis.edges, None)
        bins = [
            {
                "low": edges[i],
                "high": edges[i + 1],
                **_figures(columns["logit"], label, index == i, threshold),
            }
            for i in range(len(axis.edges) + 1)
        ]
        strata[axis.column] = _axis(axis.column, bins, label, index < 0)
    kind = np.asarray(columns["type"], object).astype(str)
    bins = [{"name": k, **_figures(columns["logit"], label, kind == k, threshold)} for k in np.unique(kind)]
    strata["type"] = _axis("type", bins, label, np.zeros(len(label), bool))
    return strata


def _axis(name: str, bins: list[dict[str, Any]], label: np.ndarray, missing: np.ndarray) -> dict[str, Any]:
    column = next(c for c in SCORES.columns if c.name == name)
    lost = {"positives": int((missing & label).sum()), "negatives": int((missing & ~label).sum())}
    return {"unit": column.unit, "meaning": column.meaning, "bins": bins, "missing": lost}


def _figures(logit: np.ndarray, label: np.ndarray, inside: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return N and rates of one bin; a rate of an empty class is None, not 0."""
    positives, negatives = inside & label, inside & ~label
    m, n = int(positives.sum()), int(negatives.sum())
    area = auroc(roc_curve(logit[inside], label[inside])) if m and n else None
    return {
        "n_positives": m,
        "n_negatives": n,
        **_rate("tpr", logit[positives] >= threshold, wilson),
        **_rate("fpr", logit[negatives] >= threshold, clopper_pearson),
        "auroc": area,
    }


def _rate(name: str, hits: np.ndarray, interval: Callable[..., Any]) -> dict[str, float | None]:
    """Return a rate with its bounds, all None where there are no rows."""
    if not hits.size:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = interval(hits.sum(), hits.size)
    return {name: float(hits.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
