"""The selection function as a table for users: which share of lenses of given size, source and seeing is found.

    from evaluation.completeness import read_selection_function
    found = read_selection_function("RUN/evaluation/selection_function.parquet", "fpr1e-3")
    value, low, high = found.completeness(theta_e=1.2, mag=23.5, psfsize=1.3, depth=24.5)

A cell without injections answers NaN, and so does what lies beyond all injections: nothing is extrapolated.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike
from pyarrow.fs import FSSpecHandler, PyFileSystem

from darkhaloscope.injection import completeness as injected
from darkhaloscope.results import SELECTION
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.stats.intervals import cluster_sums, clustered
from darkhaloscope.storage import filesystem

Edges = Mapping[str, tuple[float, ...]]

CELLS: dict[str, Edges] = {
    "fine": {
        "theta_e_arcsec": injected.AXES["theta_e_arcsec"],
        "src_mag_r": injected.AXES["src_mag_r"],
        "psfsize_r": (0, 1.1, 1.3, 1.5, 10),
        "psfdepth_r": (0, 24.25, 24.75, 40),
        "mag_r": (0, 19, 20, 40),
    },
    "coarse": {
        "theta_e_arcsec": (0, 0.6, 1.1, 1.75, 60),
        "src_mag_r": (0, 22, 23, 24, 25, 40),
        "psfsize_r": (0, 1.25, 1.45, 10),
        "psfdepth_r": (0, 40),
        "mag_r": (0, 40),
    },
}
"""Edges of the cells; the outermost take what is beyond. The 3,240 fine ones are for a survey; the 60 coarse ones, of
all depths and hosts together, can be filled on a laptop."""

AXES = tuple(CELLS["fine"])
ENOUGH = 500  # injections of a cell, for an interval of +-0.04
SUMS = ("n", "n_found", "n_hosts", "sum_n_n", "sum_n_found", "sum_found_found")
"""Columns of SELECTION that are `CLUSTER_SUMS`: injections of one host share its pixels."""
KEY = "selection"  # of the file's metadata, JSON: prior, thresholds, and the limits of the injections


def shape_of(edges: Edges) -> tuple[int, ...]:
    """Return the number of cells along each axis."""
    return tuple(len(of_axis) - 1 for of_axis in edges.values())


def cell_of(values: Mapping[str, np.ndarray], edges: Edges) -> np.ndarray:
    """Return the number of the cell that each injection is in, (n,) int64; -1 where a value is not finite.

    Args:
        values: an array for each of `AXES`.
        edges: of the cells, as in `CELLS`.
    """
    bins = [injected.bin_of(np.asarray(values[axis], np.float64), edges[axis]) for axis in AXES]
    inside = np.all([b >= 0 for b in bins], axis=0)
    return np.where(inside, np.ravel_multi_index([np.maximum(b, 0) for b in bins], shape_of(edges)), -1)


def cells_table(
    cell: np.ndarray, host: np.ndarray, logit: np.ndarray, thresholds: Mapping[str, float], edges: Edges
) -> pa.Table:
    """Return the SELECTION table: every cell at every threshold, empty ones too.

    Args:
        cell: (n,) of `cell_of`.
        host: (n,) host_id of the injections.
        logit: (n,) of the injections.
        thresholds: FPR name -> logit from which an injection counts as found.
        edges: of the cells, as in `CELLS`.
    """
    n_cells = math.prod(shape_of(edges))
    boxes = list(itertools.product(*(list(itertools.pairwise(map(float, edges[a]))) for a in AXES)))
    where = {
        f"{axis}_{end}": [box[i][k] for box in boxes]
        for i, axis in enumerate(AXES)
        for k, end in enumerate(("low", "high"))
    }
    batches = []
    for name, threshold in thresholds.items():
        sums = cluster_sums(cell, host, logit >= threshold, n_cells)
        batches.append(to_batch(SELECTION, where | rates(sums) | {
            "fpr": [name] * n_cells, "threshold": np.full(n_cells, threshold),
        }))  # fmt: skip
    return pa.Table.from_batches(batches, SELECTION.arrow())


def rates(sums: np.ndarray) -> dict[str, object]:
    """Return `SUMS`, share and 95 % interval as columns; null where there is nothing to divide by."""
    columns = dict(zip(("completeness", "ci_low", "ci_high"), share_of(sums), strict=True))
    empty = sums[:, 0] == 0
    return dict(zip(SUMS, sums.T, strict=True)) | {k: pa.array(v, mask=empty) for k, v in columns.items()}


def share_of(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share found and its 95 % interval (`clustered`), from (..., 6) `CLUSTER_SUMS`; NaN without any."""
    n, found = sums[..., 0], sums[..., 1]
    return np.divide(found, n, out=np.full(n.shape, np.nan), where=n > 0), *clustered(sums)


@dataclass(frozen=True)
class SelectionFunction:
    """Completeness by cell at one threshold.

    edges: of the cells, for each of `AXES`.
    sums: (theta_E, source magnitude, psfsize, depth, host magnitude, 6) int64, `CLUSTER_SUMS` of injections, those
        found, and hosts.
    limits: lowest and highest value among the injections, for each of `AXES`.
    facts: what the file says of itself: prior, thresholds, checkpoint and data.
    """

    edges: Edges
    sums: np.ndarray
    limits: Mapping[str, tuple[float, float]]
    facts: Mapping[str, Any]

    def completeness(
        self,
        theta_e: ArrayLike,
        mag: ArrayLike,
        psfsize: ArrayLike,
        depth: ArrayLike,
        host_mag: ArrayLike | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the share of lenses found and its 95 % interval, each of the arguments' common shape.

        The share is over the whole source plane and the prior of what is not an argument (`facts` states both); it is
        that of the cell: nothing is interpolated.

        Args:
            theta_e: circularised Einstein radius, arcsec.
            mag: unlensed r magnitude of the source, AB, outside the Galaxy.
            psfsize: the survey's r-band psfsize, arcsec (not a half-maximum FWHM).
            depth: 5-sigma point-source depth in r, AB mag.
            host_mag: r magnitude of the host as observed; None: all hosts together.

        Returns:
            (value, low, high), NaN in cells without an injection, beyond the injections' limits, and where an argument
            is not finite.
        """
        arguments = (theta_e, mag, psfsize, depth, *(() if host_mag is None else (host_mag,)))
        given = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in arguments))
        bins, inside = [], np.ones(given[0].shape, bool)
        for axis, values in zip(AXES, given, strict=False):
            low, high = self.limits[axis]
            inside &= (values >= low) & (values <= high)
            bins.append(np.maximum(injected.bin_of(values, self.edges[axis]), 0))
        # A host has one magnitude: cells that differ in nothing else share none, and their sums add up.
        sums = self.sums.sum(axis=-2) if host_mag is None else self.sums
        return share_of(np.where(inside[..., None], sums[tuple(bins)], 0))


def read_selection_function(url: str, fpr: str) -> SelectionFunction:
    """Read `selection_function.parquet` at one threshold, such as "fpr1e-3".

    Raises:
        SchemaError: not such a table.
        ValueError: it has no such threshold (the message names those it has), or cells are missing.
    """
    fs, path = filesystem(url)
    table = pq.read_table(path, filesystem=PyFileSystem(FSSpecHandler(fs)))
    check_schema(SELECTION, table.schema, url)
    names = table.column("fpr").to_pylist()
    mine = table.filter(pa.array([name == fpr for name in names]))
    if not mine.num_rows:
        raise ValueError(f"{url}: no cells at {fpr!r}; there are {sorted(set(names))}")
    edges = {a: tuple(np.unique([mine.column(f"{a}_{end}") for end in ("low", "high")])) for a in AXES}
    if mine.num_rows != math.prod(shape_of(edges)):
        raise ValueError(f"{url}: {mine.num_rows} cells at {fpr!r}, expected {math.prod(shape_of(edges))}")
    sums = np.stack([mine.column(c).to_numpy() for c in SUMS], axis=-1).reshape(*shape_of(edges), len(SUMS))
    facts = json.loads(table.schema.metadata[KEY.encode()])
    return SelectionFunction(edges, sums, facts["limits"], facts)
