"""From scored targets to candidates: each galaxy once, ranked, with what its score means and what is known there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.results import CANDIDATES
from darkhaloscope.search.known import match_known
from darkhaloscope.search.reference import Reference
from darkhaloscope.sky import groups

MERGE_ARCSEC = 1.0


def merge(table: pa.Table, listed: Mapping[int, int]) -> pa.Table:
    """Return candidates with each galaxy once: of rows within 1 arcsec (overlaps of bricks) the best-scored stays.

    Args:
        table: CANDIDATES rows without pixels.
        listed: further rows of a table of positions that a row stands for, by host_id.
    """
    n = table.num_rows
    ra, dec = (table.column(name).to_numpy() for name in ("ra", "dec"))
    ids = table.column("host_id").to_numpy()
    group = groups(ra, dec, MERGE_ARCSEC) if n > 1 else np.zeros(n, np.int64)
    logit = np.nan_to_num(_floats(table, "logit"), nan=-np.inf)
    order = np.lexsort((ids, -logit, group))
    first = np.ones(n, bool)
    first[1:] = group[order][1:] != group[order][:-1]
    kept = np.sort(order[first])
    merged = np.bincount(group, minlength=n)[group] - 1
    merged += np.array([listed.get(i, 0) for i in ids.tolist()], np.int64) if listed else 0
    return _with(table.take(kept), {"merged": merged[kept]})


def rank(
    table: pa.Table,
    reference: Reference | None,
    prevalence: float,
    square_degrees: float,
    known: dict[str, np.ndarray] | None,
) -> pa.Table:
    """Return candidates in the order of their score, refused ones last, with every column filled but the pixels.

    Args:
        table: of `merge`.
        reference: the evaluation's negatives; None: no rates and no probability.
        prevalence: lenses among targets that the probability assumes.
        square_degrees: area that was searched; 0: a list of positions, which has none.
        known: of `known.read_known`.
    """
    table = table.take(np.lexsort((table.column("host_id").to_numpy(), -_sortable(_floats(table, "logit")))))
    logit = _floats(table, "logit")
    scored = np.isfinite(logit)
    n = int(scored.sum())
    density = n / square_degrees if square_degrees > 0 else np.nan
    columns: dict[str, Any] = {"rank": pa.array(np.arange(1, len(logit) + 1), pa.int32(), mask=~scored)}
    if reference is not None:
        fpr, high = (np.full(len(logit), np.nan) for _ in range(2))
        fpr[scored], high[scored] = reference.fpr(logit[scored])
        columns |= {"fpr": fpr, "fpr_high": high}
        columns |= {"false_per_sqdeg": fpr * density, "false_per_sqdeg_high": high * density}
        probability = np.full(len(logit), np.nan)
        probability[scored] = reference.probability(logit[scored], prevalence)
        columns |= {"probability": probability}
        columns |= {"prevalence": np.where(np.isfinite(probability), prevalence, np.nan)}
    found = match_known(table.column("ra").to_numpy(), table.column("dec").to_numpy(), known)
    return _with(table, columns | found)


def _sortable(logit: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(logit), logit, -np.inf)


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy().astype(np.float64)  # null becomes NaN


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    """Return the table with columns replaced; NaN is null."""
    for name, values in columns.items():
        field = CANDIDATES.arrow().field(name)
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            values = pa.array(values, field.type, mask=~np.isfinite(values))
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    return table
