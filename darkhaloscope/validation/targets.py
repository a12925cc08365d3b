"""The report of stage 3: what each cut took, how the splits came out, what the targets are like, where they lie."""

from __future__ import annotations

from typing import Any

from darkhaloscope.dataset import DatasetError, committed_chunks, committed_parts, open_part
from darkhaloscope.records import SPLITS
from darkhaloscope.report.page import Page, Section, Table, percent
from darkhaloscope.stage import read_record
from darkhaloscope.storage import join
from darkhaloscope.validation import target_charts
from darkhaloscope.validation.target_tally import Tally, count

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SHOWN_FAILURES = 20


def targets_page(root: str) -> Page:
    """Return the report of a stage 3 output.

    Args:
        root: URL of the output, with `_stage_config.json` in it.

    Raises:
        DatasetError: stage 3 has committed nothing there.
    """
    record = read_record(root)
    if record is None or not committed_chunks(root):
        raise DatasetError(
            f"{root}: nothing is committed there; run stage 3 (spark_jobs/phase3_pipeline.py) first"
        )
    tally = count(root)
    counts, experiment = record.get("counts", {}), record["experiment"]
    n = sum(tally.splits.values())
    facts = {k: record.get(k) for k in ("state", "hash", "code_version", "started", "seconds")}
    facts |= {
        "targets": n,
        "variant": experiment["targets"]["variant"],
        "survey": experiment["survey"]["source"],
    }
    return Page(
        "Stage 3: target galaxies",
        f"{n:,} targets of {counts.get('cuts', {}).get('rows', 0):,} catalogue rows",
        facts,
        [
            _cuts(counts, n),
            _splits(tally, experiment["splits"]),
            _quarantine(root, counts),
            _values(tally),
            Section("Pictures", charts=target_charts.charts(tally, experiment))
            if n
            else Section("Pictures", "none"),
        ],
    )


def _cuts(counts: dict[str, Any], written: int) -> Section:
    """Rows met, what each cut took of those that the cuts before left, and what stayed."""
    cuts = dict(counts.get("cuts", {}))
    rows = cuts.pop("rows", 0)
    cuts.pop("targets", None)
    left = rows
    lines: list[tuple[Any, ...]] = [("catalogue rows", None, None, rows)]
    for name, taken in cuts.items():
        lines.append((name, taken, percent(taken / left if left else None), left - taken))
        left -= taken
    wrong = [f"the cuts leave {left:,} rows, the table has {written:,}"] if cuts and left != written else []
    table = Table(
        ("cut", "left out", "of those before", "left"), lines, "cut by cut, in the order of application"
    )
    return Section("Cuts", warnings=wrong, tables=[table])


def _splits(tally: Tally, wanted: dict[str, Any]) -> Section:
    n = sum(tally.splits.values())
    lines = [
        (name, tally.splits[name], percent(tally.splits[name] / n if n else None), percent(wanted[name]))
        for name in SPLITS
    ]
    empty = [name for name in SPLITS if wanted[name] > 0 and not tally.splits[name]]
    warnings = [
        f"no target is in {name}: stage 4a cannot fill it; loosen the cuts (targets.variant, targets.max_ebv, "
        "targets.max_psfsize_r, targets.min_psfdepth_r) or widen the footprint"
        for name in empty
    ]
    text = (
        f"Divided by {wanted['method']}, {len(tally.cells):,} cells of nside {wanted['nside']} have targets."
    )
    table = Table(("split", "targets", "realised", "configured"), lines, "targets by split")
    return Section("Splits", text, warnings, [table])


def _quarantine(root: str, counts: dict[str, Any]) -> Section:
    parts = [join(root, "quarantine", part.key) for part in committed_parts(join(root, "quarantine"))]
    failed: list[dict[str, Any]] = []
    for url in parts:
        with open_part(url) as file:
            failed += file.read().to_pylist()
    text = f"{len(failed):,} of {counts.get('sweeps', 0):,} sweep files could not be used."
    if not failed:
        return Section("Sweep files", text)
    lines = [(f["unit"], f["error"], f["reason"]) for f in failed[:SHOWN_FAILURES]]
    more = f"; the first {SHOWN_FAILURES} are shown" if len(failed) > SHOWN_FAILURES else ""
    warning = f"{len(failed):,} sweep files are quarantined: their sky has no targets{more}"
    return Section("Sweep files", text, [warning], [Table(("file", "error", "reason"), lines, "quarantined")])


def _values(tally: Tally) -> Section:
    lines = [
        (name, h.unit, int(h.counts.sum()), h.unknown, *(h.quantile(s) for s in SHARES))
        for name, h in tally.quantities.items()
    ]
    shares = [{0.0: "least", 0.5: "median", 1.0: "greatest"}.get(s, percent(s)) for s in SHARES]
    kinds = [("redshift", *item) for item in sorted(tally.sources.items())]
    kinds += [("PSF size and depth", *item) for item in sorted(tally.psf_sources.items())]
    return Section(
        "Values",
        "Magnitudes and colours are corrected for Galactic extinction; depths are 5-sigma, of point sources.",
        tables=[
            Table(
                ("quantity", "unit", "known", "unknown", *shares),
                lines,
                "quantiles, to 1/4000 of their range",
            ),
            Table(("of", "from", "targets"), kinds, "where values are from"),
        ],
    )
