"""Stage 4a of a catalogue: positions -> manifest rows without an injection, so that 4c cuts real objects too.

A row is what a target of stage 3 would be there: brick by position, split by HEALPix cell with its guard, seeing, depth
and reddening of the brick. It has no injection, not even a virtual one: `control_kind` is "catalogue", `source_kind`
"none", and what is a number of an injection is NaN. Whether it is a lens says `label`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
from astropy_healpix import HEALPix

from darkhaloscope.draws import digest, digests
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.layout import id_strings
from darkhaloscope.records import BANDS, CATALOGUE, INJECTION, MANIFEST, NO_SOURCE
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Splits
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.positions import Positions
from darkhaloscope.survey.splits import GUARD, assign_splits, sky_cell

ID_NSIDE = 1 << 20  # cells of 0.2 arcsec: one object each, since closer ones are duplicates

UNKNOWN = ("shape_e1", "shape_e2", "z_host")
"""Columns of records.HOST that a table of positions does not tell: null."""


def place_on_sky(
    positions: Positions,
    bricks: BrickTable,
    splits: Splits,
    seed: int,
    brick_splits: Mapping[str, str] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the columns of records.HOST, but `UNKNOWN`, for each row, and why a row is left out ("" where it is not).

    Args:
        positions: the catalogue, its faulty rows marked.
        bricks: the release's survey-bricks table.
        splits: how the sky is divided.
        seed: of the division.
        brick_splits: brick -> split, for the method "region".
    """
    left_out = positions.fault.copy()
    good = left_out == ""
    ra, dec = (np.where(good, positions.columns[n], 0.0) for n in ("ra", "dec"))
    at = bricks.index_at(ra, dec)
    b = {k: v[np.maximum(at, 0)] for k, v in bricks.columns.items()}
    cell, split = assign_splits(ra, dec, splits, seed)
    if splits.method == "region" and brick_splits is not None:
        cell = sky_cell(ra, dec, splits.nside)
        split = np.array([brick_splits.get(str(n), "") for n in b["brickname"]], "U5")
    empty = np.any([~(b[f"psfsize_{band}"] > 0) for band in BANDS], axis=0)
    for reason, out in (
        ("outside the footprint: the brick table has no brick there", at < 0),
        ("its brick lacks a band", empty),
        ("in the guard between two splits", split == GUARD),
        ("its brick is in no region of a split", split == ""),
    ):
        left_out[(left_out == "") & out] = reason
    pixel = np.asarray(HEALPix(ID_NSIDE, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg), np.int64)
    columns = {
        "host_id": -1 - pixel,
        "ra": ra % 360.0,
        "dec": dec,
        "brickname": b["brickname"].astype(object),
        "type": np.full(len(ra), "", object),
        "sky_cell": cell,
        "region_split": split.astype(object),
        "ebv": b["ebv"],
    }
    for band in BANDS:
        columns |= {f"{kind}_{band}": b[f"{kind}_{band}"] for kind in ("psfsize", "psfdepth")}
        columns[f"mag_{band}"] = positions.columns[f"mag_{band}"]
    return columns, left_out


def lay_out_catalogue(positions: Positions, host: dict[str, np.ndarray], experiment: Experiment) -> pa.Table:
    """Return the MANIFEST rows of a catalogue, sorted by brick and task_id.

    Args:
        positions: (n,) rows, none of them faulty.
        host: (n,) columns of `place_on_sky`.
        experiment: gives the rows their ids.
    """
    n = len(positions)
    shared = digest(
        "catalogue", experiment.experiment_id, experiment.digest("seed", "psf"), experiment.stamps.size
    )
    columns: dict[str, Any] = {c.name: np.full(n, np.nan) for c in INJECTION if pa.types.is_floating(c.type)}
    columns |= {
        "experiment_id": pa.repeat(experiment.experiment_id, n),
        "task_id": id_strings(digests(shared, host["host_id"])),
        "partner_task_id": pa.repeat("", n),
        "is_control": np.ones(n, np.int8),
        "control_kind": pa.repeat(CATALOGUE, n),
        "source_kind": pa.repeat(NO_SOURCE, n),
        "replicate": np.zeros(n, np.int32),
        "config_id": np.full(n, -1, np.int32),
        "source_id": np.full(n, -1),
    }
    columns |= {name: pa.nulls(n, pa.float32()) for name in UNKNOWN}
    columns |= {
        k: positions.columns[k] for k in ("label", "sample", "object_type", "object_name", "theta_e_arcsec")
    }
    table = pa.Table.from_batches([to_batch(MANIFEST, columns | host)])
    return table.sort_by([("brickname", "ascending"), ("task_id", "ascending")])
