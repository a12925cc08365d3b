"""Pictures of single stamps: the coadd without the arc, the arc alone, and the stamp, in one colour mapping.

The arc is rendered again from the row's own columns, and the coadd is the stamp minus what was added, so the
three pictures show what stage 4c did and not what it was meant to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import added_light, arc_of
from darkhaloscope.packing import pixels_of
from darkhaloscope.pictures import lupton_rgb
from darkhaloscope.records import BANDS
from darkhaloscope.validation.examples import data_uri, rows_of

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
    table = rows_of(root, task_ids)
    if table is None:
        return []
    stamps = pixels_of(table)
    arcs, added = arc_of(table, experiment), added_light(table, experiment)
    made = {}
    for i, facts in enumerate(table.select(list(FACTS)).to_pylist()):
        stamp = stamps[i].astype(np.float32)
        logit = (logits or {}).get(facts["task_id"])
        made[facts["task_id"]] = Picture(_png(stamp - added[i]), _png(arcs[i]), _png(stamp), facts, logit)
    return [made[t] for t in task_ids if t in made]


def _png(image: np.ndarray) -> str:
    """Return an image (band, y, x) as the data URI of a PNG, one pixel a pixel, +y up."""
    return data_uri(lupton_rgb(image, BANDS)[::-1])
