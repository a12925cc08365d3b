"""The order of an epoch and who reads what: pure functions of (seed, epoch) and of the number of readers.

An epoch is a list of *visits*. A visit reads one row group and shows some of its rows. Where every row is
shown once, each row group has one visit; where the mixture shows a row five times, its group has five, spread
evenly over the epoch, and each row takes part in as many of them as it is to be shown.

A *lane* is one reader: worker w of rank r is lane r * workers + w. Visits are dealt in their order, each to
the lane with the fewest rows so far, and cut where a lane is full, so that lanes advance through the epoch
together and their shares differ by one row at most. Every lane cuts its share into the same number of
batches, of sizes that differ by one at most. So every showing of a row is in exactly one batch, every rank
takes the same number of steps, and batch k of a rank comes from its worker k modulo workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from darkhaloscope.draws import digest, uniforms

_GROUPS, _POOL = 0, 1  # streams of draws


def in_turns(turn: int, count: np.ndarray, period: np.ndarray | int, phase: np.ndarray) -> np.ndarray:
    """Return how often each thing comes up in a turn, if `count` times in any `period` turns, evenly spread.

    The two sums of a thing's integer ramp telescope, so that any `period` turns in succession hold it exactly
    `count` times.

    Args:
        turn: number of the turn.
        count: (n,) or a number.
        period: (n,) or a number.
        phase: (n,) of 0 to period - 1: which of the turns are its own.
    """
    return ((turn + 1) * count + phase) // period - (turn * count + phase) // period


def group_places(groups: int, seed: int, epoch: int) -> np.ndarray:
    """Return where in an epoch, 0 to 1, the first visit to each row group is, (groups,) float64."""
    return uniforms([digest(seed, epoch)], _GROUPS, groups)[0]


def visit_order(place: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Return the visits of an epoch in their order.

    Args:
        place: (group,) from `group_places`.
        visits: (group,) how often each group is visited.

    Returns:
        (visit, 2) int64: row group, and the number of the visit to it. Visits to one group are an equal part
        of the epoch apart.
    """
    group = np.repeat(np.arange(len(visits)), visits)
    number = np.arange(len(group)) - np.repeat(np.cumsum(visits) - visits, visits)
    when = (place[group] + number / visits[group]) % 1.0
    return np.stack([group, number], axis=1)[np.argsort(when, kind="stable")]


def pool_order(rows: int, seed: int, epoch: int, lane: int, pool: int) -> np.ndarray:
    """Return the order of the rows of a lane's mixing pool, (rows,) int64."""
    return np.argsort(uniforms([digest(seed, epoch, lane, pool)], _POOL, rows)[0], kind="stable")


def steps_per_lane(rows: int, lanes: int, batch_size: int) -> int:
    """Return the number of batches of each lane: the fewest that keep every batch within `batch_size`."""
    return -(-_ceil(rows, lanes) // batch_size)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def edges(rows: int, parts: int) -> np.ndarray:
    """Return the borders of `parts` contiguous parts of `rows` whose sizes differ by one at most."""
    return np.arange(parts + 1, dtype=np.int64) * rows // parts


def deal(sizes: Sequence[int] | np.ndarray, lanes: int) -> list[np.ndarray]:
    """Share visits out to lanes.

    Args:
        sizes: rows of each visit, in the order of the epoch.
        lanes: number of readers.

    Returns:
        For each lane (segment, 3) int64: visit, first row of it, last row + 1, in the order of reading.
    """
    sizes = np.asarray(sizes).tolist()
    share = np.diff(edges(sum(sizes), lanes)).tolist()
    dealt: list[list[tuple[int, int, int]]] = [[] for _ in range(lanes)]
    filled = [(0, lane) for lane in range(lanes) if share[lane]]
    for visit, size in enumerate(sizes):
        start = 0
        while start < size:
            rows, lane = filled[0]
            stop = min(size, start + share[lane] - rows)
            dealt[lane].append((visit, start, stop))
            rows, start = rows + stop - start, stop
            if rows < share[lane]:
                heapq.heapreplace(filled, (rows, lane))
            else:
                heapq.heappop(filled)
    return [np.array(one, np.int64).reshape(-1, 3) for one in dealt]


def pools(lengths: np.ndarray, group: np.ndarray, pool_rows: int) -> list[slice]:
    """Cut a lane's segments into mixing pools: runs of at least `pool_rows` rows (the last of less).

    A pool ends early rather than hold a row group twice, so that no row is mixed with itself.

    Args:
        lengths: (segment,) rows of each segment.
        group: (segment,) row group it is of.
        pool_rows: rows that are mixed with each other.
    """
    cuts, rows, held = [0], 0, set[int]()
    for i, (length, one) in enumerate(zip(lengths.tolist(), group.tolist(), strict=True)):
        if rows >= pool_rows or one in held:
            cuts.append(i)
            rows, held = 0, set()
        rows += length
        held.add(one)
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]


def delivered(position: int, worker: int, workers: int) -> int:
    """Return how many of a rank's first `position` batches came from `worker`."""
    return max(0, _ceil(position - worker, workers))
