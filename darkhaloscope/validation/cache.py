"""Validation of stage 4b: which bricks are in the coadd cache, which are not and why, and where they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from darkhaloscope.dataset import DatasetError
from darkhaloscope.report.charts import BLUE, GREY, ORANGE, draw
from darkhaloscope.report.page import Chart, Page, Section, Table, percent
from darkhaloscope.stage import read_record
from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.cache import read_assets
from darkhaloscope.validation.records import counted, page_facts, quantile_table, record_section

STATUS = {"cached": BLUE, "missing": GREY, "failed": ORANGE}
_EXAMPLES = 12

Rows = list[dict[str, Any]]


def cache_page(root: str) -> Page:
    """Return the page of a coadd cache.

    Args:
        root: URL of stage 4b's output.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a file has another layout.
    """
    rows = list(read_assets(root).values())
    if not rows:
        raise DatasetError(f"{root}: no committed chunk; run stage 4b first")
    status = Counter(row["status"] for row in rows)
    subtitle = f"{len(rows):,} bricks: " + ", ".join(f"{status[s]:,} {s}" for s in STATUS)
    sections = [_bricks(rows, status), _what_is_wrong(rows), _sizes(rows), _sky(rows)]
    if (record := read_record(root)) is not None:
        sections.append(record_section(record))
    return Page("Coadd cache (stage 4b)", subtitle, page_facts(root), sections)


def _bricks(rows: Rows, status: Counter[str]) -> Section:
    files = sum(row["files"] for row in rows)
    by_checksum = sum(row["by_checksum"] for row in rows)
    warnings = []
    if status["failed"]:
        warnings.append(f"{status['failed']:,} bricks failed; run stage 4b again to try them again.")
    if not status["cached"]:
        warnings.append("No brick is cached: stage 4c would have nothing to cut stamps from.")
    bands = Counter(row["bands"] for row in rows if row["status"] == "cached")
    complete = max(bands, key=len, default="")
    if lacking := sum(n for found, n in bands.items() if found != complete):
        warnings.append(f"{lacking:,} cached bricks lack a band; their rows fail in stage 4c.")
    return Section(
        "Bricks",
        warnings=warnings,
        tables=[
            Table(
                ("status", "bricks", "share"),
                [(s, status[s], percent(status[s] / len(rows))) for s in STATUS],
            ),
            Table(
                ("bands", "bricks"), counted(bands), "Bands with image and inverse variance, of cached bricks"
            ),
            Table(
                ("files", "number"),
                [
                    ("verified by the survey's checksum", by_checksum),
                    ("by size and structure", files - by_checksum),
                ],
                "How files were verified",
            ),
        ],
    )


def _what_is_wrong(rows: Rows) -> Section:
    causes = counted(Counter(f"{row['status']}: {row['cause']}" for row in rows if row["cause"]))
    examples = [(row["brickname"], row["status"], row["reason"]) for row in rows if row["status"] == "failed"]
    return Section(
        "What is wrong",
        "" if causes else "Nothing: every brick is cached whole.",
        tables=[
            *([Table(("status and cause", "bricks"), causes, "Causes")] if causes else []),
            *(
                [Table(("brick", "status", "reason"), examples[:_EXAMPLES], "First failures")]
                if examples
                else []
            ),
        ],
    )


def _sizes(rows: Rows) -> Section:
    cached = [row for row in rows if row["status"] == "cached"]
    megabytes = np.array([row["bytes"] for row in cached]) / 1e6
    seconds = np.array([row["seconds"] for row in cached])
    moved = megabytes.sum()

    def paint(axes: Axes) -> None:
        axes.hist(megabytes, bins=min(40, max(len(cached) // 2, 5)), color=BLUE)
        axes.set(xlabel="files of a brick (MB)", ylabel="bricks")

    charts = [Chart(draw(paint), f"sizes of cached bricks, N = {len(cached):,}")] if cached else []
    return Section(
        "Sizes and times",
        f"{moved / 1e3:,.2f} GB in {sum(row['files'] for row in cached):,} files of cached bricks.",
        tables=[quantile_table({"MB a brick": megabytes, "seconds a brick": seconds}, "Cached bricks")],
        charts=charts,
    )


def _sky(rows: Rows) -> Section:
    ra, dec = brick_centre(*parse_names([row["brickname"] for row in rows]))
    status = np.array([row["status"] for row in rows])
    return Section(
        "On the sky", charts=[Chart(draw(sky_map(ra, dec, status)), f"bricks by status, N = {len(rows):,}")]
    )


def sky_map(ra: np.ndarray, dec: np.ndarray, status: Sequence[str] | np.ndarray) -> Any:
    """Return the painter of a map of positions in degrees, coloured by status, what is wrong on top."""

    def paint(axes: Axes) -> None:
        for name, colour in STATUS.items():
            mine = np.asarray(status) == name
            if mine.any():
                size = 36 if len(ra) < 500 else 9 if len(ra) < 20_000 else 1
                label = f"{name}: {mine.sum():,}"
                axes.scatter(
                    ra[mine], dec[mine], s=size, marker="s", lw=0, color=colour, label=label, rasterized=True
                )
        axes.set(xlabel="RA (deg)", ylabel="Dec (deg)", xlim=(360, 0))
        axes.legend(
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1, handletextpad=0.2
        )

    return paint
