"""Figures that are quoted of a ROC curve, with interval, N and whether N carries them, and the purity they mean."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from training.operating_points import (
    FEW,
    FPR_TARGETS,
    MIN_EVENTS,
    PREVALENCES,
    RARE_FPR,
    TPR_TARGET,
    OperatingPoint,
    fpr_at_tpr,
    fpr_name,
    log_partial_area,
    log_partial_area_interval,
    purity,
    tpr_at_fpr,
    tpr_within,
)
from training.roc import Roc, auroc, auroc_interval


def quoted_points(roc: Roc) -> dict[str, OperatingPoint]:
    """Return the points of the curve that are quoted, by name."""
    points = {fpr_name(fpr): tpr_at_fpr(roc, fpr) for fpr in FPR_TARGETS}
    points[f"fpr@tpr{TPR_TARGET}"] = fpr_at_tpr(roc)
    return points | {f"TPR{few}": tpr_within(roc, few) for few in FEW}


def quoted_figures(roc: Roc, points: dict[str, OperatingPoint]) -> dict[str, dict[str, Any]]:
    """Return every figure of `metrics.json` by name: area, the quoted points, partial area."""
    n = {"n_positives": roc.n_positives, "n_negatives": roc.n_negatives}
    enough = min(roc.n_positives, roc.n_negatives) >= MIN_EVENTS
    low, high = auroc_interval(roc)
    area = {"value": auroc(roc), "low": low, "high": high, **n, "resolved": enough}
    low, high = log_partial_area_interval(roc)
    rare = {"value": log_partial_area(roc), "low": low, "high": high, **n}
    # The low end of the area is where most of it is won: it needs the negatives that TPR at that FPR needs.
    rare["resolved"] = RARE_FPR[0] * roc.n_negatives >= MIN_EVENTS - 1e-9
    figures = {"auroc": area, **{name: asdict(point) for name, point in points.items()}, "pauc@logfpr": rare}
    return {name: _finite(figure) for name, figure in figures.items()}


def statistics(roc: Roc, grid: np.ndarray) -> np.ndarray:
    """Return the figures of `quoted_figures` in its order, then the TPR at each FPR of `grid`."""
    at = (
        np.searchsorted(
            roc.false_positives, np.array([*FPR_TARGETS, *grid]) * roc.n_negatives + 1e-9, "right"
        )
        - 1
    )
    tpr = roc.true_positives[at] / roc.n_positives
    fpr = roc.false_positives[roc.at_tpr(TPR_TARGET)] / roc.n_negatives
    few = [roc.true_positives[roc.last_within(n)] / roc.n_positives for n in FEW]
    k = len(FPR_TARGETS)
    return np.array([auroc(roc), *tpr[:k], fpr, *few, log_partial_area(roc), *tpr[k:]])


def purities(points: dict[str, OperatingPoint]) -> list[dict[str, Any]]:
    """Return the share of lenses among what passes each point, at each of `PREVALENCES`.

    Bounds take TPR and FPR at their worse ends together, so they are wider than 95 %.
    """
    rows = []
    for name, p in points.items():
        tpr = (p.low, p.value, p.high)
        fpr = (p.fpr_high, p.false_positives / p.n_negatives, p.fpr_low)
        if name.startswith("fpr@"):
            tpr, fpr = (p.target,) * 3, (p.high, p.value, p.low)
        for prevalence in PREVALENCES:
            low, value, high = (purity(t, f, prevalence) for t, f in zip(tpr, fpr, strict=True))
            rows.append(
                {
                    "at": name,
                    "prevalence": prevalence,
                    "value": value,
                    "low": low,
                    "high": high,
                    "resolved": p.resolved,
                }
            )
    return rows


def _finite(figure: dict[str, Any]) -> dict[str, Any]:
    """Replace infinities (the threshold where nothing passes), which JSON has not, by None."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in figure.items()}
