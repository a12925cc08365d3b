r"""The selection function of a finder: which lenses it finds, from injections that it has scored.

    python -m evaluation.selection_function --scores SCORES --metrics RUN/evaluation/metrics.json --out RUN/evaluation

The scores are of `evaluation.score` on injections over the whole source plane: sources inside a circle around the lens
whether they make an arc or not, so that a share found times the circle's area is a cross-section. `make
selection-function` makes and scores them on the simulated sky; docs/selection-function.md says how for the survey.
An injection is found where its logit reaches the threshold of an FPR that `metrics.json` of the same checkpoint gives.

Writes selection_function.parquet (every cell of theta_E, source magnitude, seeing, depth and host magnitude, with N,
its hosts and an interval; empty cells are null), selection_function.json (a section of the report) and its plots.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from darkhaloscope.injection import completeness as injected
from darkhaloscope.stage import read_record
from darkhaloscope.stats.intervals import cluster_sums
from darkhaloscope.storage import join
from darkhaloscope.writing import atomic_output, replace_file
from evaluation.command import command_line, explaining
from evaluation.completeness import AXES, CELLS, ENOUGH, KEY, cell_of, cells_table, share_of
from evaluation.scores import Scores, ScoresError, read_scores
from evaluation.section import Picture, Section, Table, write
from evaluation.selection_plots import curves, map_of
from evaluation.thresholds import read_metrics, thresholds_of

NAME = "selection_function"
HOST_EDGES = (0, 17, 18, 18.5, 19, 19.5, 20, 21, 40)
ONE_BY_ONE = {axis: injected.AXES.get(axis, HOST_EDGES) for axis in AXES}
"""Edges of the axes where each is shown alone: finer than the cells'."""
COLUMNS = ("control_kind", *ONE_BY_ONE)
BIN = ("low", "high", "n", "found", "hosts", "at", "rate", "low95", "high95")
"""What is stated of a bin of one axis: its edges, counts, mean value, share found and interval."""
PLANE = ("prior", "grid", "custom_grid", "source", "src_n", "max_offset_over_theta_e")


def injections_of(scores: Scores) -> dict[str, np.ndarray]:
    """Return the columns of the injections among scores.

    Raises:
        ScoresError: there are none.
    """
    rows = scores.columns["control_kind"] == "none"
    if not rows.any():
        raise ScoresError(
            f"none of the {len(rows)} scores is of an injection; score injections over the source plane"
        )
    return {k: v[rows] for k, v in scores.columns.items()}


def prior_of(scores: Scores) -> tuple[dict[str, Any], list[str]]:
    """Return what the injections were drawn from, as the stage that made them recorded it, and what to warn of."""
    made = (read_record(str(scores.record.get("data", ""))) or {}).get("experiment", {})
    if not made:
        return {}, ["The prior is not known: the scored data's own record was not found."]
    injection, prior, warnings = made["injection"], made["prior"], []
    stated = {k: injection[k] for k in PLANE} | (
        {"natural": prior} if injection["prior"] == "natural" else {}
    )
    if injection["prior"] == "natural" and prior["position"] != "plane":
        warnings.append(
            f"Sources were drawn where they are {prior['position']}, not over the whole source plane."
        )
    if injection["prior"] == "grid" and injection["max_offset_over_theta_e"] < 1:
        warnings.append(
            "Sources were drawn well inside the Einstein radius, not over the whole source plane."
        )
    finder = scores.record.get("experiment", {})
    if finder and any(made[k] != finder[k] for k in ("seed", "splits")):
        warnings.append(
            "The injections' sky is divided otherwise than the finder's: it may have seen these hosts."
        )
    return stated, warnings


def one_axis(
    columns: Mapping[str, np.ndarray], thresholds: Mapping[str, float]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return axis -> FPR name -> one entry a bin: `BIN`, of which those but the counts are None where it is empty."""
    return {
        axis: {name: _bins(columns, axis, columns["logit"] >= t) for name, t in thresholds.items()}
        for axis in ONE_BY_ONE
    }


def _bins(columns: Mapping[str, np.ndarray], axis: str, found: np.ndarray) -> list[dict[str, Any]]:
    values, edges = columns[axis].astype(np.float64), ONE_BY_ONE[axis]
    bins, n_bins = injected.bin_of(values, edges), len(edges) - 1
    sums = cluster_sums(bins, columns["host_id"], found, n_bins)
    inside = bins >= 0
    at = np.bincount(bins[inside], values[inside], n_bins) / np.maximum(sums[:, 0], 1)
    shares = np.stack([at, *share_of(sums)], axis=-1).tolist()
    return [
        dict(zip(BIN, (*map(float, edge), *counts, *(share if counts[0] else [None] * 4)), strict=True))
        for edge, counts, share in zip(itertools.pairwise(edges), sums[:, :3].tolist(), shares, strict=True)
    ]


def selection_function(scores_url: str, metrics_url: str, out: str, cells: str) -> Section:
    """Measure, write and return the section, in the cells of `CELLS`; see the module's docstring.

    Raises:
        Explained: what was scored, or the metrics, cannot be used.
    """
    scores = read_scores(scores_url, COLUMNS)
    metrics = read_metrics(metrics_url, {k: scores.provenance.get(k) for k in ("checkpoint", "d4")})
    if not (thresholds := thresholds_of(metrics)):
        raise ScoresError(f"{metrics_url}: no threshold: its negatives are too few for any")
    columns = injections_of(scores)
    prior, warnings = prior_of(scores)
    cell = cell_of(columns, CELLS[cells])
    table = cells_table(cell, columns["host_id"], columns["logit"], thresholds, CELLS[cells])
    limits = {
        a: [float(c.min()), float(c.max())] for a in AXES if len(c := columns[a][np.isfinite(columns[a])])
    }
    facts = {"prior": prior, "thresholds": thresholds, "limits": limits, "scored_with": scores.provenance}
    with atomic_output(join(out, f"{NAME}.parquet")) as sink:
        pq.write_table(table.replace_schema_metadata({KEY: json.dumps(facts)}), sink)
    axes = one_axis(columns, thresholds)
    n = np.bincount(cell[cell >= 0], minlength=table.num_rows // len(thresholds))
    counts = {
        "injections": len(cell), "hosts": len(np.unique(columns["host_id"])), "cells": len(n),
        "empty_cells": int((n == 0).sum()), "cells_with_enough": int((n >= ENOUGH).sum()), "enough": ENOUGH,
    }  # fmt: skip
    maps = {name: map_of(columns, name, t, CELLS[cells]) for name, t in thresholds.items()}
    lines = {name: curves(axes, name, ENOUGH) for name in thresholds}
    pictures = [*_pictures(out, "map", maps), *_pictures(out, "curves", lines)]
    unresolved = [u for u in metrics.get("unresolved", []) if u.startswith("tpr@")]
    section = Section(
        "Selection function", _lead(counts, warnings, unresolved),
        {"scores": scores.hash, "thresholds": metrics["scores_hash"]}, "",
        [_drawn_from(prior), *_tables(axes, thresholds)], pictures,
        {"counts": counts, "axes": axes, "warnings": warnings, "unresolved": unresolved, **facts},
    )  # fmt: skip
    write(out, NAME, section)
    return section


_TITLES = {
    "curves": "Completeness at {}, one quantity at a time",
    "map": "Completeness at {}: theta_E and source",
}
_CAPTIONS = {
    "curves": f"95 % intervals, a host's injections as a cluster; hollow: fewer than {ENOUGH} injections; "
    "bins without any are left out",
    "map": "share found and N in each cell; a dash: no injection",
}


def _lead(counts: Mapping[str, int], warnings: list[str], unresolved: list[str]) -> str:
    filled = counts["cells"] - counts["empty_cells"]
    text = (
        f"{counts['injections']:,} injections on {counts['hosts']:,} hosts in {filled:,} of {counts['cells']:,} cells; "
        f"{counts['cells_with_enough']:,} cells have {ENOUGH} or more. Of injections with a stamp; "
        "intervals take those of one host as a cluster."
    )
    if unresolved:
        text += f" Unresolved, since too few negatives set the threshold: {', '.join(unresolved)}."
    return " ".join([text, *warnings])


def _pictures(out: str, kind: str, drawn: Mapping[str, bytes]) -> list[Picture]:
    """Write the PNG of each threshold beside the section, and return them for it."""
    files = {name: f"{NAME}-{name}-{kind}.png" for name in drawn}
    for name, png in drawn.items():
        replace_file(join(out, files[name]), png)
    return [Picture(_TITLES[kind].format(name), file, _CAPTIONS[kind]) for name, file in files.items()]


def _drawn_from(prior: Mapping[str, Any]) -> Table:
    """Return what the injections were drawn from; of a grid, every value of an axis is equally likely."""
    known = {k: v for k, v in prior.items() if not isinstance(v, Mapping)}
    parts = [known, *(v for v in prior.values() if isinstance(v, Mapping))]
    rows = [
        (k, ", ".join(map(str, v)) if isinstance(v, list | tuple) else v)
        for part in parts
        for k, v in part.items()
    ]
    return Table(("quantity", "value"), rows, "What the injections were drawn from")


def _tables(axes: Mapping[str, Any], thresholds: Mapping[str, float]) -> list[Table]:
    keys = ("low", "high", "n", "found", "hosts", "rate", "low95", "high95")
    return [
        Table(("from", "to", "N", "found", "hosts", "completeness", "low", "high"),
              [[row[k] for k in keys] for row in rows], f"{axis} at {name} (logit {thresholds[name]:.3g})")
        for axis, by_name in axes.items()
        for name, rows in by_name.items()
    ]  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("selection_function", __doc__)
    p.add_argument(
        "--scores", required=True, help="scores of injections over the source plane (evaluation.score)"
    )
    p.add_argument("--metrics", required=True, help="metrics.json of the same checkpoint: the thresholds")
    p.add_argument("--out", required=True, help="folder for the table, the section and the plots")
    p.add_argument(
        "--cells", choices=CELLS, default="coarse",
        help="coarse: 60, of theta_E, source and seeing; fine: 3,240, of depth and host too (default: %(default)s)",
    )  # fmt: skip
    return p


@explaining("selection_function")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    args = parser().parse_args(argv)
    section = selection_function(args.scores, args.metrics, args.out, args.cells)
    print(section.lead)
    print(f"-> {join(args.out, NAME)}.parquet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
