"""The figures of a validation pass."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from training.calibration import binary_score_frac, calibrated_binary_score_frac
from training.operating_points import (
    FPR_TARGETS,
    LOW_FPR,
    TPR_TARGET,
    fpr_at_tpr,
    fpr_name,
    mean_tpr,
    tpr_at_fpr,
)
from training.roc import auroc, auroc_interval, roc_curve


def summarise(logit: ArrayLike, label: ArrayLike) -> dict[str, Any]:
    """Return the figures of a validation pass as one flat, JSON-ready dict.

    Keys: `n_positives`, `n_negatives`, `auroc`, `tpr@lowfpr`, `tpr@fpr1e-2` (1e-3, 1e-4), `fpr@tpr0.85`, each with
    `_low` and `_high`; `binary_score_frac`, `binary_score_frac_calibrated`; `unresolved`, the names of the
    figures that too few rows carry.

    Raises:
        MetricsError: see `check_scores`.
    """
    roc = roc_curve(logit, label)
    area = auroc(roc)
    low, high = auroc_interval(roc)
    figures: dict[str, Any] = {"n_positives": roc.n_positives, "n_negatives": roc.n_negatives}
    figures |= {"auroc": area, "auroc_low": low, "auroc_high": high}
    mean, mean_low, mean_high = mean_tpr(roc)
    figures |= {"tpr@lowfpr": mean, "tpr@lowfpr_low": mean_low, "tpr@lowfpr_high": mean_high}
    points = {fpr_name(fpr): tpr_at_fpr(roc, fpr) for fpr in FPR_TARGETS}
    points[f"fpr@tpr{TPR_TARGET}"] = fpr_at_tpr(roc)
    for name, point in points.items():
        figures |= {name: point.value, f"{name}_low": point.low, f"{name}_high": point.high}
    prevalence = roc.n_positives / (roc.n_positives + roc.n_negatives)
    figures["binary_score_frac"] = binary_score_frac(logit)
    figures["binary_score_frac_calibrated"] = calibrated_binary_score_frac(area, prevalence)
    unresolved = [name for name, point in points.items() if not point.resolved]
    # The mean reaches down to FPR 1e-4: it needs the negatives that 1e-4 needs.
    figures["unresolved"] = [*(["tpr@lowfpr"] if fpr_name(LOW_FPR[0]) in unresolved else []), *unresolved]
    return figures
