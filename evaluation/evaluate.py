"""Turn a scores dataset into figures.

    python -m evaluation.evaluate --scores scores/test --calibration calibration.json --out RUN/evaluation

Writes `metrics.json`: AUROC, TPR at FPR 1e-2, 1e-3 and 1e-4, FPR at TPR 0.85, TPR0, TPR10 and the partial area over
log FPR, each with its interval, N and whether the negatives can carry it; purity at stated prevalences; the share of
extreme scores beside a calibrated model's; whether probabilities hold, raw and calibrated; the ROC curve with its band,
score histograms, strata, and the hashes of scores, model and data. Intervals come twice: as if rows were independent
(`low`, `high`), and from resampled sky cells (`cell_low`, `cell_high`). A figure is unresolved where fewer than 30
false positives carry it: quote its interval then, not its value.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.results import SCORES
from darkhaloscope.stage import code_version
from darkhaloscope.stats.intervals import wilson
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from evaluation.bootstrap import MIN_CELLS, CellBootstrap, resample_cells
from evaluation.calibrate import (
    Calibration,
    check_calibration,
    read_calibration,
    reliability_of,
)
from evaluation.command import command_line, explaining
from evaluation.quoted import purities, quoted_figures, quoted_points, statistics
from evaluation.scores import Scores, at_least, read_scores, without_repeats
from evaluation.strata import COLUMNS, stratify
from training.calibration import binary_score_frac, calibrated_binary_score_frac
from training.operating_points import MIN_EVENTS, fpr_name
from training.roc import Roc, auroc, roc_curve

METRICS_NAME = "metrics.json"
FORMAT = 3  # of metrics.json; raise it when a reader of the old one would misread or miss a key
STRATA_FPR = 1e-2  # FPR whose threshold strata are judged at: the smallest that a small test set resolves
_POINTS_PER_DECADE = 24
_HISTOGRAM_BINS = 60


def evaluate(
    scores: Scores, n_resamples: int = 1_000, seed: int = 0, calibration: Calibration | None = None
) -> dict[str, Any]:
    """Return every figure of a scores dataset, JSON-ready; see the module's docstring.

    A galaxy counts once among the controls: see `scores.without_repeats`.

    Args:
        scores: with `strata.COLUMNS`.
        n_resamples: resamples of sky cells.
        seed: of the resamples.
        calibration: of the same model, fitted on another split.

    Raises:
        MetricsError: one class only.
        CalibrationError: the calibration is of another model, or was fitted on these very rows.
    """
    if calibration is not None:
        check_calibration(calibration, scores)
    scores = without_repeats(scores)
    logit, label = scores.logit, scores.label
    roc = roc_curve(logit, label)
    grid, points = _fpr_grid(roc.n_negatives), quoted_points(roc)
    resamples = resample_cells(
        logit, label, scores.columns["sky_cell"], lambda r: statistics(r, grid), n_resamples, seed
    )
    figures, bounds = quoted_figures(roc, points), resamples.interval()
    for name, low, high in zip(figures, *(bound[: len(figures)] for bound in bounds), strict=True):
        figures[name] |= {"cell_low": _finite(low), "cell_high": _finite(high)}
    return _measured(scores) | {
        "figures": figures,
        "unresolved": [name for name, figure in figures.items() if not figure["resolved"]],
        "min_events": MIN_EVENTS,
        "purity": purities(points),
        "calibration": reliability_of(scores, calibration),
        "binary_score_frac": _sure_scores(logit, roc),
        "cell_bootstrap": _bootstrap_facts(resamples, seed),
        "curve": _curve(roc, grid, *(bound[len(figures) :] for bound in bounds)),
        "histogram": _histogram(logit, label),
        **_strata(scores, figures[fpr_name(STRATA_FPR)]["threshold"]),
    }


def _measured(scores: Scores) -> dict[str, Any]:
    """Return what was measured, by what, and how much of it there is."""
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": code_version(),
        "scores_hash": scores.hash,
        "scored_with": scores.provenance,
        "selection": scores.selection,
        "n": _counts(scores),
    }


def _counts(scores: Scores) -> dict[str, int]:
    label, host = scores.label, scores.columns["host_id"]
    return {
        "rows": len(label),
        "positives": int(label.sum()),
        "negatives": int((~label).sum()),
        "positive_hosts": len(np.unique(host[label])),
        "repeated_controls": scores.repeated_controls,
        "sky_cells": len(np.unique(scores.columns["sky_cell"])),
    }


def _fpr_grid(n_negatives: int) -> np.ndarray:
    decades = np.log10(n_negatives)
    return np.logspace(-decades, 0, max(int(decades * _POINTS_PER_DECADE), 1) + 1)


def _sure_scores(logit: np.ndarray, roc: Roc) -> dict[str, float]:
    prevalence, value = roc.n_positives / len(logit), binary_score_frac(logit)
    low, high = wilson(value * len(logit), len(logit))
    calibrated = calibrated_binary_score_frac(auroc(roc), prevalence)
    return {"value": value, "low": float(low), "high": float(high), "calibrated": calibrated,
            "prevalence": prevalence}  # fmt: skip


def _strata(scores: Scores, threshold: float | None) -> dict[str, Any]:
    return {
        "strata_at": {"figure": fpr_name(STRATA_FPR), "threshold": threshold},
        "strata": stratify(scores.columns, scores.label, np.inf if threshold is None else threshold),
    }


def _bootstrap_facts(resamples: CellBootstrap, seed: int) -> dict[str, Any]:
    return {
        "n_cells": resamples.n_cells,
        "enough_cells": resamples.n_cells >= MIN_CELLS,
        "min_cells": MIN_CELLS,
        "n_resamples": resamples.n_resamples,
        "n_one_class": resamples.n_one_class,
        "seed": seed,
    }


def _curve(roc: Roc, grid: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, list[float | None]]:
    tpr = [float(roc.true_positives[roc.at_fpr(fpr)] / roc.n_positives) for fpr in grid]
    bounds = {"cell_low": [_finite(v) for v in low], "cell_high": [_finite(v) for v in high]}
    return {"fpr": grid.tolist(), "tpr": tpr, **bounds}


def _histogram(logit: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    edges = np.histogram_bin_edges(logit.astype(float), _HISTOGRAM_BINS)
    counts = {name: np.histogram(logit[rows].astype(float), edges)[0].tolist()
              for name, rows in (("positives", label), ("negatives", ~label))}  # fmt: skip
    return {"edges": edges.tolist(), **counts}


def _finite(value: float) -> float | None:
    """Return a value for JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None


def summary(metrics: dict[str, Any]) -> str:
    """Return the figures as lines for a terminal."""
    n = metrics["n"]
    where = f" with {metrics['selection']}" if metrics["selection"] else ""
    lines = [
        f"{n['positives']:,} injections, {n['negatives']:,} controls in {n['sky_cells']} sky cells{where}"
    ]
    for name, f in metrics["figures"].items():
        note = "" if f["resolved"] else "  unresolved"
        lines.append(f"{name:14s} {f['value']:.4f}  [{f['low']:.4f}, {f['high']:.4f}]{note}")
    for name, found in metrics["calibration"]["reliability"].items():
        lines.append(
            f"{'ece ' + name:14s} {found['ece']:.4f}  (calibrated: {found['ece_if_calibrated']:.4f})"
        )
    sure = metrics["binary_score_frac"]
    lines.append(f"{'binary_score_frac':14s} {sure['value']:.4f}  (calibrated: {sure['calibrated']:.4f})")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("evaluate", __doc__)
    p.add_argument("--scores", required=True, help="URL of a scores dataset (evaluation.score wrote it)")
    p.add_argument("--out", required=True, help="URL of the folder for metrics.json")
    p.add_argument(
        "--minimum",
        action="append",
        type=_bound,
        default=[],
        metavar="COLUMN=VALUE",
        help="leave out rows below it, as theta_over_psf=0.5: controls by the injection they would have had; "
        "may be repeated",
    )
    p.add_argument(
        "--calibration",
        metavar="FILE",
        help="file of evaluation.calibrate: show whether its probabilities hold here",
    )
    p.add_argument("--resamples", type=int, default=1_000, help="resamples of sky cells (default 1000)")
    p.add_argument("--seed", type=int, default=0, help="seed of the resamples")
    return p


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    numeric = [c.name for c in SCORES.columns if pa.types.is_floating(c.type)]
    if name not in numeric:
        raise argparse.ArgumentTypeError(f"{name!r} is no numeric column of the scores; there are {numeric}")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected COLUMN=VALUE, as theta_over_psf=0.5") from None


@explaining("evaluate")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    minimum = dict(arguments.minimum)
    scores = at_least(read_scores(arguments.scores, (*COLUMNS, *minimum)), minimum)
    calibration = read_calibration(arguments.calibration) if arguments.calibration else None
    metrics = evaluate(scores, arguments.resamples, arguments.seed, calibration)
    replace_file(join(arguments.out, METRICS_NAME), json.dumps(metrics, indent=1, allow_nan=False).encode())
    print(summary(metrics))
    print(f"-> {join(arguments.out, METRICS_NAME)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
