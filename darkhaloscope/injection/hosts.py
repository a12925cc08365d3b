"""Which galaxies become hosts, and which of them are controls: by hash, so that no row needs another.

Every choice depends on the host's id and the experiment's seed only. A host keeps its rank and its class
when the catalogue grows, is split into other partitions, or comes in another order.
"""

from __future__ import annotations

import math

import numpy as np

from darkhaloscope.draws import digest, digests, uniforms
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.grids import n_configurations
from darkhaloscope.injection.keys import enumerated

HOST_CLASS_STREAM = 0


def injections_per_host(experiment: Experiment) -> int:
    """Return how many injections a host makes that is not an unpaired control."""
    configurations = n_configurations(experiment.injection) if enumerated(experiment) else 1
    return experiment.injection.replicates * configurations


def control_host_fraction(experiment: Experiment) -> float:
    """Return the share of hosts that are controls when controls are unpaired.

    A control makes one row, since another would be the same pixels again; an injected host makes r. So that
    a share f of the rows are controls, a share f r / (1 - f + f r) of the hosts must be.
    """
    f, r = experiment.injection.control_frac, injections_per_host(experiment)
    return f * r / (1 - f + f * r)


def rows_per_host(experiment: Experiment) -> float:
    """Return how many rows a host makes, on average over positives and controls."""
    r, share = injections_per_host(experiment), control_host_fraction(experiment)
    return 2 * r if experiment.injection.controls == "paired" else share + (1 - share) * r


def hosts_wanted(experiment: Experiment) -> int:
    """Return how many hosts a split needs for about `n_total_per_split` rows; all rows of a host are kept."""
    return math.ceil(experiment.injection.n_total_per_split / rows_per_host(experiment))


def host_ranks(host_id: np.ndarray, seed: int) -> np.ndarray:
    """Return (n,) int64 in [0, 2^63): the order in which hosts are taken, lowest first."""
    return (digests(digest("host rank", seed), host_id)[:, 0] >> np.uint64(1)).astype(np.int64)


def refuse_repeats(host_id: np.ndarray) -> None:
    """Raise `ValueError`, naming some, where a host occurs more than once."""
    values, counts = np.unique(host_id, return_counts=True)
    if repeated := values[counts > 1].tolist():
        raise ValueError(
            f"{len(repeated)} hosts occur more than once, e.g. host_id {repeated[:3]}; "
            "drop the duplicates of the target table before laying out injections"
        )


def is_control_host(host_id: np.ndarray, experiment: Experiment, fraction: float | None = None) -> np.ndarray:
    """Return (n,) bool: the hosts that are controls when controls are unpaired.

    Args:
        host_id: (n,).
        experiment: its seed decides.
        fraction: of the hosts; None: `control_host_fraction`.
    """
    fraction = control_host_fraction(experiment) if fraction is None else fraction
    return _host_draws(host_id, experiment)[:, 0] < fraction


def control_row(host_id: np.ndarray, experiment: Experiment) -> np.ndarray:
    """Return (n,) int64: which of its injections a control host is the virtual host of, 0 .. per host - 1."""
    per_host = injections_per_host(experiment)
    return np.minimum((_host_draws(host_id, experiment)[:, 1] * per_host).astype(np.int64), per_host - 1)


def _host_draws(host_id: np.ndarray, experiment: Experiment) -> np.ndarray:
    ids = digests(digest("host class", experiment.seed), np.asarray(host_id, np.int64))
    return uniforms(ids, HOST_CLASS_STREAM, 2)
