"""The report's charts: each takes figures that were read from files and returns a PNG as a data URI.

Injections are blue and controls orange everywhere; a figure too few rows carry is drawn grey or hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from darkhaloscope.report.charts import BLUE, FAINT, GREY, INK, ORANGE, SOFT, draw
from training.operating_points import FPR_TARGETS, fpr_name


def training_curves(epochs: list[dict[str, Any]]) -> str:
    """Draw loss, and TPR at FPR 1e-2 with its interval and AUROC on the validation split, against epoch."""
    x = [e["epoch"] + 1 for e in epochs]

    def paint(loss: Axes, rate: Axes) -> None:
        loss.plot(x, [e["train_loss"] for e in epochs], color=GREY, marker=".", label="training")
        loss.plot(x, [e["val_loss"] for e in epochs], color=INK, marker=".", label="validation")
        loss.set_ylabel("loss")
        name = fpr_name(FPR_TARGETS[0])
        rate.fill_between(
            x, _column(epochs, f"{name}_low"), _column(epochs, f"{name}_high"), color=BLUE, alpha=0.2, lw=0
        )
        rate.plot(x, _column(epochs, name), color=BLUE, marker=".", label="TPR at FPR 1e-2, 95 %")
        rate.fill_between(
            x, _column(epochs, "auroc_low"), _column(epochs, "auroc_high"), color=GREY, alpha=0.2, lw=0
        )
        rate.plot(x, _column(epochs, "auroc"), color=GREY, ls="--", marker=".", label="AUROC")
        rate.set(xlabel="epoch", ylabel="validation", ylim=(0, 1.02))
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        best = epochs[-1].get("best_epoch")
        for axis in (loss, rate):
            if best is not None:
                axis.axvline(best + 1, color=ORANGE, lw=1, ls=":", label="best epoch")
            axis.legend()

    return draw(paint, 4.6, (1, 1))


def _column(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [np.nan if r.get(name) is None else r[name] for r in rows]


def roc(metrics: dict[str, Any]) -> str:
    """Draw TPR against FPR on a log axis, with the band of resampled sky cells."""
    curve, n = metrics["curve"], metrics["n"]["negatives"]
    fpr = np.asarray(curve["fpr"])

    def paint(axis: Axes) -> None:
        low, high = (np.array(curve[k], float) for k in ("cell_low", "cell_high"))
        if np.isfinite(low).any():
            cells = metrics["cell_bootstrap"]["n_cells"]
            axis.fill_between(fpr, low, high, step="post", color=BLUE, alpha=0.2, lw=0,
                              label=f"95 %, {cells} sky cells resampled")  # fmt: skip
        axis.step(fpr, curve["tpr"], where="post", color=BLUE, label="all stamps")
        axis.plot(fpr, fpr, color=GREY, lw=1, ls="--")
        limit = metrics["min_events"] / n
        left = fpr[0] * 0.7
        axis.axvspan(left, min(limit, 1), facecolor="none", edgecolor=FAINT, hatch="///", lw=0, zorder=0)
        axis.text(
            left * 1.15, 1.03, f"unresolved: < {metrics['min_events']} controls", fontsize=8, color=GREY
        )
        for target in FPR_TARGETS:
            if target > left:
                axis.axvline(target, color=GREY, lw=0.8, ls=":")
        axis.set(
            xscale="log",
            xlim=(left, 1),
            ylim=(0, 1.01),
            xlabel="false-positive rate",
            ylabel="true-positive rate",
        )
        axis.text(0.7, 0.6, "chance", color=GREY, fontsize=8, ha="right")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2)

    return draw(paint)


def histogram(metrics: dict[str, Any]) -> str:
    """Draw how many injections and controls have which logit, on a log axis."""
    counts = metrics["histogram"]

    def paint(axis: Axes) -> None:
        for name, colour, label in (("negatives", ORANGE, "controls"), ("positives", BLUE, "injections")):
            axis.stairs(counts[name], counts["edges"], color=colour, fill=True, alpha=0.25)
            axis.stairs(
                counts[name], counts["edges"], color=colour, label=f"{label}, N = {metrics['n'][name]:,}"
            )
        figure = metrics["figures"][metrics["strata_at"]["figure"]]
        if figure["threshold"] is not None:
            axis.axvline(figure["threshold"], color=INK, lw=1, ls=":", label=f"FPR {figure['target']:g}")
        axis.set(yscale="log", ylim=(0.7, None), xlabel="logit", ylabel="stamps")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1)

    return draw(paint)


def reliability(metrics: dict[str, Any]) -> str:
    """Draw the observed share of injections against the predicted one: raw logits, and each calibration."""
    found = metrics["calibration"]["reliability"]
    looks = {"raw": (GREY, "o"), "temperature": (BLUE, "o"), "isotonic": (ORANGE, "s")}

    def paint(axis: Axes) -> None:
        axis.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
        for name, (colour, marker) in looks.items():
            if name in found:
                x, y, low, high = (
                    np.array([b[k] for b in found[name]["bins"]])
                    for k in ("predicted", "observed", "low", "high")
                )
                axis.errorbar(x, y, [y - low, high - y], color=colour, fmt=marker, ms=4, lw=1.2,
                              label=f"{name}, error {found[name]['ece']:.3f}")  # fmt: skip
        axis.set(
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            xlabel="predicted probability",
            ylabel="share of injections",
        )
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1)

    return draw(paint)


def completeness(rows: list[dict[str, Any]], label: str) -> str:
    """Draw one axis of stage 4d's table: every bin of equal width, empty ones hatched."""
    kinds = {kind: [r for r in rows if r["rows"] == kind] for kind in ("all", "clean")}

    def paint(axis: Axes) -> None:
        for (kind, bins), colour, shift in zip(kinds.items(), (BLUE, GREY), (-0.12, 0.12), strict=True):
            _points(axis, bins, ("completeness", "ci_low", "ci_high"), colour, shift, kind)
        _bins(axis, kinds["all"], [r["n"] for r in kinds["all"]])
        axis.set(
            ylim=(-0.02, 1.02), ylabel=f"share with arc SNR ≥ {rows[0]['snr_threshold']:g}", xlabel=label
        )
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2)

    return draw(paint)


def stratum(bins: list[dict[str, Any]], label: str) -> str:
    """Draw TPR and FPR at the global threshold in each bin of one axis of the strata."""

    def paint(tpr: Axes, fpr: Axes) -> None:
        _points(tpr, bins, ("tpr", "tpr_low", "tpr_high"), BLUE, 0, "injections")
        _points(fpr, bins, ("fpr", "fpr_low", "fpr_high"), ORANGE, 0, "controls")
        tpr.set(ylim=(-0.02, 1.02), ylabel="TPR")
        fpr.set_ylim(bottom=0)
        fpr.set(ylabel="FPR", xlabel=label)
        _bins(tpr, bins, [b["n_positives"] for b in bins])
        _bins(fpr, bins, [b["n_negatives"] for b in bins])

    return draw(paint, 4.4, (1.5, 1))


def _points(
    axis: Axes, bins: list[dict[str, Any]], names: tuple[str, str, str], colour: str, shift: float, label: str
) -> None:
    x = np.arange(len(bins)) + shift
    value, low, high = (np.array([np.nan if b[n] is None else b[n] for b in bins]) for n in names)
    axis.errorbar(x, value, [value - low, high - value], color=colour, fmt="o", ms=4, lw=1.2, label=label)


def _bins(axis: Axes, bins: list[dict[str, Any]], counts: list[int]) -> None:
    """Mark inner edges (or names) under the axis and each bin's N above it; hatch the empty ones."""
    for x, n in enumerate(counts):
        if n == 0:
            axis.axvspan(x - 0.5, x + 0.5, facecolor="none", edgecolor=FAINT, hatch="///", lw=0, zorder=0)
        axis.annotate(f"{n:,}", (x, 1), (0, 2), ("data", "axes fraction"), "offset points",
                      fontsize=8, color=SOFT, ha="center")  # fmt: skip
    if "name" in bins[0]:
        axis.set_xticks(range(len(bins)), bin_names(bins))
        axis.grid(visible=False, axis="x")
    else:
        edges = [b["high"] for b in bins[:-1]]
        axis.set_xticks(np.arange(len(edges)) + 0.5, [f"{e:g}" for e in edges], fontsize=9)
    axis.set_xlim(-0.5, len(bins) - 0.5)


def bin_names(bins: Sequence[dict[str, Any]]) -> list[str]:
    """Name bins by their edges, or by their value; the outermost ones take all that is beyond."""
    if bins and "name" in bins[0]:
        return [b["name"] for b in bins]
    middle = [f"{b['low']:g}–{b['high']:g}" for b in bins[1:-1]]
    return [f"< {bins[0]['high']:g}", *middle, f"≥ {bins[-1]['low']:g}"]
