"""What a search found, in numbers and pictures: area, targets, refusals, scores against the negatives', conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.records import BANDS
from darkhaloscope.report.charts import BLUE, ORANGE, draw
from darkhaloscope.report.page import Chart, Link, Page, Section, Table
from darkhaloscope.search.reasons import short
from darkhaloscope.search.reference import Reference

SHARES = (0.05, 0.5, 0.95)
SHOWN = 30


def summary_of(
    candidates: pa.Table,
    left_out: Mapping[str, int],
    area: str,
    square_degrees: float,
    reference: Reference | None,
) -> dict[str, Any]:
    """Return a search's numbers.

    Args:
        candidates: CANDIDATES rows, in the order of rank, without pixels.
        left_out: positions that have no row, by reason.
        area: in words.
        square_degrees: its size within good bricks; 0 for a list of positions.
        reference: the evaluation's negatives.
    """
    logit = candidates.column("logit").to_numpy().astype(np.float64)
    scored = logit[np.isfinite(logit)]
    refused = Counter(dict(left_out))
    for reason, rows in _counted(candidates.column("refused")):
        refused[short(reason)] += rows
    known = candidates.filter(pc.not_equal(candidates.column("known_name"), ""))
    return {
        "area": area,
        "square_degrees": round(square_degrees, 5) or None,
        "targets": candidates.num_rows + sum(left_out.values()),
        "scored": len(scored),
        "refused": dict(refused.most_common()),
        "merged": int(candidates.column("merged").to_numpy().sum()),
        "forced": sum(rows for _, rows in _counted(candidates.column("outside"))),
        "known": known.num_rows,
        "known_ranks": known.column("rank").to_pylist()[:SHOWN],
        "logit": _quantiles(scored),
        "expected_false": _expected_false(scored, reference),
        "seeing_and_depth": {
            f"{kind}_{b}": _quantiles(candidates.column(f"{kind}_{b}").to_numpy().astype(np.float64))
            for kind in ("psfsize", "psfdepth")
            for b in BANDS
        },
    }


def _counted(texts: pa.ChunkedArray) -> list[tuple[str, int]]:
    """Return each text that is not empty and how many rows have it."""
    counts = pc.value_counts(texts).to_pylist()
    return [(c["values"], c["counts"]) for c in counts if c["values"]]


def _quantiles(values: np.ndarray) -> list[float] | None:
    values = values[np.isfinite(values)]
    return np.round(np.quantile(values, SHARES), 4).tolist() if len(values) else None


def _expected_false(scored: np.ndarray, reference: Reference | None) -> list[dict[str, Any]]:
    """Return, for the n best rows, how many were expected there were the area without any lens."""
    if reference is None or not len(scored):
        return []
    best = [n for n in (10, 30, 100, 300, 1000, 3000, 10_000) if n <= len(scored)]
    falling = np.sort(scored)[::-1]
    rows = []
    for n in best:
        rate, high = (float(v[0]) for v in reference.fpr(falling[n - 1 : n]))
        rows.append({"best": n, "logit": round(float(falling[n - 1]), 4), "fpr": rate, "false": rate * len(scored),
                     "false_high": high * len(scored)})  # fmt: skip
    return rows


def summary_page(
    summary: Mapping[str, Any], candidates: pa.Table, reference: Reference | None, facts: dict[str, Any]
) -> Page:
    """Return a search's page; arguments as `summary_of`."""
    logit = candidates.column("logit").to_numpy().astype(np.float64)
    logit = logit[np.isfinite(logit)]
    size = summary["square_degrees"]
    subtitle = f"{summary['scored']:,} of {summary['targets']:,} targets scored" + (
        f" in {size:g} square degrees" if size else ""
    )
    sections = [
        Section(
            "Targets",
            "Every target is scored or refused.",
            tables=[Table(("reason", "targets"), list(summary["refused"].items()), "refused")],
        ),
        _scores(logit, summary, reference),
        _best(candidates),
        Section(
            "Seeing and depth",
            "Of the targets, in the survey's own numbers: PSF size in arcsec, 5-sigma depth in AB mag.",
            tables=[
                Table(
                    ("quantity", *(f"{s:.0%}" for s in SHARES)),
                    [(k, *(v or (None,) * len(SHARES))) for k, v in summary["seeing_and_depth"].items()],
                    "quantiles",
                )
            ],
        ),
    ]
    return Page("Search: " + summary["area"], subtitle, facts, sections)


def _scores(logit: np.ndarray, summary: Mapping[str, Any], reference: Reference | None) -> Section:
    if not len(logit):
        return Section("Scores", "No target was scored.")
    text, tables = "No reference was given, so no rates are known.", []
    if reference is not None:
        text = (
            f"Rates are those of {reference.n_negatives:,} negatives of the evaluation; a rate of fewer than 30 of "
            "them is uncertain, as its upper bound tells."
        )
        rows = [tuple(r.values()) for r in summary["expected_false"]]
        head = ("best", "down to logit", "FPR", "false positives expected", "at most (95 %)")
        tables = [Table(head, rows, "expected among the best, were there no lens at all")]
    chart = Chart(
        draw(lambda axes: _paint(axes, logit, reference)),
        f"Scores of {len(logit):,} targets, and of the evaluation's negatives"
        + (f" ({reference.n_negatives:,})" if reference else " (none given)"),
    )
    return Section("Scores", text, tables=tables, charts=[chart])


def _paint(axes: Any, logit: np.ndarray, reference: Reference | None) -> None:
    ends = [logit.min(), logit.max()]
    if reference is not None:
        ends += [reference.logit[0], reference.logit[-1]]
    edges = np.linspace(min(ends) - 1e-6, max(ends) + 1e-6, 41)
    axes.stairs(np.histogram(logit, edges)[0] / len(logit), edges, color=BLUE, label="targets")
    if reference is not None:
        at_least = reference.false_positives(edges)
        share = -np.diff(at_least) / reference.n_negatives
        axes.stairs(share, edges, color=ORANGE, label="negatives of the evaluation")
    axes.set(xlabel="logit", ylabel="share", yscale="log")
    axes.legend()


def _best(candidates: pa.Table) -> Section:
    shown = ("rank", "name", "logit", "probability", "fpr", "known_name", "outside")
    rows = candidates.slice(0, SHOWN).select([*shown, "viewer_url"]).to_pylist()
    lines = [
        [Link(r[n], r["viewer_url"]) if n == "name" else r[n] for n in shown]
        for r in rows
        if r["rank"] is not None
    ]
    head = ("rank", "candidate", "logit", "probability", "FPR", "known", "outside the training")
    return Section("Best candidates", tables=[Table(head, lines, f"the first {len(lines)}")])
