"""The pictures that explain the gates, as PNG files beside the section."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from darkhaloscope.records import BANDS
from darkhaloscope.report.charts import BLUE, GREY, INK, ORANGE, SOFT, draw
from darkhaloscope.storage import join
from darkhaloscope.validation.stamps import sheet
from darkhaloscope.writing import replace_file
from evaluation.gates.measure import VARIANTS, Measured
from evaluation.gates.verdict import D_BOUND, Gate
from evaluation.section import Picture

_COLOURS = {"pass": BLUE, "fail": "#b3261e", "unresolved": GREY, "reported": SOFT}


def write_pictures(folder: str, gates: Sequence[Gate], found: Measured) -> dict[str, Picture]:
    """Write the pictures; return them by what they explain: auc, difference, balance, logits, variants."""
    areas = [g for g in gates if g.figure == "AUC" and g.value is not None]
    differences = [g for g in gates if g.figure == "Cohen's d" and g.value is not None]
    made = {
        "auc": (_forest(areas, 0.5, 0.0), "How well the classes can be told",
                "AUC with its 95 % interval; blue: pass, red: fail, grey: unresolved or reported only."),
        "difference": (_difference(found), "Where the classes differ once the arc is taken away",
                       "Mean of positives minus controls in standard errors, pixel by pixel, g, r, z: noise alone "
                       "where all is well."),
        "balance": (_forest(differences, 0.0, D_BOUND), "Conditions by class",
                    f"Difference of the means in standard deviations, 95 %; the bound is {D_BOUND:g}."),
        "logits": (_logits(found), "Logits of the stamps and of their variants", "Quartiles, and 5 to 95 %."),
    }  # fmt: skip
    if found.sheet:
        made["variants"] = (
            sheet([image for one in found.sheet for image in (*(one[v] for v in VARIANTS), _arc(one))]),
            "What the network was shown",
            f"A row a positive: {', '.join(VARIANTS)}, and the arc alone.",
        )
    return {
        key: Picture(title, save(folder, f"gates-{key}.png", uri), caption)
        for key, (uri, title, caption) in made.items()
    }


def _arc(one: dict[str, np.ndarray]) -> np.ndarray:
    return one["as it is"] - one["arc removed"]


def save(folder: str, name: str, uri: str) -> str:
    """Write a chart (a data URI) as a PNG file into a folder; return its name."""
    replace_file(join(folder, name), base64.b64decode(uri.split(",", 1)[1]))
    return name


def _forest(gates: Sequence[Gate], null: float, bound: float) -> str:
    """Draw a figure and interval a line, with the value that says: no difference."""

    def paint(axis: Axes) -> None:
        axis.axvline(null, color=INK, lw=1, ls=":")
        if bound:
            axis.axvspan(null - bound, null + bound, color="#e6e8eb", lw=0, zorder=0)
        for line, gate in enumerate(gates):
            value, low, high = (
                float(v) if v is not None else np.nan for v in (gate.value, gate.low, gate.high)
            )
            bars = [[value - low], [high - value]]
            axis.errorbar(value, line, xerr=bars, fmt="o", ms=4, lw=1.3, color=_COLOURS[gate.verdict])
        axis.set_yticks(range(len(gates)), [g.name for g in gates], fontsize=7)
        axis.set_ylim(len(gates) - 0.5, -0.5)
        axis.set_xlabel(gates[0].figure if gates else "")

    return draw(paint, 1.2 + 0.17 * len(gates))


def _difference(found: Measured) -> str:
    classes = [found.pixels[found.label == c].astype(np.float32) for c in (True, False)]
    error = np.sqrt(sum(c.var(axis=0) / len(c) for c in classes))
    mean = classes[0].mean(axis=0) - classes[1].mean(axis=0)
    image = np.concatenate(list(np.where(error > 0, mean / np.where(error > 0, error, 1), 0)), axis=1)

    def paint(axis: Axes) -> None:
        axis.imshow(image, origin="lower", cmap="RdBu_r", vmin=-5, vmax=5)
        side = image.shape[1] // len(BANDS)
        for i, band in enumerate(BANDS):
            axis.text(i * side + 2, side - 2, band, va="top")
        axis.set(xticks=[], yticks=[], title="−5 (blue) to +5 (red) standard errors")
        axis.grid(visible=False)

    return draw(paint, 2.1)


def _logits(found: Measured) -> str:
    """Draw the logits of controls, positives and their variants as boxes, with whiskers to 5 and 95 %."""

    def of(variant: str, positive: bool) -> np.ndarray:
        logit = found.logit[variant]
        return logit[(found.label == positive) & np.isfinite(logit)]

    lines = [("controls", of("as it is", False), ORANGE), ("positives", of("as it is", True), BLUE)]
    lines += [(name, of(name, True), INK) for name in VARIANTS[1:]]
    lines = [
        (f"{name}, N = {len(values):,}", values, colour) for name, values, colour in lines if len(values)
    ]

    def paint(axis: Axes) -> None:
        for line, (_, values, colour) in enumerate(lines):
            look = {f"{part}props": {"color": colour} for part in ("box", "whisker", "cap", "median")}
            where = {"positions": [line], "orientation": "horizontal", "widths": 0.5, "manage_ticks": False}
            axis.boxplot([values], whis=(5, 95), sym="", **where, **look)
        axis.set_yticks(range(len(lines)), [name for name, _, _ in lines], fontsize=8)
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.set_xlabel("logit")

    return draw(paint, 2.8)
