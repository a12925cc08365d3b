"""The report's pictures: stamps of both classes and the worst mistakes, each as coadd, arc and stamp in one mapping.

The arc is rendered again from the row's own columns, and the coadd is the stamp minus what was added, so the
three pictures show what stage 4c did and not what it was meant to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from darkhaloscope.dataset import DatasetError
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import added_light, arc_of
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import BANDS
from darkhaloscope.report.pictures import lupton_rgb
from darkhaloscope.schema import SchemaError
from darkhaloscope.validation.examples import choose, data_uri, read_choice, rows_of
from evaluation.scores import Scores, ScoresError, read_scores, without_repeats
from evaluation.workspace import Missing, Workspace

FACTS = (
    "task_id", "is_control", "brickname", "ra", "dec", "theta_e_arcsec", "arc_snr", "src_mag_r", "mag_r", "psfsize_r",
)  # fmt: skip
"""Columns of a picture's caption."""

EXTREMES = 6
"""Most lens-like controls, and clearest missed arcs, that are shown."""


@dataclass(frozen=True)
class Picture:
    """One stamp of the page: three PNG images as data URIs, and the facts of its caption."""

    coadd: str
    arc: str
    stamp: str
    facts: dict[str, Any]
    logit: float | None


def galleries(workspace: Workspace) -> list[tuple[str, str, list[Picture]]] | Missing:
    """Return (title, what it shows, pictures) of each sheet of stamps."""
    root, experiment = workspace.place("phase4c"), workspace.experiment
    try:
        arcs, controls = choose(read_choice(root))
        sheets = [
            ("Injections", "spread evenly over the ranks of arc SNR, faintest first", arcs),
            ("Controls", "drawn at random; their arc is virtual and not in the stamp", controls),
        ]
        scores = _scores(workspace)
        logits = (
            {} if scores is None else dict(zip(scores.columns["task_id"], scores.logit.tolist(), strict=True))
        )
        if scores is not None:
            sheets += extremes(scores, experiment.completeness.snr_threshold)
        wanted = list(dict.fromkeys(t for _, _, ids in sheets for t in ids))
        made = {p.facts["task_id"]: p for p in pictures(root, wanted, experiment, logits)}
    except (DatasetError, SchemaError, ScoresError) as error:
        return Missing(str(error))
    return [(title, what, [made[t] for t in ids if t in made]) for title, what, ids in sheets]


def _scores(workspace: Workspace) -> Scores | None:
    if "scores" not in workspace.hashes:
        return None
    return without_repeats(read_scores(workspace.scores, ("arc_snr",)))


def extremes(scores: Scores, snr: float) -> list[tuple[str, str, list[str]]]:
    """Return the sheets of a model's worst mistakes: most lens-like controls, least lens-like clear arcs."""
    order, ids = np.argsort(scores.logit, kind="stable"), scores.columns["task_id"]
    controls = [ids[i] for i in order[::-1] if not scores.label[i]][:EXTREMES]
    clear = scores.label & (scores.columns["arc_snr"].astype(float) >= snr)
    arcs = [ids[i] for i in order if clear[i]][:EXTREMES]
    return [
        ("Most lens-like controls", "highest logits among the controls that were scored", controls),
        ("Least lens-like arcs", f"lowest logits among the scored arcs of SNR {snr:g} or more", arcs),
    ]


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
