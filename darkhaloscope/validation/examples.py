"""A few stamps to look at: which, their rows, and how pixels become a picture of a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.image import imsave

from darkhaloscope.dataset import committed_files, open_part
from darkhaloscope.records import STAMPS
from darkhaloscope.schema import check_schema

CHOICE = ("task_id", "label", "cutout_ok", "region_split", "arc_snr")
"""Columns that stamps are chosen by."""


def read_choice(root: str, rows: int | None = None) -> dict[str, np.ndarray]:
    """Return the columns of `CHOICE` for every row of a stamps dataset; or of so many files as hold `rows` rows.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a column is missing.
    """
    tables = []
    for url in committed_files(root):
        with open_part(url) as part:
            check_schema(STAMPS, part.schema_arrow, url, CHOICE)
            tables.append(part.read(columns=list(CHOICE)).replace_schema_metadata())
        if rows is not None and sum(t.num_rows for t in tables) >= rows:
            break
    table = pa.concat_tables(tables)
    return {name: table.column(name).to_numpy() for name in CHOICE}


def choose(
    rows: dict[str, np.ndarray], injections: int = 12, controls: int = 6
) -> tuple[list[str], list[str]]:
    """Return task_ids of injections and of controls, from the test split where there is one.

    Injections are spread evenly over the ranks of their arc SNR, faintest first: a page of the brightest
    would flatter. Controls are the first by task_id, which is a digest and so as good as random.
    """
    usable = rows["cutout_ok"] == 1
    if (usable & (rows["region_split"] == "test")).any():
        usable &= rows["region_split"] == "test"
    arcs = np.flatnonzero(usable & (rows["label"] == 1) & np.isfinite(rows["arc_snr"].astype(float)))
    arcs = arcs[np.lexsort((rows["task_id"][arcs], rows["arc_snr"][arcs]))]
    spread = arcs[np.unique(np.linspace(0, len(arcs) - 1, min(injections, len(arcs))).astype(int))]
    plain = np.sort(rows["task_id"][usable & (rows["label"] == 0)])
    return rows["task_id"][spread].tolist(), plain[:controls].tolist()


def rows_of(root: str, task_ids: list[str]) -> pa.Table | None:
    """Return the stamp rows of some task_ids; only row groups that hold one are read with their pixels."""
    wanted, found = pa.array(task_ids, pa.string()), []
    for url in committed_files(root):
        with open_part(url) as part:
            for group in range(part.num_row_groups):
                ids = part.read_row_group(group, columns=["task_id"]).column("task_id")
                if (mask := pc.is_in(ids, value_set=wanted)).to_numpy().any():
                    found.append(part.read_row_group(group).filter(mask))
    return pa.concat_tables(found) if found else None


def data_uri(rgb: np.ndarray) -> str:
    """Return (y, x, 3) uint8 as the data URI of a PNG."""
    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(rgb), format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
