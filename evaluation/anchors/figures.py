"""What the anchors say, in figures: recall by set, domain and visibility, contamination by type."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.stats.intervals import wilson
from evaluation.anchors.sets import CONTAMINANTS
from evaluation.anchors.visibility import CLASSES

Columns = dict[str, np.ndarray]


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
