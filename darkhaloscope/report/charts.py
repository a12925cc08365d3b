"""One look for every chart of every report: colours, style, and how a figure becomes part of a page.

Injections (positives) are blue and controls orange everywhere; a figure too few rows carry is drawn grey or hatched.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE = "#1f6fb4", "#d9741a"
INK, SOFT, GREY, FAINT = "#22262b", "#5d6570", "#8a8f98", "#d5d8dc"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
}
WIDTH, HEIGHT, DPI = 4.8, 3.5, 170  # narrow, so that the text stays readable on a phone


def draw(painter: Callable[..., None], height: float = HEIGHT, panels: Sequence[float] = (1,)) -> str:
    """Let `painter` draw on one Axes (or several, one above the other) and return the PNG as a data URI.

    Args:
        painter: called with the Axes.
        height: of the figure, inches; its width is that of a phone's page.
        panels: relative heights of the Axes, which share the x axis.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, sharex=True, height_ratios=list(panels), squeeze=False)[:, 0]
        painter(*axes)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=DPI)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
