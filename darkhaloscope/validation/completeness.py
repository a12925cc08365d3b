"""Validation of stage 4d: the share of injections that stand out, along each axis and over two at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from darkhaloscope.dataset import read_table
from darkhaloscope.injection.completeness import AXES, CELLS, PAIRS, ROWS
from darkhaloscope.records import COMPLETENESS, COMPLETENESS_CELLS, STAMPS
from darkhaloscope.report.charts import BLUE, FAINT, GREY, INK, draw
from darkhaloscope.report.page import Chart, Page, Section, Table
from darkhaloscope.schema import check_schema
from darkhaloscope.stage import read_record
from darkhaloscope.storage import join

_HEADER = ("bin", "rows", "injections", "detectable", "hosts", "share", "low 95 %", "high 95 %")
_COLOURS = {"all": BLUE, "clean": GREY}

Rows = list[dict[str, Any]]


def completeness_page(root: str) -> Page:
    """Return the page of a completeness table.

    Args:
        root: URL of stage 4d's output.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a table lacks a column.
    """
    table, cells = read_table(root), read_table(join(root, CELLS))
    check_schema(COMPLETENESS, table.schema, root)
    check_schema(COMPLETENESS_CELLS, cells.schema, join(root, CELLS))
    rows, squares, record = table.to_pylist(), cells.to_pylist(), read_record(root) or {}
    threshold = rows[0]["snr_threshold"]
    sections = [_axis_section([r for r in rows if r["axis"] == axis], axis) for axis in AXES]
    sections += [_pair_section([r for r in squares if r["axis"] == a], a, b) for a, b in PAIRS]
    return Page(
        "Completeness of the injections",
        f"Share of injections whose arc has a signal-to-noise of at least {threshold:g}; all: a failed or masked "
        "one counts as not detectable; clean: only those whose measurements can be trusted. "
        "Intervals: Wilson, 95 %, for as many independent injections as those of shared hosts are worth.",
        {
            "output": root,
            "hash": record.get("hash"),
            "inputs": record.get("inputs"),
            **record.get("counts", {}),
        },
        sections,
    )


def _axis_section(rows: Rows, axis: str) -> Section:
    """Return the table and the chart of one quantity."""
    cells = [[f"{r['low']:g} to {r['high']:g}", r["rows"], *_figures(r)] for r in rows]
    empty = sum(r["n"] == 0 for r in rows if r["rows"] == "all")
    n = sum(r["n"] for r in rows if r["rows"] == "all")
    caption = f"Completeness against {_label(axis)}: {n:,} injections, {empty} empty bins (hatched)"
    warnings = [] if n else [f"no injection has a {axis}"]
    picture = draw(lambda on: _paint_axis(on, rows, axis))
    return Section(
        axis, _meaning(axis), warnings, [Table(_HEADER, cells, caption)], [Chart(picture, caption)]
    )


def _figures(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in ("n", "n_detectable", "n_hosts", "completeness", "ci_low", "ci_high")]


def _paint_axis(on: Axes, rows: Rows, axis: str) -> None:
    for shift, kind in zip((-0.12, 0.12), ROWS, strict=True):
        bins = [r for r in rows if r["rows"] == kind]
        full = [(i, r) for i, r in enumerate(bins) if r["n"]]
        share = np.array([r["completeness"] for _, r in full])
        reach = np.array(
            [[r["completeness"] - r["ci_low"], r["ci_high"] - r["completeness"]] for _, r in full]
        )
        place = [i + shift for i, _ in full]
        on.errorbar(place, share, reach.reshape(-1, 2).T, fmt="o", ms=4, color=_COLOURS[kind], label=kind)
    for i, row in enumerate(r for r in rows if r["rows"] == "all"):
        if not row["n"]:
            on.axvspan(i - 0.5, i + 0.5, facecolor="none", edgecolor=FAINT, hatch="///", lw=0)
    _name_bins(on.xaxis, [r for r in rows if r["rows"] == "all"], "")
    on.set(ylim=(-0.02, 1.02), ylabel="share detectable", xlabel=_label(axis))
    on.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _pair_section(rows: Rows, first: str, second: str) -> Section:
    """Return the tables and charts of two quantities, for all and for clean rows."""
    caption = f"Completeness over {_label(first)} and {_label(second)}"
    header = (first, second, *_HEADER[2:])
    tables, charts = [], []
    for kind in ROWS:
        mine = [r for r in rows if r["rows"] == kind]
        cells = [[_bin_name(r, ""), _bin_name(r, "_2"), *_figures(r)] for r in mine if r["n"]]
        empty = len(mine) - len(cells)
        what = f"{caption}, {kind} rows: {sum(r['n'] for r in mine):,} injections, {empty} of {len(mine)} cells empty"
        tables.append(Table(header, cells, what))
        charts.append(
            Chart(draw(lambda on, m=mine: _paint_pair(on, m, first, second), 4.2), f"{what} (hatched)")
        )
    return Section(f"{first} and {second}", "", (), tables, charts)


def _paint_pair(on: Axes, rows: Rows, first: str, second: str) -> None:
    columns = sorted({(r["low"], r["high"]) for r in rows})
    lines = sorted({(r["low_2"], r["high_2"]) for r in rows})
    share = np.full((len(lines), len(columns)), np.nan)
    for row in rows:
        y, x = lines.index((row["low_2"], row["high_2"])), columns.index((row["low"], row["high"]))
        if row["n"]:
            share[y, x] = row["completeness"]
            colour = "white" if share[y, x] > 0.5 else INK
            on.text(
                x, y, f"{share[y, x]:.2f}\n{row['n']}", ha="center", va="center", fontsize=6, color=colour
            )
        else:
            on.fill_between(
                [x - 0.5, x + 0.5], y - 0.5, y + 0.5, facecolor="none", edgecolor=FAINT, hatch="////", lw=0
            )
    on.imshow(share, origin="lower", aspect="auto", cmap="Blues", norm=Normalize(0, 1))
    on.grid(False)
    _name_bins(on.xaxis, [r for r in rows if r["low_2"] == lines[0][0]], "")
    _name_bins(on.yaxis, [r for r in rows if r["low"] == columns[0][0]], "_2")
    on.set(xlabel=_label(first), ylabel=_label(second))
    figure = on.get_figure()
    assert figure is not None
    figure.colorbar(ScalarMappable(Normalize(0, 1), "Blues"), ax=on, label="share detectable; N below")


def _name_bins(axis: Any, rows: Rows, suffix: str) -> None:
    """Write the lower edge of each bin; bins are drawn of one width."""
    names = [f"{r['low' + suffix]:g}" for r in rows]
    axis.set_ticks(range(len(names)), [f"{name}–" for name in names], fontsize=7)


def _bin_name(row: dict[str, Any], suffix: str) -> str:
    return f"{row['low' + suffix]:g} to {row['high' + suffix]:g}"


def _label(axis: str) -> str:
    column = next(c for c in STAMPS.columns if c.name == axis)
    return f"{axis} ({column.unit})" if column.unit else axis


def _meaning(axis: str) -> str:
    return next(c for c in STAMPS.columns if c.name == axis).meaning
