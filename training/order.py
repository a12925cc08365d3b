"""The order of an epoch and who reads what: pure functions of (seed, epoch) and of the number of readers.

A *lane* is one reader: worker w of rank r is lane r * workers + w. The row groups of an epoch, in their
shuffled order, are one long sequence of rows. It is cut into as many equal shares as there are lanes, so that
shares differ by one row at most (a row group at a border is read by two lanes, each taking its own rows of
it). Every lane cuts its share into the same number of batches, of sizes that differ by one at most. So every
row is in exactly one batch, every rank takes the same number of steps, and batch k of a rank comes from its
worker k modulo workers.
"""

from __future__ import annotations

import numpy as np

from darkhaloscope.draws import digest, uniforms

_GROUPS, _POOL = 0, 1  # streams of draws


def shuffled(count: int, stream: int, *key: object) -> np.ndarray:
    """Return a permutation of `count` that depends on nothing but `stream` and `key`, (count,) int64."""
    return np.argsort(uniforms([digest(*key)], stream, count)[0], kind="stable")


def group_order(groups: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch goes through the row groups, (groups,) int64."""
    return shuffled(groups, _GROUPS, seed, epoch)


def pool_order(rows: int, seed: int, epoch: int, lane: int, pool: int) -> np.ndarray:
    """Return the order of the rows of a lane's mixing pool, (rows,) int64."""
    return shuffled(rows, _POOL, seed, epoch, lane, pool)


def steps_per_lane(rows: int, lanes: int, batch_size: int) -> int:
    """Return the number of batches of each lane: the fewest that keep every batch within `batch_size`."""
    return -(-_ceil(rows, lanes) // batch_size)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def edges(rows: int, parts: int) -> np.ndarray:
    """Return the borders of `parts` contiguous parts of `rows` whose sizes differ by one at most."""
    return np.arange(parts + 1, dtype=np.int64) * rows // parts


def share(rows: np.ndarray, order: np.ndarray, lane: int, lanes: int) -> np.ndarray:
    """Return what one lane reads.

    Args:
        rows: (group,) rows of each row group.
        order: order of the row groups.
        lane: which reader, 0 to lanes - 1.
        lanes: number of readers.

    Returns:
        (segment, 3) int64: row group, first row of it, last row + 1. Empty row groups are left out.
    """
    ends = np.cumsum(rows[order])
    first, last = edges(int(ends[-1]), lanes)[lane : lane + 2]
    starts = ends - rows[order]
    segments = np.stack([order, np.maximum(first - starts, 0), np.minimum(last, ends) - starts], axis=1)
    return segments[segments[:, 2] > segments[:, 1]]


def pools(segments: np.ndarray, pool_rows: int) -> list[np.ndarray]:
    """Cut a lane's segments into mixing pools: runs of at least `pool_rows` rows (the last of less)."""
    lengths = segments[:, 2] - segments[:, 1]
    before = np.cumsum(lengths) - lengths  # rows in front of each segment
    cuts, filled = [], 0
    for i in range(1, len(segments)):
        if before[i] - filled >= pool_rows:
            cuts.append(i)
            filled = before[i]
    return np.split(segments, cuts)


def delivered(position: int, worker: int, workers: int) -> int:
    """Return how many of a rank's first `position` batches came from `worker`."""
    return max(0, _ceil(position - worker, workers))
