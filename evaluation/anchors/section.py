"""The anchors as the report shows them: one row an anchor, tables of figures, refusals and sheets of stamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.results import ANCHORS
from darkhaloscope.schema import to_batch
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from evaluation.anchors import visibility
from evaluation.anchors.figures import Columns, columns_of, contamination, counts, recall
from evaluation.anchors.pixels import GATES, Checked
from evaluation.anchors.sheets import sheets
from evaluation.section import Picture, Section, Table
from evaluation.thresholds import thresholds_of

NAME = "anchors"
SHOWN = 400  # refusals in the page, at most


def as_table(checked: Checked, logits: np.ndarray) -> pa.Table:
    """Return the ANCHORS table: one row an anchor, scored or refused."""
    n, row, stamps = len(checked.anchors), checked.row, checked.stamps
    columns: dict[str, Any] = dict(checked.anchors.columns) | checked.host
    columns |= {"gate": checked.gate, "refused": checked.refused}
    for name in ("pixels", "brickname", "region_split"):
        columns[name] = np.full(n, "", object)
        columns[name][row] = checked.pixels if name == "pixels" else stamps.column(name).to_pylist()
    for name in ("psfsize_r", "fwhm_r", "psfdepth_r", "logit"):
        columns[name] = np.full(n, np.nan)
        columns[name][row] = logits if name == "logit" else stamps.column(name).to_numpy()
    theta, fwhm = columns["theta_e_arcsec"], columns["fwhm_r"]
    columns["expected_arc_snr"] = visibility.expected_arc_snr(
        theta, columns["src_mag_r"], fwhm, columns["psfsize_r"], columns["psfdepth_r"]
    )
    columns["visibility"] = visibility.classify(theta / fwhm, columns["expected_arc_snr"])
    for column in ANCHORS.columns:
        if column.nullable:
            values = np.asarray(columns[column.name], np.float64)
            columns[column.name] = pa.array(values, column.type, mask=~np.isfinite(values))
    return pa.Table.from_batches([to_batch(ANCHORS, {n: columns[n] for n in ANCHORS.names})])


def section_of(
    table: pa.Table, stamps: dict[int, np.ndarray], metrics: dict[str, Any], made_from: dict[str, str],
    left_out: dict[str, int], out: str,
) -> Section:  # fmt: skip
    """Write the sheets and return the report's section."""
    c, thresholds = columns_of(table), thresholds_of(metrics)
    figures = {
        "thresholds": thresholds, "unresolved": metrics.get("unresolved", []), "recall": recall(c, thresholds),
        "contamination": contamination(c, thresholds), "counts": counts(c), "lenscat_left_out": left_out,
        "assumed_magnification": visibility.MAGNIFICATION,
    }  # fmt: skip
    pictures = []
    for number, (name, png) in enumerate(sheets(c, stamps, thresholds).items()):
        file = f"{NAME}-{number}.png"
        replace_file(join(out, file), png)
        pictures.append(
            Picture(f"{name}: stamps and logits", file, "blue: passes every threshold; orange: none")
        )
    lenses, scored = int((c["label"] == 1).sum()), c["pixels"] == "coadd"
    lead = (
        f"{lenses} known lenses and {len(c['label']) - lenses} contaminants; {int((scored & (c['label'] == 1)).sum())} "
        f"and {int((scored & (c['label'] == 0)).sum())} passed every gate and were scored on coadd pixels."
    )
    if weak := [n for n in metrics.get("unresolved", []) if n.startswith("tpr@")]:
        lead += f" Unresolved, since too few negatives set the threshold: {', '.join(weak)}."
    return Section("Anchors: real lenses and look-alikes", lead, made_from, "", tables(c, figures, thresholds),
                   pictures, figures)  # fmt: skip


def tables(c: Columns, figures: dict[str, Any], thresholds: dict[str, float]) -> list[Table]:
    """Return the section's tables: recall and contamination at each threshold, counts, and every refusal."""
    made = [table for fpr in thresholds for table in _rates(figures, fpr)]
    return [*made, _counted(figures["counts"]), _refused(c)]


def _rates(figures: dict[str, Any], fpr: str) -> list[Table]:
    lenses, others = ([r for r in figures[k] if r["fpr"] == fpr] for k in ("recall", "contamination"))
    made = [
        Table(
            ("set", "stratum", "N", "found", "recall", "low", "high"),
            [[r[k] for k in ("set", "stratum", "n", "found", "rate", "low95", "high95")] for r in lenses],
            f"Recall at {fpr}", "95 % Wilson intervals; lenses with coadd pixels only; sets are never added up",
        ),
        Table(
            ("type", "N", "passed", "share", "low", "high"),
            [[r[k] for k in ("type", "n", "found", "rate", "low95", "high95")] for r in others],
            f"Contaminants that pass at {fpr}",
        ),
    ]  # fmt: skip
    return made if others else made[:1]


def _counted(counted: list[dict[str, Any]]) -> Table:
    gates = [g for g in GATES if any(g in r["refused"] for r in counted)]
    return Table(
        ("set", "anchors", "scored", "from a cutout service", *gates),
        [
            [r["set"], r["anchors"], sum(r["scored"].values()), r["scored"].get("cutout_service", 0)]
            + [r["refused"].get(g, 0) for g in gates]
            for r in counted
        ],
        "Anchors and what refused them",
    )  # fmt: skip


def _refused(c: Columns) -> Table:
    refused = np.flatnonzero(c["gate"] != "")
    names = ("object_name", "anchor_set", "gate", "refused")
    note = f"{len(refused)} in all; all of them are in anchors.parquet" if len(refused) > SHOWN else ""
    rows = [[str(c[n][i]) for n in names] for i in refused[:SHOWN].tolist()]
    return Table(("name", "set", "gate", "reason"), rows, "Refused anchors", note)
