"""Which hosts are taken: of each group of hosts, those of the lowest rank, as many as its quota.

The hosts of a survey do not fit in memory, so they are gone through several times, piece by piece: `count_ranks` of all
pieces added up tell in which interval of ranks a group's quota is reached (`boundary`), the few hosts of those
intervals (`at_boundary`) tell which is the last one (`last_taken`), and then each host knows for itself whether it is
taken. The result is exact, and the same however the hosts are divided into pieces.

Groups are splits; with `injection.balance = "seeing_depth"` cells of PSF size and depth of a split, filled equally as
far as their hosts go; for controls that are matched in total magnitude, bins of the host's r magnitude in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.balance import auc_of
from darkhaloscope.injection.hosts import host_ranks, hosts_wanted, is_control_host
from darkhaloscope.records import SPLITS, TARGETS

SEEING_EDGES = (1.0, 1.15, 1.3, 1.45)  # psfsize_r, arcsec
DEPTH_EDGES = (24.0, 24.4, 24.8, 25.2)  # psfdepth_r, AB mag
MAGNITUDES = np.arange(14.0, 24.01, 0.1)  # edges of the bins in which controls are matched
N_MAGNITUDES = len(MAGNITUDES) + 1
RANK_BITS = 8
_RANKS, _SHIFT = 1 << RANK_BITS, 63 - RANK_BITS

NEEDED = ("host_id", "region_split", "psfsize_r", "psfdepth_r", "mag_r")
"""Columns of records.TARGETS that a selection looks at."""

Counts = NDArray[np.int64]
Columns = Mapping[str, np.ndarray]
Scan = Callable[[Callable[[pa.RecordBatch], Any]], Iterable[Any]]
"""Applies a function to every piece of the targets; the pieces have `columns_needed`."""
TotalMagnitude = Callable[[pa.RecordBatch, Experiment], tuple[np.ndarray, np.ndarray]]
"""Of hosts that are positives: which host each injection is on, and its host-plus-arc r magnitude."""


def columns_needed(experiment: Experiment) -> list[str]:
    """Return the columns of records.TARGETS that choosing the hosts takes."""
    return TARGETS.names if experiment.injection.match_total_magnitude else list(NEEDED)


def columns_of(targets: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Return the `NEEDED` columns of a piece."""
    return {n: np.asarray(targets.column(n).to_numpy(zero_copy_only=False)) for n in NEEDED}


@dataclass(frozen=True)
class Last:
    """The last host taken of each group, by rank and, of equal ranks, host_id; both (groups,) int64."""

    rank: Counts
    host_id: Counts

    def takes(self, group: Counts, rank: Counts, host_id: Counts) -> NDArray[np.bool_]:
        """Tell which hosts are taken; a negative group is none."""
        last_rank, last_host = self.rank[group], self.host_id[group]
        return (group >= 0) & ((rank < last_rank) | ((rank == last_rank) & (host_id <= last_host)))


@dataclass(frozen=True)
class Selection:
    """The hosts that make rows.

    hosts: of all hosts by `group_of`. controls: of control hosts by `magnitude_group_of`, where controls are matched.
    counts: hosts by group, "available" and "taken"; where controls are matched, also by magnitude group, injections by
        host-plus-arc magnitude and controls by their own, as they would be, are wanted and are.
    """

    experiment: Experiment
    hosts: Last
    controls: Last | None
    counts: dict[str, Counts]

    def takes(self, columns: Columns) -> NDArray[np.bool_]:
        """Tell which targets are taken: (n,) bool from their `NEEDED` columns."""
        rank = host_ranks(columns["host_id"], self.experiment.seed)
        taken = self.hosts.takes(group_of(columns, self.experiment), rank, columns["host_id"])
        if self.controls is None:
            return taken
        control = is_control_host(columns["host_id"], self.experiment)
        group = magnitude_group_of(columns, self.experiment)
        return np.where(control, self.controls.takes(group, rank, columns["host_id"]), taken)

    def report(self) -> dict[str, Any]:
        """Return hosts available and taken by split, cell and magnitude bin, as plain lists."""
        cells = n_cells(self.experiment)
        found: dict[str, Any] = {}
        if cells > 1:
            found = {"seeing_edges": list(SEEING_EDGES), "depth_edges": list(DEPTH_EDGES)}
        for name, counts in self.counts.items():
            shape = (len(SPLITS), cells) if len(counts) == len(SPLITS) * cells else (len(SPLITS), -1)
            found[name] = dict(zip(SPLITS, counts.reshape(shape).tolist(), strict=True))
        if self.controls is not None:
            bright, own, got = (
                self.counts[n].reshape(-1, N_MAGNITUDES).sum(axis=0)
                for n in ("positives_by_magnitude", "controls_unmatched", "controls_taken")
            )
            found["total_magnitude_auc"] = {"unmatched": auc_of(bright, own), "matched": auc_of(bright, got)}
        return found


def n_cells(experiment: Experiment) -> int:
    """Return the number of cells of seeing and depth: 1 where the selection is not balanced over them."""
    balanced = experiment.injection.balance == "seeing_depth"
    return (len(SEEING_EDGES) + 1) * (len(DEPTH_EDGES) + 1) if balanced else 1


def group_of(columns: Columns, experiment: Experiment) -> Counts:
    """Return each host's group, split by split and cell by cell; -1 outside the three splits."""
    split = np.full(len(columns["host_id"]), -1)
    for number, name in enumerate(SPLITS):
        split[np.asarray(columns["region_split"], object) == name] = number
    cell = np.zeros(len(split), np.int64)
    if n_cells(experiment) > 1:
        seeing = np.searchsorted(SEEING_EDGES, columns["psfsize_r"], side="right")
        cell = seeing * (len(DEPTH_EDGES) + 1) + np.searchsorted(
            DEPTH_EDGES, columns["psfdepth_r"], side="right"
        )
    return np.where(split >= 0, split * n_cells(experiment) + cell, -1)


def magnitude_group_of(columns: Columns, experiment: Experiment) -> Counts:
    """Return the group and magnitude bin of each host; -1 outside the splits or without an r magnitude."""
    return _in_bins(group_of(columns, experiment), columns["mag_r"])


def _in_bins(group: Counts, mag_r: np.ndarray) -> Counts:
    bin_ = np.searchsorted(MAGNITUDES, mag_r, side="right")
    return np.where((group >= 0) & np.isfinite(mag_r), group * N_MAGNITUDES + bin_, -1)


def fill_equally(available: Counts, wanted: int) -> Counts:
    """Return how many to take of each cell so that all are as equal as they can be and add up to `wanted`.

    Args:
        available: (cells,) hosts there are.
        wanted: hosts to take; where there are fewer, all are taken.
    """
    left, level = wanted, 0
    for number, there in enumerate(np.sort(available).tolist()):
        level = left // (len(available) - number)
        if there > level:
            break
        left -= there
    else:
        return available.copy()
    taken = np.minimum(available, level)
    taken[np.flatnonzero(available > level)[: wanted - taken.sum()]] += 1
    return taken


def count_ranks(group: Counts, rank: Counts, groups: int) -> Counts:
    """Return how many hosts each group has in each interval of ranks, (groups, intervals)."""
    there = group >= 0
    place = group[there] * _RANKS + (rank[there] >> _SHIFT)
    return np.bincount(place, minlength=groups * _RANKS).reshape(groups, _RANKS)


def boundary(counts: Counts, quota: Counts) -> Counts:
    """Return the interval of ranks in which each group's quota is reached; -1 where the quota is 0."""
    interval = (counts.cumsum(axis=1) < quota[:, None]).sum(axis=1)
    return np.where(quota > 0, np.minimum(interval, _RANKS - 1), -1)


def at_boundary(group: Counts, rank: Counts, host_id: Counts, intervals: Counts) -> Counts:
    """Return (group, rank, host_id) of the hosts in their group's boundary interval, (n, 3)."""
    there = (group >= 0) & (rank >> _SHIFT == intervals[group])
    return np.stack([group[there], rank[there], host_id[there]], axis=1)


def last_taken(counts: Counts, quota: Counts, intervals: Counts, hosts: Counts) -> Last:
    """Return the last host of each group, from the hosts `at_boundary` of all pieces, (n, 3), in any order."""
    rank, host_id = np.full(len(quota), -1), np.full(len(quota), -1)
    hosts = hosts[np.lexsort((hosts[:, 2], hosts[:, 1], hosts[:, 0]))]
    first = np.searchsorted(hosts[:, 0], np.arange(len(quota)))
    for group in np.flatnonzero(quota > 0):
        below = counts[group, : intervals[group]].sum()
        rank[group], host_id[group] = hosts[first[group] + quota[group] - below - 1, 1:]
    return Last(rank, host_id)


def take_lowest(
    scan: Scan, group: Callable[[Columns], Counts], groups: int, seed: int,
    quota_of: Callable[[Counts], Counts],
) -> tuple[Last, Counts, Counts]:  # fmt: skip
    """Go through the hosts twice; return the last host of each group, hosts available and hosts taken, (groups,) each.

    Args:
        scan: applies a function to every piece of the targets.
        group: group of each host of a piece.
        groups: number of groups.
        seed: of the ranks.
        quota_of: hosts wanted of each group, given those available; no more than those.
    """

    def counted(targets: pa.RecordBatch) -> Counts:
        columns = columns_of(targets)
        return count_ranks(group(columns), host_ranks(columns["host_id"], seed), groups)

    counts = np.zeros((groups, _RANKS), np.int64)
    for found in scan(counted):
        counts += found
    available = counts.sum(axis=1)
    quota = np.minimum(quota_of(available), available)
    intervals = boundary(counts, quota)

    def near(targets: pa.RecordBatch) -> Counts:
        columns = columns_of(targets)
        return at_boundary(
            group(columns), host_ranks(columns["host_id"], seed), columns["host_id"], intervals
        )

    hosts = np.concatenate([np.zeros((0, 3), np.int64), *scan(near)])
    return last_taken(counts, quota, intervals, hosts), available, quota


def select(scan: Scan, experiment: Experiment, total_magnitude: TotalMagnitude) -> Selection:
    """Choose the hosts of an experiment.

    Args:
        scan: applies a function to every piece of the targets.
        experiment: seed, rows wanted, balance, matching.
        total_magnitude: asked for only where controls are matched.
    """
    cells, wanted, seed = n_cells(experiment), hosts_wanted(experiment), experiment.seed
    groups = len(SPLITS) * cells

    def quota(available: Counts) -> Counts:
        return np.concatenate([fill_equally(part, wanted) for part in available.reshape(len(SPLITS), cells)])

    hosts, available, taken = take_lowest(scan, lambda c: group_of(c, experiment), groups, seed, quota)
    counts = {"available": available, "taken": taken}
    plain = Selection(experiment, hosts, None, counts)
    if not experiment.injection.match_total_magnitude:
        return plain
    bright, own = np.zeros((2, groups * N_MAGNITUDES), np.int64)
    for found in scan(lambda piece: _wished(piece, plain, total_magnitude)):
        bright, own = bright + found[0], own + found[1]
    wanted, by_group = own.reshape(groups, -1).sum(axis=1), bright.reshape(groups, -1)
    share = by_group / np.maximum(by_group.sum(axis=1, keepdims=True), 1)
    wish = np.rint(wanted[:, None] * share).astype(np.int64).ravel()
    last, _, got = take_lowest(
        scan, lambda c: _control_group(c, experiment), groups * N_MAGNITUDES, seed, lambda _: wish
    )
    counts |= {
        "taken": taken - wanted + got.reshape(groups, -1).sum(axis=1),
        "positives_by_magnitude": bright,
        "controls_unmatched": own,
        "controls_wanted": wish,
        "controls_taken": got,
    }
    return Selection(experiment, hosts, last, counts)


def _wished(
    targets: pa.RecordBatch, plain: Selection, total_magnitude: TotalMagnitude
) -> tuple[Counts, Counts]:
    """Return injections by bin of total magnitude, and the controls that would be taken by bin of their own."""
    experiment, columns = plain.experiment, columns_of(targets)
    size = len(SPLITS) * n_cells(experiment) * N_MAGNITUDES
    group, taken = group_of(columns, experiment), plain.takes(columns)
    control = is_control_host(columns["host_id"], experiment)
    positive = np.flatnonzero(taken & ~control)
    host, magnitude = total_magnitude(targets.take(pa.array(positive)), experiment)
    bright = _in_bins(group[positive][host], magnitude)
    own = _in_bins(group, columns["mag_r"])[taken & control]
    return np.bincount(bright[bright >= 0], minlength=size), np.bincount(own[own >= 0], minlength=size)


def _control_group(columns: Columns, experiment: Experiment) -> Counts:
    control = is_control_host(columns["host_id"], experiment)
    return np.where(control, magnitude_group_of(columns, experiment), -1)
