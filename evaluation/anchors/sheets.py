"""Sheets of the anchors' stamps with their scores, to look at."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from darkhaloscope.records import BANDS
from darkhaloscope.report.charts import BLUE, GREY, ORANGE, STYLE
from darkhaloscope.report.pictures import lupton_rgb
from evaluation.anchors.figures import Columns
from evaluation.anchors.sets import CONTAMINANTS

COLUMNS = 8  # of a sheet
SHEET_STAMPS = 240  # of a set; the lowest-scored lenses and the highest-scored contaminants come first


def sheets(c: Columns, stamps: dict[int, np.ndarray], thresholds: dict[str, float]) -> dict[str, bytes]:
    """Return set -> PNG of its anchors' stamps with their scores; N and what is left out stand in the caption.

    Args:
        c: columns of the table.
        stamps: row -> (band, y, x) nmgy/pixel.
        thresholds: of `thresholds_of`; a title is blue where the strictest one is passed, orange where none is.
    """
    made = {}
    for name in dict.fromkeys(c["anchor_set"].tolist()):
        rows = np.array([i for i in stamps if c["anchor_set"][i] == name], np.int64)
        order = np.argsort(c["logit"][rows] * (1 if name != CONTAMINANTS else -1), kind="stable")
        if len(rows):
            made[name] = _sheet(c, rows[order][:SHEET_STAMPS], stamps, thresholds)
    return made


def _sheet(
    c: Columns, rows: np.ndarray, stamps: dict[int, np.ndarray], thresholds: dict[str, float]
) -> bytes:
    strict, loose = (pick(thresholds.values(), default=np.inf) for pick in (max, min))
    width = min(COLUMNS, len(rows))
    height = -(-len(rows) // width)
    with rc_context(STYLE):
        figure = Figure(figsize=(1.35 * width, 1.62 * height))
        FigureCanvasAgg(figure)
        axes = figure.subplots(height, width, squeeze=False).ravel()
        figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.28 / (1.62 * height), 0.04, 0.24)
        for axis in axes:
            axis.set_axis_off()
        for axis, i in zip(axes, rows.tolist(), strict=False):
            axis.imshow(lupton_rgb(stamps[i], BANDS), origin="lower", interpolation="nearest")
            logit = float(c["logit"][i])
            colour = BLUE if logit >= strict else GREY if logit >= loose else ORANGE
            name = str(c["object_name"][i] or c["object_type"][i]).split(" | ")[0][:18]
            axis.set_title(f"{name}\n{logit:.2f}", fontsize=6.5, color=colour, pad=2)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
