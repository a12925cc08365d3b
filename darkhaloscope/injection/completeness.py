"""Stage 4d: of the arcs that were injected, the share that could be measured and stands out.

Counts are arrays that add up: count each part of the stamps where it lies (`count`), sum the counts, and turn
the sum into the tables: one quantity at a time (`completeness_table`), and two (`cells_table`). Injections of one host
share its pixels, so the counts hold what intervals need to know of hosts; stage 4c writes a host's rows into one part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.records import COMPLETENESS, COMPLETENESS_CELLS, STAMPS
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.stats.intervals import CLUSTER_SUMS, cluster_sums, clustered

# Lower edges and the last upper edge. The outermost bins are wide enough for any value that the pipeline can
# make, and take what is beyond: on each axis every injection with a finite value is in exactly one bin.
AXES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0, 0.4, 0.6, 0.85, 1.1, 1.4, 1.75, 2.25, 3, 60),
    "theta_over_fwhm": (0, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3.5, 100),
    "src_mag_r": (0, 18, 19, 20, 21, 22, 23, 24, 25, 26, 40),
    "psfsize_r": (0, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 10),
    "psfdepth_r": (0, 23.6, 24, 24.25, 24.5, 24.75, 25, 25.5, 40),
}
# Pairs of axes that are binned together: does the lens's size make up for a faint source, or for poor seeing?
PAIRS = (("theta_e_arcsec", "src_mag_r"), ("theta_over_fwhm", "psfsize_r"))
ROWS = ("all", "clean")
CELLS = "cells"  # folder of the table of two quantities, below that of one
NEEDED = ("host_id", "is_control", "metrics_ok", "arc_snr", *AXES)

N_BINS = sum(len(edges) - 1 for edges in AXES.values())
N_CELLS = sum((len(AXES[a]) - 1) * (len(AXES[b]) - 1) for a, b in PAIRS)


def count(stamps: pa.Table | pa.RecordBatch, snr_threshold: float) -> np.ndarray:
    """Count the injections of some stamps by bin.

    Controls are not counted, nor rows without an Einstein radius (galaxies of a catalogue). Under "all" every injection
    counts, one that failed or lies under a mask as not detectable; under "clean" only those whose measurements can be
    trusted (`metrics_ok`).

    Args:
        stamps: STAMPS rows; only `NEEDED` is read.
        snr_threshold: `arc_snr` from which an arc is detectable.

    Returns:
        (bin, all or clean, `CLUSTER_SUMS`) int64, of injections, those detectable, and hosts; bins are those of `AXES`,
        in order, then the cells of `PAIRS`, the second axis running fastest. Counts of parts add up to the counts of
        the whole, if no host is in two.

    Raises:
        SchemaError: a column is missing.
    """
    check_schema(STAMPS, stamps.schema, "stamps", NEEDED)
    columns = {n: stamps.column(n).to_numpy(zero_copy_only=False) for n in NEEDED}
    injected = (columns["is_control"] == 0) & np.isfinite(columns["theta_e_arcsec"].astype(np.float64))
    clean = columns["metrics_ok"] == 1
    snr = columns["arc_snr"].astype(np.float64)  # null becomes NaN, which is not detectable
    found = snr >= snr_threshold
    place = {axis: bin_of(columns[axis].astype(np.float64), edges) for axis, edges in AXES.items()}
    size = {axis: len(edges) - 1 for axis, edges in AXES.items()}
    binned = [(place[axis], size[axis]) for axis in AXES]
    for a, b in PAIRS:
        inside = (place[a] >= 0) & (place[b] >= 0)
        binned.append((np.where(inside, place[a] * size[b] + place[b], -1), size[a] * size[b]))
    host, rows = columns["host_id"], (injected, injected & clean)
    return np.concatenate([
        np.stack([cluster_sums(np.where(chosen, bins, -1), host, found, n) for chosen in rows], axis=1)
        for bins, n in binned
    ])  # fmt: skip


def bin_of(values: np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """Return the bin of each value, -1 where it is not finite."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.where(np.isfinite(values), bins, -1)


def completeness_table(counts: np.ndarray, snr_threshold: float) -> pa.RecordBatch:
    """Return the COMPLETENESS table of counts: a row for each bin, empty ones too, for "all" and "clean".

    Args:
        counts: a sum of `count`s.
        snr_threshold: the threshold they were counted with.
    """
    bins = [one for one in _bins() for _ in ROWS]
    where = {
        "axis": [axis for axis, _, _ in bins],
        "low": [lower for _, lower, _ in bins],
        "high": [upper for _, _, upper in bins],
    }
    return to_batch(COMPLETENESS, where | _rates(_checked(counts)[:N_BINS], snr_threshold))


def cells_table(counts: np.ndarray, snr_threshold: float) -> pa.RecordBatch:
    """Return the COMPLETENESS_CELLS table of counts: a row for each cell of two quantities, empty ones too.

    Arguments as `completeness_table`.
    """
    cells = [
        (a, *one, b, *other)
        for a, b in PAIRS
        for one in itertools.pairwise(map(float, AXES[a]))
        for other in itertools.pairwise(map(float, AXES[b]))
        for _ in ROWS
    ]
    names = ("axis", "low", "high", "axis_2", "low_2", "high_2")
    where = {name: [cell[i] for cell in cells] for i, name in enumerate(names)}
    return to_batch(COMPLETENESS_CELLS, where | _rates(_checked(counts)[N_BINS:], snr_threshold))


def _checked(counts: np.ndarray) -> np.ndarray:
    expected = (N_BINS + N_CELLS, len(ROWS), len(CLUSTER_SUMS))
    if counts.shape != expected:
        raise ValueError(f"counts have shape {counts.shape}, expected {expected} as from count()")
    return counts


def _rates(counts: np.ndarray, snr_threshold: float) -> dict[str, Any]:
    """Return the columns that say how many, and what share with its interval; null where there is none."""
    sums = counts.reshape(-1, len(CLUSTER_SUMS))
    n, found, hosts = sums[:, :3].T
    low, high = clustered(sums)
    rate = np.divide(found, n, out=np.full(len(n), np.nan), where=n > 0)
    return {
        "rows": list(ROWS) * len(counts),
        "n": n,
        "n_detectable": found,
        "n_hosts": hosts,
        "completeness": pa.array(rate, mask=n == 0),
        "ci_low": pa.array(low, mask=n == 0),
        "ci_high": pa.array(high, mask=n == 0),
        "snr_threshold": np.full(len(n), snr_threshold),
    }


def _bins() -> Iterator[tuple[str, float, float]]:
    for axis, edges in AXES.items():
        for lower, upper in itertools.pairwise(edges):
            yield axis, float(lower), float(upper)
