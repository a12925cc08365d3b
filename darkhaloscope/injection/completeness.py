"""Stage 4d: of the arcs that were injected, the share that could be measured and stands out.

Counts are arrays that add up: count each part of the stamps where it lies (`count`), sum the counts, and turn
the sum into the table (`completeness_table`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from darkhaloscope.intervals import wilson
from darkhaloscope.records import COMPLETENESS, STAMPS
from darkhaloscope.schema import check_schema, to_batch

# Lower edges and the last upper edge. The outermost bins are wide enough for any value that the pipeline can
# make, and take what is beyond: on each axis every injection with a finite value is in exactly one bin.
AXES: dict[str, tuple[float, ...]] = {
    "theta_e_arcsec": (0, 0.4, 0.6, 0.85, 1.1, 1.4, 1.75, 2.25, 3, 60),
    "theta_over_fwhm": (0, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3.5, 100),
    "src_mag_r": (0, 18, 19, 20, 21, 22, 23, 24, 25, 26, 40),
    "psfsize_r": (0, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 10),
    "psfdepth_r": (0, 23.6, 24, 24.25, 24.5, 24.75, 25, 25.5, 40),
}
ROWS = ("all", "clean")
NEEDED = ("is_control", "metrics_ok", "arc_snr", *AXES)

N_BINS = sum(len(edges) - 1 for edges in AXES.values())


def count(stamps: pa.Table | pa.RecordBatch, snr_threshold: float) -> np.ndarray:
    """Count the injections of some stamps by bin.

    Controls are not counted. Under "all" every injection counts, one that failed or lies under a mask as
    not detectable; under "clean" only those whose measurements can be trusted (`metrics_ok`).

    Args:
        stamps: STAMPS rows; only `NEEDED` is read.
        snr_threshold: `arc_snr` from which an arc is detectable.

    Returns:
        (bin, all or clean, injections or detectable) int64; bins are those of `AXES`, in order. Counts of
        parts add up to the counts of the whole.

    Raises:
        SchemaError: a column is missing.
    """
    check_schema(STAMPS, stamps.schema, "stamps", NEEDED)
    columns = {n: stamps.column(n).to_numpy(zero_copy_only=False) for n in NEEDED}
    injected = columns["is_control"] == 0
    clean = columns["metrics_ok"] == 1
    snr = columns["arc_snr"].astype(np.float64)  # null becomes NaN, which is not detectable
    found = snr >= snr_threshold
    counts = np.zeros((N_BINS, len(ROWS), 2), np.int64)
    start = 0
    for axis, edges in AXES.items():
        values = columns[axis].astype(np.float64)
        usable = injected & np.isfinite(values)
        bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        for i, rows in enumerate((usable, usable & clean)):
            for j, chosen in enumerate((rows, rows & found)):
                n = np.bincount(bins[chosen], minlength=len(edges) - 1)
                counts[start : start + len(n), i, j] = n
        start += len(edges) - 1
    return counts


def completeness_table(counts: np.ndarray, snr_threshold: float) -> pa.RecordBatch:
    """Return the COMPLETENESS table of counts: a row for each bin, empty ones too, for "all" and "clean".

    Args:
        counts: a sum of `count`s.
        snr_threshold: the threshold they were counted with.
    """
    if counts.shape != (N_BINS, len(ROWS), 2):
        raise ValueError(
            f"counts have shape {counts.shape}, expected {(N_BINS, len(ROWS), 2)} as from count()"
        )
    n, found = counts[..., 0].ravel(), counts[..., 1].ravel()
    low, high = wilson(found, n)
    rate = np.divide(found, n, out=np.full(len(n), np.nan), where=n > 0)
    bins = [one for one in _bins() for _ in ROWS]
    return to_batch(
        COMPLETENESS,
        {
            "axis": [axis for axis, _, _ in bins],
            "low": [lower for _, lower, _ in bins],
            "high": [upper for _, _, upper in bins],
            "rows": list(ROWS) * N_BINS,
            "n": n,
            "n_detectable": found,
            "completeness": pa.array(rate, mask=n == 0),
            "ci_low": pa.array(low, mask=n == 0),
            "ci_high": pa.array(high, mask=n == 0),
            "snr_threshold": np.full(len(n), snr_threshold),
        },
    )


def _bins() -> Iterator[tuple[str, float, float]]:
    for axis, edges in AXES.items():
        for lower, upper in itertools.pairwise(edges):
            yield axis, float(lower), float(upper)
