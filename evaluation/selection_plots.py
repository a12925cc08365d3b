"""Plots of the selection function: completeness along one quantity at a time, and over theta_E and source magnitude."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from darkhaloscope.injection.completeness import bin_of
from darkhaloscope.report.charts import BLUE, DPI, GREY, INK, STYLE
from evaluation.completeness import Edges

LABELS = {
    "theta_e_arcsec": "Einstein radius, arcsec",
    "src_mag_r": "unlensed source, r mag",
    "psfsize_r": "psfsize in r, arcsec",
    "psfdepth_r": "5-sigma depth in r, mag",
    "mag_r": "host, r mag",
}


def curves(axes: Mapping[str, Any], name: str, enough: int) -> bytes:
    """Return a PNG of completeness against each quantity of `selection_function.one_axis` at one threshold."""

    def paint(panels: np.ndarray) -> None:
        for axis, panel in zip(axes, panels, strict=False):
            for r in (r for r in axes[axis][name] if r["n"]):
                error = [[r["rate"] - r["low95"]], [r["high95"] - r["rate"]]]
                filled = BLUE if r["n"] >= enough else "white"
                panel.errorbar(r["at"], r["rate"], error, color=BLUE, fmt="o", mfc=filled, ms=4, lw=1)
            panel.set(xlabel=LABELS[axis], ylabel="found", ylim=(-0.03, 1.03))

    return _png(paint, len(axes), 1, 2.0)


def map_of(columns: Mapping[str, np.ndarray], name: str, threshold: float, edges: Edges) -> bytes:
    """Return a PNG of completeness over Einstein radius and source magnitude, all seeing and depths together."""
    x_axis, y_axis = "theta_e_arcsec", "src_mag_r"
    shape = tuple(len(edges[axis]) - 1 for axis in (x_axis, y_axis))
    x, y = (bin_of(columns[axis].astype(np.float64), edges[axis]) for axis in (x_axis, y_axis))
    inside = (x >= 0) & (y >= 0)
    n, found = np.zeros(shape, int), np.zeros(shape, int)
    np.add.at(n, (x[inside], y[inside]), 1)
    np.add.at(found, (x[inside], y[inside]), columns["logit"][inside] >= threshold)

    size = 5 if max(shape) > 6 else 8

    def paint(panels: np.ndarray) -> None:
        share = np.where(n > 0, found / np.maximum(n, 1), np.nan).T
        panels[0].set_facecolor("#f2f3f4")
        panels[0].grid(visible=False)
        panels[0].pcolormesh(share, vmin=0, vmax=1, cmap="Blues", edgecolors="white", linewidth=0.5)
        for i, j in np.ndindex(shape):
            text = f"{share[j, i]:.2f}\n{n[i, j]}" if n[i, j] else "–"
            colour = "white" if n[i, j] and share[j, i] > 0.55 else INK if n[i, j] else GREY
            panels[0].text(i + 0.5, j + 0.5, text, ha="center", va="center", fontsize=size, color=colour)
        # The outermost cells take what is beyond: only edges between cells have a name.
        for setter, axis in ((panels[0].set_xticks, x_axis), (panels[0].set_yticks, y_axis)):
            setter(range(1, len(edges[axis]) - 1), [f"{e:g}" for e in edges[axis][1:-1]])
        panels[0].set(xlabel=LABELS[x_axis], ylabel=LABELS[y_axis], title=f"found at {name}")

    return _png(paint, 1, 1, 4.4)


def _png(paint: Callable[[np.ndarray], None], rows: int, columns: int, height: float) -> bytes:
    with rc_context(STYLE):
        figure = Figure(figsize=(4.8, height * rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels: Any = figure.subplots(rows, columns, squeeze=False)
        paint(panels.ravel())
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()
