"""What every validation page says of its stage: the record the stage wrote, quantiles, and reasons by kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from darkhaloscope.dataset import content_hash
from darkhaloscope.report.page import Section, Table, duration
from darkhaloscope.stage import read_record

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PARTICULAR = (
    (re.compile(r"\b(?:s3a?|https?|file)://\S+|(?<!\w)/\S+"), "<path>"),
    (re.compile(r"\b\d{4}[pm]\d{3}\b"), "<brick>"),
    (re.compile(r"\d+(?:[,.]\d+)*"), "#"),
)


def page_facts(root: str) -> dict[str, Any]:
    """Return what a page was made from, for its last lines.

    Raises:
        DatasetError: the stage's table cannot be read.
    """
    record = read_record(root) or {}
    return {
        "table": root,
        "content hash": content_hash(root),
        "experiment": f"{record.get('variant')} / {record.get('experiment_id')}",
        "config hash": record.get("hash"),
        "code version": record.get("code_version"),
        "finished": record.get("finished"),
    }


def record_section(record: Mapping[str, Any]) -> Section:
    """Return the section of a stage's own record: counts and time, as `_stage_config.json` has them."""
    rows = [("seconds", record.get("seconds")), *_flat(record.get("counts", {}))]
    inputs = [(name, value) for name, value in record["inputs"].items()]
    return Section(
        "Record of the run",
        f"State {record['state']}, took {duration(record.get('seconds'))}.",
        tables=[
            Table(("count", "value"), rows, "What the stage counted"),
            Table(("read from", "hash"), inputs, "What it read"),
        ],
    )


def quantile_table(columns: Mapping[str, np.ndarray], caption: str) -> Table:
    """Return a row of quantiles for each column; values that are not finite are counted and left out."""
    header = ("quantity", "N", "not finite", *(f"{100 * q:g} %" for q in QUANTILES))
    rows = []
    for name, values in columns.items():
        finite = np.asarray(values, dtype=float)
        finite = finite[np.isfinite(finite)]
        found = np.quantile(finite, QUANTILES).tolist() if len(finite) else [None] * len(QUANTILES)
        rows.append((name, len(finite), len(values) - len(finite), *found))
    return Table(header, rows, caption)


def kind_of(reason: str) -> str:
    """Return a reason without what is particular to one row: paths, brick names, numbers."""
    for pattern, name in _PARTICULAR:
        reason = pattern.sub(name, reason)
    return reason


def counted(counts: Mapping[Any, int], most: int = 20) -> list[tuple[Any, int]]:
    """Return the most frequent first; what is beyond `most` in one last row."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    rest = sum(n for _, n in ordered[most:])
    return [*ordered[:most], *([(f"{len(ordered) - most} further kinds", rest)] if rest else [])]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            yield prefix + key, str(value) if isinstance(value, (list, tuple)) else value
