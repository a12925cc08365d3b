"""What is cut and scored: a galaxy of stage 3, or a listed position, as a manifest row without an injection."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.at_positions import lay_out_positions
from darkhaloscope.injection.catalogue import lay_out_catalogue
from darkhaloscope.records import BANDS, HOST
from darkhaloscope.search.area import Area
from darkhaloscope.sky import groups
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.positions import DUPLICATE_ARCSEC, Positions


def rows_of_targets(targets: pa.Table, area: Area, experiment: Experiment) -> pa.Table:
    """Return the MANIFEST rows of those galaxies of stage 3 that lie in an area, by brick and task_id."""
    inside = area.contains(*(targets.column(n).to_numpy() for n in ("ra", "dec")))
    host = {c.name: targets.column(c.name).to_numpy()[inside] for c in HOST}
    n = int(inside.sum())
    columns = {name: np.full(n, "", object) for name in ("object_name", "object_type", "sample")}
    columns |= {"label": np.full(n, -1, np.int8), "theta_e_arcsec": np.full(n, np.nan)}
    columns |= {f"mag_{b}": host[f"mag_{b}"] for b in BANDS}
    return lay_out_catalogue(Positions(columns, np.full(n, "", object), ""), host, experiment)


def rows_of_positions(
    positions: Positions, bricks: BrickTable, experiment: Experiment
) -> tuple[pa.Table, dict[int, int], np.ndarray]:
    """Return the MANIFEST rows of a table of positions.

    Returns:
        The rows, by brick and task_id; how many further rows of the table stand for the same place, by host_id; and
        (n,) str, why a position has no row, "" where it has one.
    """
    manifest, kept, refused = lay_out_positions(positions, bricks, experiment)
    good = np.flatnonzero(positions.fault == "")
    repeats = np.zeros(len(positions), np.int64)
    if len(good):
        group = groups(positions.columns["ra"][good], positions.columns["dec"][good], DUPLICATE_ARCSEC)
        repeats[good] = np.bincount(group)[group] - 1
    ids = manifest.column("host_id").to_pylist()
    return manifest, {i: int(n) for i, n in zip(ids, repeats[kept].tolist(), strict=True) if n}, refused
