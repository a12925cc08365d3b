"""Pictures of single stamps: the coadd without the arc, the arc alone, and the stamp, in one colour mapping.

The arc is rendered again from the row's own columns, and the coadd is the stamp minus what was added, so the
three pictures show what stage 4c did and not what it was meant to do.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.image import imsave

from darkhaloscope.dataset import committed_files, open_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import added_light, arc_of
from darkhaloscope.pictures import lupton_rgb
from darkhaloscope.records import BANDS, STAMPS
from darkhaloscope.schema import check_schema

CHOICE = ("task_id", "is_control", "cutout_ok", "region_split", "arc_snr")
"""Columns that stamps are chosen by."""

FACTS = (
    "task_id", "is_control", "brickname", "ra", "dec", "theta_e_arcsec", "arc_snr", "src_mag_r", "mag_r", "psfsize_r",
)  # fmt: skip
"""Columns of a picture's caption."""


@dataclass(frozen=True)
class Picture:
    """One stamp of the page: three PNG images as data URIs, and the facts of its caption."""

    coadd: str
    arc: str
    stamp: str
    facts: dict[str, Any]
    logit: float | None


def read_choice(root: str) -> dict[str, np.ndarray]:
    """Return the columns of `CHOICE` for every row of a stamps dataset.

    Raises:
        DatasetError: nothing is committed there.
        SchemaError: a column is missing.
    """
    tables = []
    for url in committed_files(root):
        with open_part(url) as part:
            check_schema(STAMPS, part.schema_arrow, url, CHOICE)
            tables.append(part.read(columns=list(CHOICE)).replace_schema_metadata())
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
    arcs = np.flatnonzero(usable & (rows["is_control"] == 0) & np.isfinite(rows["arc_snr"].astype(float)))
    arcs = arcs[np.lexsort((rows["task_id"][arcs], rows["arc_snr"][arcs]))]
    spread = arcs[np.unique(np.linspace(0, len(arcs) - 1, min(injections, len(arcs))).astype(int))]
    plain = np.sort(rows["task_id"][usable & (rows["is_control"] == 1)])
    return rows["task_id"][spread].tolist(), plain[:controls].tolist()


def pictures(
    root: str, task_ids: list[str], experiment: Experiment, logits: dict[str, float] | None = None
) -> list[Picture]:
    """Return the pictures of some stamps, in the order asked for; stamps that are not there are left out.

    Args:
        root: URL of stage 4c's output.
        task_ids: which.
        experiment: the one that made them.
        logits: task_id -> logit, where they were scored.
    """
    table = _rows(root, task_ids)
    if table is None:
        return []
    metadata = table.schema.metadata or {}
    dtype = metadata.get(b"stamp_dtype", b"float32").decode()
    shape = tuple(int(n) for n in metadata[b"stamp_shape"].decode().split(","))
    stamps = [np.frombuffer(cell, dtype).reshape(shape) for cell in table.column("stamp").to_pylist()]
    arcs, added = arc_of(table, experiment), added_light(table, experiment)
    made = {}
    for i, facts in enumerate(table.select(list(FACTS)).to_pylist()):
        stamp = stamps[i].astype(np.float32)
        logit = (logits or {}).get(facts["task_id"])
        made[facts["task_id"]] = Picture(_png(stamp - added[i]), _png(arcs[i]), _png(stamp), facts, logit)
    return [made[t] for t in task_ids if t in made]


def _rows(root: str, task_ids: list[str]) -> pa.Table | None:
    """Return the stamp rows of some task_ids; only row groups that hold one are read with their pixels."""
    wanted, found = pa.array(task_ids, pa.string()), []
    for url in committed_files(root):
        with open_part(url) as part:
            for group in range(part.num_row_groups):
                ids = part.read_row_group(group, columns=["task_id"]).column("task_id")
                if (mask := pc.is_in(ids, value_set=wanted)).to_numpy().any():
                    found.append(part.read_row_group(group).filter(mask))
    return pa.concat_tables(found) if found else None


def _png(image: np.ndarray) -> str:
    """Return an image (band, y, x) as the data URI of a PNG, one pixel a pixel, +y up."""
    return data_uri(lupton_rgb(image, BANDS)[::-1])


def data_uri(rgb: np.ndarray) -> str:
    """Return (y, x, 3) uint8 as the data URI of a PNG."""
    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(rgb), format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
