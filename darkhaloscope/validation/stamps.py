"""Validation of stage 4c: stamps made and failed, what was measured on them, class balance, and some to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from darkhaloscope.dataset import committed_files, open_part
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import BANDS, STAMPS
from darkhaloscope.report.charts import BLUE, ORANGE, draw
from darkhaloscope.report.page import Chart, Page, Section, Table, percent
from darkhaloscope.report.pictures import lupton_rgb
from darkhaloscope.schema import check_schema
from darkhaloscope.stage import read_record
from darkhaloscope.stats.effects import cohens_d
from darkhaloscope.validation.examples import choose, data_uri, read_choice, rows_of
from darkhaloscope.validation.records import counted, kind_of, page_facts, quantile_table, record_section

GROUP = ("region_split", "is_control", "cutout_ok")
ARC = ("arc_snr", "magnification", "theta_over_psf", "arc_masked_fraction")
CONDITIONS = ("psfsize_r", "psfdepth_r", "ebv", "mag_r", "sky_sigma_r", "bad_fraction", "padded_fraction")
CLASSES = {0: "injections", 1: "controls"}
_REASONS = ("failure_reason", "metrics_ok", "metrics_reason")
_UNBALANCED = (
    0.1  # Cohen's d above which a condition says something about the class (science notes, section 8)
)
_CHOSEN_FROM = 200_000  # rows that examples are chosen from
_SHEET, _COLUMNS = (12, 6), 6  # injections and controls shown, pictures in a row


@dataclass
class Stamps:
    """What the pages need of a table of stamps: counts, and the measured columns of the stamps that were made."""

    counts: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    unmeasured: Counter[str] = field(default_factory=Counter)
    control: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def number(self, **wanted: Any) -> int:
        """Return how many rows have some values of `GROUP`."""
        at = {GROUP.index(name): value for name, value in wanted.items()}
        return sum(n for key, n in self.counts.items() if all(key[i] == v for i, v in at.items()))


def read_stamps(root: str) -> Stamps:
    """Read all columns that count and none of the pixels, a batch at a time.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a column is missing.
    """
    names = [*GROUP, *_REASONS, *ARC, *CONDITIONS]
    made = Stamps()
    control: list[np.ndarray] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*ARC, *CONDITIONS)}
    for url in committed_files(root):
        with open_part(url) as part:
            check_schema(STAMPS, part.schema_arrow, url, names)
            for batch in part.iter_batches(65_536, columns=names):
                _count(made, pa.Table.from_batches([batch]))
                good = batch.filter(pc.equal(batch.column("cutout_ok"), 1))
                control.append(good.column("is_control").to_numpy() == 1)
                for name, pieces in columns.items():
                    pieces.append(good.column(name).to_numpy(zero_copy_only=False).astype(np.float32))
    made.control = np.concatenate(control)
    made.columns = {name: np.concatenate(pieces) for name, pieces in columns.items()}
    return made


def _count(made: Stamps, table: pa.Table) -> None:
    for row in table.group_by(list(GROUP)).aggregate([([], "count_all")]).to_pylist():
        made.counts[row["region_split"], row["is_control"], row["cutout_ok"]] += row["count_all"]
    failed = table.filter(pc.equal(table["cutout_ok"], 0))["failure_reason"]
    unmeasured = table.filter(pc.and_(pc.equal(table["cutout_ok"], 1), pc.equal(table["metrics_ok"], 0)))
    for found, reasons in ((made.failures, failed), (made.unmeasured, unmeasured["metrics_reason"])):
        for value in pc.value_counts(reasons).to_pylist():
            found[kind_of(value["values"])] += value["counts"]


def stamps_page(root: str) -> Page:
    """Return the page of a table of stamps.

    Args:
        root: URL of stage 4c's output.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a column is missing.
    """
    stamps = read_stamps(root)
    rows, made = stamps.counts.total(), stamps.number(cutout_ok=1)
    sections = [_counts(stamps), _reasons(stamps), _measured(stamps), _balance(stamps), _examples(root)]
    if (record := read_record(root)) is not None:
        sections.append(record_section(record))
    subtitle = f"{rows:,} rows: {made:,} stamps made, {rows - made:,} failed"
    return Page("Stamps (stage 4c)", subtitle, page_facts(root), sections)


def _counts(stamps: Stamps) -> Section:
    table, warnings = [], []
    for split in sorted({key[0] for key in stamps.counts}):
        for control, name in CLASSES.items():
            rows = stamps.number(region_split=split, is_control=control)
            good = stamps.number(region_split=split, is_control=control, cutout_ok=1)
            table.append(
                (split, name, rows, good, rows - good, percent((rows - good) / rows if rows else None))
            )
            if not good:
                warnings.append(f"Split {split} has no {name}.")
    rates = {
        name: stamps.number(is_control=control, cutout_ok=0) / max(stamps.number(is_control=control), 1)
        for control, name in CLASSES.items()
    }
    if abs(rates["injections"] - rates["controls"]) > 0.02:
        warnings.append(
            f"Injections fail at {percent(rates['injections'])} and controls at {percent(rates['controls'])}: "
            "what fails is not independent of the class."
        )
    header = ("split", "class", "rows", "made", "failed", "share failed")
    return Section("Rows", warnings=warnings, tables=[Table(header, table, "By split and class")])


def _reasons(stamps: Stamps) -> Section:
    nothing = not stamps.failures and not stamps.unmeasured
    return Section(
        "What is wrong",
        "Nothing failed." if nothing else "Kinds of reasons; brick names, numbers and paths are left out.",
        tables=[
            Table(("reason", "rows"), counted(stamps.failures), "No stamp"),
            Table(
                ("reason", "rows"), counted(stamps.unmeasured), "A stamp, but measurements not to be trusted"
            ),
        ],
    )


def _measured(stamps: Stamps) -> Section:
    injected = {name: stamps.columns[name][~stamps.control] for name in ARC}
    snr = injected["arc_snr"]
    snr = snr[np.isfinite(snr) & (snr > 0)]

    def paint(axes: Axes) -> None:
        axes.hist(snr, bins=np.geomspace(max(snr.min(), 0.1), max(snr.max(), 1.0), 40).tolist(), color=BLUE)
        axes.set(xscale="log", xlabel="arc SNR", ylabel="injections")

    return Section(
        "What was measured",
        tables=[
            quantile_table(injected, "Arcs of injections"),
            quantile_table({name: stamps.columns[name] for name in CONDITIONS}, "All stamps"),
        ],
        charts=[Chart(draw(paint), f"arc SNR of injections, N = {len(snr):,}")] if len(snr) else [],
    )


def _balance(stamps: Stamps) -> Section:
    """Compare the classes in what should not tell them apart."""
    rows, warnings, charts = [], [], []
    for name in CONDITIONS:
        values = stamps.columns[name].astype(np.float64)
        both = [values[(stamps.control == control) & np.isfinite(values)] for control in (False, True)]
        arcs, controls = both
        if min(len(arcs), len(controls)) < 2:
            continue
        d, error = cohens_d([len(v) for v in both], [v.mean() for v in both], [v.var() for v in both])
        rows.append((name, float(np.median(arcs)), float(np.median(controls)), d))
        if abs(d) > max(_UNBALANCED, 3 * error):
            warnings.append(f"{name} differs between injections and controls: d = {d:+.2f}.")
        if name in ("psfsize_r", "psfdepth_r"):
            charts.append(Chart(draw(_two_histograms(name, arcs, controls)), f"{name} by class"))
    header = ("quantity", "median of injections", "median of controls", "effect size d")
    text = f"d is the difference of the means in standard deviations; beyond {_UNBALANCED} it is a warning."
    return Section(
        "Class balance", text, warnings, [Table(header, rows, "Injections beside controls")], charts
    )


def _two_histograms(name: str, arcs: np.ndarray, controls: np.ndarray) -> Callable[[Axes], None]:
    low, high = np.quantile(np.concatenate([arcs, controls]), (0.001, 0.999))
    edges = np.linspace(low, max(high, low + 1e-3), 40).tolist()

    def paint(axes: Axes) -> None:
        for values, colour, label in ((arcs, BLUE, "injections"), (controls, ORANGE, "controls")):
            text = f"{label}, N = {len(values):,}"
            axes.hist(values, bins=edges, density=True, histtype="step", lw=1.5, color=colour, label=text)
        axes.set(xlabel=name, ylabel="density")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1)

    return paint


def _examples(root: str) -> Section:
    made, columns = [], read_choice(root, _CHOSEN_FROM)
    for title, ids in zip(
        ("injections, faintest arc first", "controls"), choose(columns, *_SHEET), strict=True
    ):
        table = rows_of(root, ids)
        if table is None:
            continue
        order = {task: i for i, task in enumerate(ids)}
        rows = sorted(
            zip(table["task_id"].to_pylist(), pixels_of(table), strict=True), key=lambda r: order[r[0]]
        )
        made.append(
            Chart(sheet([pixels for _, pixels in rows]), f"{len(rows)} {title}; g, r, z as blue, green, red")
        )
    return Section("Some stamps", "North is up; one colour mapping for all.", charts=made)


def sheet(stamps: list[np.ndarray]) -> str:
    """Return one picture of stamps side by side, each (band, y, x), as a data URI."""
    pictures = [lupton_rgb(stamp.astype(np.float32), BANDS[: len(stamp)]) for stamp in stamps]
    side, gap = pictures[0].shape[0], 2
    rows = -(-len(pictures) // _COLUMNS)
    canvas = np.full((rows * (side + gap) - gap, _COLUMNS * (side + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // _COLUMNS) * (side + gap), (i % _COLUMNS) * (side + gap)
        canvas[y : y + side, x : x + side] = picture[::-1]
    return data_uri(canvas)
