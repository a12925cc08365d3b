"""The validation page of stage 4a: what a manifest holds, and how its classes differ in what is no lens.

The manifest is gone through once, some thousand rows at a time; only counts are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from darkhaloscope.dataset import committed_chunks, committed_files, open_part
from darkhaloscope.injection.balance import AXES, BINS, MEASURES, Tally, add_tallies
from darkhaloscope.records import INJECTION, SPLITS
from darkhaloscope.report.charts import BLUE, GREY, ORANGE, draw
from darkhaloscope.report.page import Chart, Page, Section, Table
from darkhaloscope.stage import read_record
from darkhaloscope.validation.histogram import Histogram

ROWS = 65_536
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FINE = 2_000  # bins from which quantiles are read
FLOATS = tuple(c.name for c in INJECTION if pa.types.is_floating(c.type))
UNITS = {c.name: c.unit for c in INJECTION}
SEEING, DEPTH = np.linspace(0.7, 1.8, 45), np.linspace(23.0, 27.0, 41)
RIGHT_ASCENSION, DECLINATION = np.linspace(0, 360, 121), np.linspace(-90, 90, 61)


@dataclass
class _Seen:
    """What is counted of a manifest. histograms: column -> that of the controls, that of the positives."""

    histograms: dict[str, tuple[Histogram, Histogram]]
    rows: Counter[tuple[str, ...]] = field(default_factory=Counter)
    bricks: Counter[str] = field(default_factory=Counter)
    occupancy: Any = 0
    sky: Any = 0


def manifest_page(root: str) -> Page:
    """Return the page of a manifest, of an experiment or of a catalogue.

    Args:
        root: URL of the manifest, `<output>/phase4a/<variant>/<experiment_id>`.

    Raises:
        DatasetError: nothing is committed there.
    """
    seen = _look_through(root)
    record = read_record(root) or {}
    facts = {n: record.get(n) for n in ("hash", "code_version", "inputs", "seconds", "finished")}
    total = sum(seen.rows.values())
    sections = [_rows(seen, record), _balance(record, root), _axes(seen), _bricks(seen)]
    name = record.get("experiment", {}).get("experiment_id", root)
    subtitle = f"{total:,} rows of {len(seen.bricks):,} bricks, {name}"
    return Page("Stage 4a: manifest", subtitle, {"root": root, **facts}, sections)


def _look_through(root: str) -> _Seen:
    urls = committed_files(root)
    seen = _Seen({n: (Histogram(*r, FINE), Histogram(*r, FINE)) for n, r in _ranges(urls).items()})
    names = [
        "brickname",
        "region_split",
        "sample",
        "control_kind",
        "object_type",
        "label",
        "psfsize_r",
        "psfdepth_r",
    ]
    for batch in _batches(urls, [*names, "ra", "dec", *FLOATS]):
        keys = ["region_split", "sample", "control_kind", "object_type"]
        found = pa.Table.from_batches([batch]).group_by(keys).aggregate([([], "count_all")]).to_pydict()
        seen.rows.update(
            dict(zip(zip(*(found[k] for k in keys), strict=True), found["count_all"], strict=True))
        )
        bricks = pc.value_counts(batch.column("brickname"))
        names_, counts = (bricks.field(i).to_pylist() for i in (0, 1))
        seen.bricks.update(dict(zip(names_, counts, strict=True)))
        label = batch.column("label").to_numpy()
        for name, of_label in seen.histograms.items():
            values = batch.column(name).to_numpy()
            for which, histogram in enumerate(of_label):
                histogram.add(values[label == which])
        seen.occupancy = seen.occupancy + _map(batch, "psfsize_r", "psfdepth_r", SEEING, DEPTH)
        seen.sky = seen.sky + _map(batch, "ra", "dec", RIGHT_ASCENSION, DECLINATION)
    return seen


def _batches(urls: list[str], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for url in urls:
        with open_part(url) as part:
            yield from part.iter_batches(ROWS, columns=columns)


def _ranges(urls: list[str]) -> dict[str, tuple[float, float]]:
    """Return the extremes of the injection's numbers, from the files' own statistics."""
    found: dict[str, tuple[float, float]] = {}
    for url in urls:
        with open_part(url) as part:
            for name in FLOATS:
                at = part.schema_arrow.get_field_index(name)
                for group in range(part.num_row_groups):
                    stats = part.metadata.row_group(group).column(at).statistics
                    if stats is not None and stats.has_min_max and np.isfinite(stats.min):
                        low, high = found.get(name, (np.inf, -np.inf))
                        found[name] = min(low, stats.min), max(high, stats.max)
    return found


def _map(batch: pa.RecordBatch, x: str, y: str, x_edges: np.ndarray, y_edges: np.ndarray) -> np.ndarray:
    first, second = (
        np.clip(batch.column(n).to_numpy().astype(np.float64), edges[0], edges[-1])
        for n, edges in ((x, x_edges), (y, y_edges))
    )
    bins: Any = (x_edges, y_edges)
    return np.histogram2d(first, second, bins=bins)[0]


def _rows(seen: _Seen, record: dict[str, Any]) -> Section:
    total, counts = sum(seen.rows.values()), record.get("counts", {})
    kinds = sorted({key[1:] for key in seen.rows})
    rows = []
    for sample, kind, object_type in kinds:
        by_split = [seen.rows[(s, sample, kind, object_type)] for s in SPLITS]
        rows.append([sample, kind, object_type, *by_split, sum(by_split)])
    splits = [sum(n for key, n in seen.rows.items() if key[0] == s) for s in SPLITS]
    shares = [["rows", *splits, total], ["share", *(n / max(total, 1) for n in splits), 1.0]]
    tables = [
        Table(["sample", "control kind", "type", *SPLITS, "all"], rows, "Rows by class and split"),
        Table(["", *SPLITS, "all"], shares, "Realised splits"),
    ]
    if left_out := counts.get("left_out"):
        tables.append(
            Table(["reason", "rows"], sorted(left_out.items()), "Left out of the catalogue (see quarantine)")
        )
    auc = record.get("selection", {}).get("total_magnitude_auc")
    if auc:
        tables.append(
            Table(
                list(auc),
                [list(auc.values())],
                "AUC of total r magnitude, before and after controls were matched",
            )
        )
    return Section("Rows", warnings=counts.get("warnings", ()), tables=tables)


def _balance(record: dict[str, Any], root: str) -> Section:
    rows = record.get("balance", [])
    header = ["quantity", "split", "positives", "controls", *MEASURES]
    table = Table(
        header, [[r[h] for h in header] for r in rows], "Positives against controls, a host counted once"
    )
    told = [r for r in rows if r["split"] == "all" and r["cohens_d"] is not None]
    charts = []
    if told:
        n = f"{told[0]['positives']:,} positives, {told[0]['controls']:,} controls"
        charts.append(
            Chart(draw(lambda a: _effects(a, told), height=2.6), f"Cohen's d with 2 standard errors; {n}")
        )
    chunks = committed_chunks(root).values()
    tallies = add_tallies({a: Tally.from_json(t) for a, t in c["tallies"].items()} for c in chunks)
    for axis in ("psfsize_r", "psfdepth_r", "mag_r", "total_mag_r"):
        counts = tallies[axis].counts.sum(axis=0)
        if counts.sum():
            caption = f"{_what(axis)}; N = {counts[1].sum():,} positives, {counts[0].sum():,} controls"
            charts.append(Chart(draw(lambda a, x=axis, c=counts: _classes(a, x, c)), caption))
    text = (
        "What is no lens must not tell the classes apart: |d| below 0.1 or within 2 standard errors of 0, AUC near "
        "0.5. Total magnitude differs by nature, since an arc only adds light, unless controls are matched in it."
    )
    return Section("Class balance", text, tables=[table], charts=charts)


def _what(axis: str) -> str:
    names = {"total_mag_r": "Host and arc (positives, estimated) against the controls' hosts, r"}
    return f"{names.get(axis, axis)}, {AXES[axis][2]}"


def _effects(axes: Axes, rows: list[dict[str, Any]]) -> None:
    d, error = (np.array([r[n] for r in rows]) for n in ("cohens_d", "cohens_d_se"))
    places = np.arange(len(rows))[::-1]
    axes.axvspan(-0.1, 0.1, color="#eef3f8")
    axes.errorbar(d, places, xerr=2 * error, fmt="o", color=BLUE, ms=4, capsize=2)
    axes.set_yticks(places, [r["quantity"] for r in rows])
    reach = max(0.15, 1.15 * float(np.max(np.abs(d) + 2 * error)))
    axes.set(xlabel="(positives - controls) / deviation", xlim=(-reach, reach), ylim=(-0.6, len(rows) - 0.4))


def _classes(axes: Axes, axis: str, counts: np.ndarray) -> None:
    low, high, unit = AXES[axis]
    filled = np.flatnonzero(counts.sum(axis=0))
    wide = max(1, (filled[-1] - filled[0]) // 60)
    edges = np.linspace(low, high, BINS + 1)
    for number, (colour, name) in enumerate(((ORANGE, "controls"), (BLUE, "positives"))):
        some = counts[number][: BINS // wide * wide].reshape(-1, wide).sum(axis=1)
        width = (high - low) / BINS * wide
        axes.stairs(
            some / max(some.sum(), 1) / width,
            edges[: BINS // wide * wide + 1 : wide],
            color=colour,
            label=name,
        )
    axes.set(
        xlabel=f"{axis} ({unit})",
        ylabel="share per unit",
        xlim=(edges[filled[0]], edges[min(filled[-1] + 1, BINS)]),
    )
    axes.legend()


def _axes(seen: _Seen) -> Section:
    rows = []
    for name, of_label in seen.histograms.items():
        for histogram, who in zip(reversed(of_label), ("positives", "controls (virtual)"), strict=True):
            if counted := int(histogram.counts.sum()):
                rows.append([name, UNITS[name], who, counted, *map(histogram.quantile, QUANTILES)])
    header = ["quantity", "unit", "rows", "N", *(f"{q:.0%}" for q in QUANTILES)]
    table = Table(header, rows, f"Quantiles of the injection, to 1/{FINE} of each range")
    charts = []
    if "theta_e_arcsec" in seen.histograms:
        controls, positives = seen.histograms["theta_e_arcsec"]
        n = f"{positives.counts.sum():,} positives, {controls.counts.sum():,} controls (virtual)"
        if controls.low < controls.high:
            charts.append(Chart(draw(lambda a: _radii(a, controls, positives)), f"Einstein radius; N = {n}"))
    return Section("Injections", tables=[table], charts=charts)


def _radii(axes: Axes, controls: Histogram, positives: Histogram) -> None:
    edges = np.linspace(controls.low, controls.high, 51)
    for histogram, colour, name in ((controls, ORANGE, "controls (virtual)"), (positives, BLUE, "positives")):
        some = histogram.counts.reshape(50, -1).sum(axis=1)
        axes.stairs(some / max(some.sum(), 1), edges, color=colour, label=name)
    axes.set(xlabel="theta_E (arcsec)", ylabel="share of rows")
    axes.legend(loc="center right")


def _bricks(seen: _Seen) -> Section:
    rows = np.array(list(seen.bricks.values()))
    table = Table(
        ["bricks", *(f"{q:.0%}" for q in QUANTILES)],
        [[len(rows), *(float(v) for v in np.quantile(rows, QUANTILES))]],
        "Rows per brick",
    )
    charts = [
        Chart(draw(lambda a: _per_brick(a, rows)), f"Rows per brick; N = {len(rows):,} bricks"),
        Chart(
            draw(
                lambda a: _image(
                    a, seen.occupancy, SEEING, DEPTH, "psfsize_r (arcsec)", "psfdepth_r (AB mag)"
                )
            ),
            "Rows by seeing and depth (logarithmic; outermost cells hold what lies beyond)",
        ),
        Chart(
            draw(lambda a: _image(a, seen.sky, RIGHT_ASCENSION, DECLINATION, "RA (deg)", "Dec (deg)")),
            "Rows on the sky (logarithmic)",
        ),
    ]
    return Section("Bricks, seeing and sky", tables=[table], charts=charts)


def _per_brick(axes: Axes, rows: np.ndarray) -> None:
    axes.hist(rows, bins=min(60, max(2, len(np.unique(rows)))), color=GREY)
    axes.set(xlabel="rows of a brick", ylabel="bricks")


def _image(axes: Axes, counts: np.ndarray, x: np.ndarray, y: np.ndarray, x_name: str, y_name: str) -> None:
    shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
    mesh = axes.pcolormesh(x, y, shown.T, cmap="Blues", vmin=0)
    assert axes.figure is not None
    axes.figure.colorbar(mesh, ax=axes, label="log10 rows")
    axes.set(xlabel=x_name, ylabel=y_name)
