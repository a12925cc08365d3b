"""The selection function as a table for users: which share of lenses of given size, source and seeing is found.

    from evaluation.completeness import read_selection_function
    found = read_selection_function("RUN/evaluation/selection_function.parquet", "fpr1e-3")
    value, low, high = found.completeness(theta_e=1.2, mag=23.5, psfsize=1.3, depth=24.5)

A cell without injections answers NaN, and so does what lies beyond all injections: nothing is extrapolated.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike
from pyarrow.fs import FSSpecHandler, PyFileSystem

from darkhaloscope.injection import completeness as injected
from darkhaloscope.intervals import wilson
from darkhaloscope.results import SELECTION
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.storage import filesystem

AXES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": injected.AXES["theta_e_arcsec"],
    "src_mag_r": injected.AXES["src_mag_r"],
    "psfsize_r": (0, 1.1, 1.3, 1.5, 10),
    "psfdepth_r": (0, 24.25, 24.75, 40),
    "mag_r": (0, 19, 20, 40),
}
"""Edges of the cells; the outermost take what is beyond. Seeing, depth and hosts are coarse."""

SHAPE = tuple(len(edges) - 1 for edges in AXES.values())
KEY = "selection"  # of the file's metadata, JSON: prior, thresholds, and the limits of the injections


def cell_of(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the number of the cell that each injection is in, (n,) int64; -1 where a value is not finite.

    Args:
        values: an array for each of `AXES`.
    """
    bins = [injected.bin_of(np.asarray(values[axis], np.float64), edges) for axis, edges in AXES.items()]
    inside = np.all([b >= 0 for b in bins], axis=0)
    return np.where(inside, np.ravel_multi_index([np.maximum(b, 0) for b in bins], SHAPE), -1)


def cells_table(cell: np.ndarray, logit: np.ndarray, thresholds: Mapping[str, float]) -> pa.Table:
    """Return the SELECTION table: every cell at every threshold, empty ones too.

    Args:
        cell: (n,) of `cell_of`.
        logit: (n,) of the injections.
        thresholds: FPR name -> logit from which an injection counts as found.
    """
    usable, n_cells = cell >= 0, int(np.prod(SHAPE))
    n = np.bincount(cell[usable], minlength=n_cells)
    edges = list(itertools.product(*(list(itertools.pairwise(map(float, e))) for e in AXES.values())))
    where = {
        f"{axis}_{end}": [cell_edges[i][k] for cell_edges in edges]
        for i, axis in enumerate(AXES)
        for k, end in enumerate(("low", "high"))
    }
    batches = []
    for name, threshold in thresholds.items():
        found = np.bincount(cell[usable & (logit >= threshold)], minlength=n_cells)
        batches.append(to_batch(SELECTION, where | rates(found, n) | {
            "fpr": [name] * n_cells, "threshold": np.full(n_cells, threshold),
        }))  # fmt: skip
    return pa.Table.from_batches(batches, SELECTION.arrow())


def rates(found: np.ndarray, n: np.ndarray) -> dict[str, object]:
    """Return counts, share and 95 % Wilson interval as columns; null where there is nothing to divide by."""
    low, high = wilson(found, n)
    share = np.divide(found, n, out=np.full(len(n), np.nan), where=n > 0)
    columns = {"completeness": share, "ci_low": low, "ci_high": high}
    return {"n": n, "n_found": found} | {k: pa.array(v, mask=n == 0) for k, v in columns.items()}


@dataclass(frozen=True)
class SelectionFunction:
    """Completeness by cell at one threshold.

    n, found: (theta_E, source magnitude, psfsize, depth, host magnitude) int64, injections and those found.
    limits: lowest and highest value among the injections, for each of `AXES`.
    facts: what the file says of itself: prior, thresholds, checkpoint and data.
    """

    n: np.ndarray
    found: np.ndarray
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
        axes = list(AXES)[: len(given)]
        bins, inside = [], np.ones(given[0].shape, bool)
        for axis, values in zip(axes, given, strict=True):
            low, high = self.limits[axis]
            inside &= (values >= low) & (values <= high)
            bins.append(np.maximum(injected.bin_of(values, AXES[axis]), 0))
        n, found = (t.sum(axis=-1) if host_mag is None else t for t in (self.n, self.found))
        n, found = (np.where(inside, t[tuple(bins)], 0) for t in (n, found))
        value = np.divide(found, n, out=np.full(n.shape, np.nan), where=n > 0)
        return value, *wilson(found, n)


def read_selection_function(url: str, fpr: str) -> SelectionFunction:
    """Read `selection_function.parquet` at one threshold, such as "fpr1e-3".

    Raises:
        SchemaError: not such a table.
        ValueError: it has no such threshold; the message names those it has.
    """
    fs, path = filesystem(url)
    table = pq.read_table(path, filesystem=PyFileSystem(FSSpecHandler(fs)))
    check_schema(SELECTION, table.schema, url)
    names = table.column("fpr").to_pylist()
    mine = table.filter(pa.array([name == fpr for name in names]))
    if mine.num_rows != np.prod(SHAPE):
        raise ValueError(f"{url}: {mine.num_rows} cells at {fpr!r}; there are {sorted(set(names))}")
    n, found = (mine.column(c).to_numpy().reshape(SHAPE) for c in ("n", "n_found"))
    facts = json.loads(table.schema.metadata[KEY.encode()])
    return SelectionFunction(n, found, facts["limits"], facts)
