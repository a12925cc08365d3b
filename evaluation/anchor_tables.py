"""What the anchors say, in figures and pictures: recall by set, domain and visibility, contamination by type."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from darkhaloscope.charts import BLUE, GREY, ORANGE, STYLE
from darkhaloscope.intervals import wilson
from darkhaloscope.pictures import lupton_rgb
from darkhaloscope.records import BANDS
from evaluation.anchor_sets import CONTAMINANTS
from evaluation.section import Table
from evaluation.visibility import CLASSES

COLUMNS = 8  # of a sheet
SHEET_STAMPS = 240  # of a set; the lowest-scored lenses and the highest-scored contaminants come first
Columns = dict[str, np.ndarray]


def thresholds_of(metrics: dict[str, Any]) -> dict[str, float]:
    """Return FPR name -> logit from which a stamp counts as found, those that `metrics.json` could give."""
    figures = metrics["figures"]
    return {
        name.removeprefix("tpr@"): float(f["threshold"])
        for name, f in figures.items()
        if name.startswith("tpr@fpr") and f.get("threshold") is not None
    }


def columns_of(anchors: pa.Table) -> Columns:
    """Return the columns of a table as arrays, nulls as NaN."""
    return {n: anchors.column(n).to_numpy(zero_copy_only=False) for n in anchors.column_names}


def rate(found: np.ndarray) -> dict[str, Any]:
    """Return how many of some anchors were found: n, found, rate and its 95 % Wilson interval (None where n is 0)."""
    n, k = len(found), int(np.count_nonzero(found))
    low, high = (float(v) for v in wilson(k, n))
    return (
        {"n": n, "found": k, "rate": k / n, "low95": low, "high95": high}
        if n
        else {"n": 0, "found": 0, "rate": None, "low95": None, "high95": None}
    )


def strata(c: Columns) -> dict[str, np.ndarray]:
    """Return name -> (n,) bool of the parts that recall is stated for."""
    parts = {
        "all": np.ones(len(c["label"]), bool),
        "passes the target cuts": c["passes_target_cuts"] == 1,
        "outside the target cuts": c["passes_target_cuts"] == 0,
        "sky not trained on": np.isin(c["region_split"], ("val", "test")),
    }
    return parts | {f"arc {name}": c["visibility"] == name for name in CLASSES}


def recall(c: Columns, thresholds: dict[str, float]) -> list[dict[str, Any]]:
    """Return recall of the lenses scored on coadds: one entry for each set, stratum and threshold."""
    scored = (c["label"] == 1) & (c["pixels"] == "coadd")
    made = []
    for name in _sets(c, 1):
        for stratum, part in strata(c).items():
            rows = scored & part & (c["anchor_set"] == name)
            if stratum != "all" and not rows.any():
                continue
            for fpr, threshold in thresholds.items():
                found = rate(c["logit"][rows] >= threshold)
                made.append({"set": name, "stratum": stratum, "fpr": fpr, "threshold": threshold, **found})
    return made


def contamination(c: Columns, thresholds: dict[str, float]) -> list[dict[str, Any]]:
    """Return the share of contaminants scored on coadds that pass, one entry for each type and threshold."""
    scored = (c["label"] == 0) & (c["pixels"] == "coadd")
    kinds = sorted(set(c["object_type"][scored]))
    return [
        {"type": k, "fpr": fpr, "threshold": t, **rate(c["logit"][scored & (c["object_type"] == k)] >= t)}
        for k in kinds
        for fpr, t in thresholds.items()
    ]


def counts(c: Columns) -> list[dict[str, Any]]:
    """Return for each set how many anchors it has, how many each gate refused, and how many were scored."""
    made = []
    for name in (*_sets(c, 1), *_sets(c, 0)):
        mine = c["anchor_set"] == name
        gates = Counter(g for g in c["gate"][mine].tolist() if g)
        pixels = Counter(p for p in c["pixels"][mine].tolist() if p)
        made.append({"set": name, "anchors": int(mine.sum()), "refused": dict(gates), "scored": dict(pixels)})
    return made


def _sets(c: Columns, label: int) -> list[str]:
    """Return the names of the sets of lenses or contaminants, in the order of the table."""
    of_label = (c["anchor_set"] == CONTAMINANTS) == (label == 0)
    return list(dict.fromkeys(c["anchor_set"][of_label].tolist()))


def tables(
    c: Columns, figures: dict[str, Any], thresholds: dict[str, float], most_refusals: int = 400
) -> list[Table]:
    """Return the section's tables: recall and contamination at each threshold, counts, and every refusal."""
    made = []
    for fpr in thresholds:
        rows = [r for r in figures["recall"] if r["fpr"] == fpr]
        made.append(
            Table(
                ("set", "stratum", "N", "found", "recall", "low", "high"),
                [[r[k] for k in ("set", "stratum", "n", "found", "rate", "low95", "high95")] for r in rows],
                f"Recall at {fpr}", "95 % Wilson intervals; lenses with coadd pixels only; sets are never added up",
            )
        )  # fmt: skip
        rows = [r for r in figures["contamination"] if r["fpr"] == fpr]
        if rows:
            made.append(
                Table(
                    ("type", "N", "passed", "share", "low", "high"),
                    [[r[k] for k in ("type", "n", "found", "rate", "low95", "high95")] for r in rows],
                    f"Contaminants that pass at {fpr}",
                )
            )  # fmt: skip
    gates = sorted({g for r in figures["counts"] for g in r["refused"]})
    made.append(
        Table(
            ("set", "anchors", "scored", "from a cutout service", *gates),
            [
                [r["set"], r["anchors"], sum(r["scored"].values()), r["scored"].get("cutout_service", 0)]
                + [r["refused"].get(g, 0) for g in gates]
                for r in figures["counts"]
            ],
            "Anchors and what refused them",
        )
    )  # fmt: skip
    refused = np.flatnonzero(c["gate"] != "")
    names = ("object_name", "anchor_set", "gate", "refused")
    made.append(
        Table(
            ("name", "set", "gate", "reason"),
            [[str(c[n][i]) for n in names] for i in refused[:most_refusals].tolist()],
            "Refused anchors",
            f"{len(refused)} in all; all of them are in anchors.parquet" if len(refused) > most_refusals else "",
        )
    )  # fmt: skip
    return made


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
