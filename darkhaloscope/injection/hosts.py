"""Which galaxies become hosts, and which of them are controls: by hash, so that no row needs another.

Every choice depends on the host's id and the experiment's seed only. A host keeps its rank and its class
when the catalogue grows, is split into other partitions, or comes in another order.
"""

from __future__ import annotations

import numpy as np

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.grids import n_configurations
from darkhaloscope.injection.keys import enumerated

SPLITS = ("train", "val", "test")
HOST_CLASS_STREAM = 0


def rows_per_host(experiment: Experiment) -> int:
    """Return how many manifest rows one host makes."""
    injection = experiment.injection
    configurations = n_configurations(injection.grid) if enumerated(experiment) else 1
    return injection.replicates * configurations * (2 if injection.controls == "paired" else 1)


def hosts_wanted(experiment: Experiment) -> int:
    """Return how many hosts a split needs for `n_total_per_split` rows; all rows of the last are kept."""
    return -(-experiment.injection.n_total_per_split // rows_per_host(experiment))


def host_ranks(host_id: np.ndarray, seed: int) -> np.ndarray:
    """Return (n,) int64 in [0, 2^63): the order in which hosts are taken, lowest first."""
    return np.array([int(digest("host rank", seed, int(h))[:16], 16) >> 1 for h in host_id], np.int64)


def select_hosts(host_id: np.ndarray, region_split: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Return a mask over hosts: per split, the `hosts_wanted` of lowest rank (all, where there are fewer).

    Hosts outside the three splits (the guard at the borders of cells) are never taken.

    Args:
        host_id: (n,) int64, each galaxy once.
        region_split: (n,) strings.
        experiment: gives the seed and the number of rows wanted.

    Raises:
        ValueError: a host occurs twice; its rows would be the same stamps again.
    """
    host_id, region_split = np.asarray(host_id, np.int64), np.asarray(region_split, object)
    refuse_repeats(host_id)
    ranks = host_ranks(host_id, experiment.seed)
    mask = np.zeros(len(host_id), bool)
    for split in SPLITS:
        members = np.flatnonzero(region_split == split)
        order = np.lexsort((host_id[members], ranks[members]))
        mask[members[order[: hosts_wanted(experiment)]]] = True
    return mask


def refuse_repeats(host_id: np.ndarray) -> None:
    """Raise `ValueError`, naming some, where a host occurs more than once."""
    values, counts = np.unique(host_id, return_counts=True)
    if repeated := values[counts > 1].tolist():
        raise ValueError(
            f"{len(repeated)} hosts occur more than once, e.g. host_id {repeated[:3]}; "
            "drop the duplicates of the target table before laying out injections"
        )


def is_control_host(host_id: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Return (n,) bool: the hosts that are controls when controls are unpaired, a share `control_frac`."""
    hosts, row_of = np.unique(host_id, return_inverse=True)
    ids = [digest("host class", experiment.seed, int(h)) for h in hosts]
    return (uniforms(ids, HOST_CLASS_STREAM, 1)[:, 0] < experiment.injection.control_frac)[row_of]
