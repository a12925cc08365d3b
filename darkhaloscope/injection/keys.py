"""Keys of a row's draws: of its host, replicate and configuration, not of the experiment."""

from __future__ import annotations

import numpy as np

from darkhaloscope.draws import Keys, digest, digests
from darkhaloscope.experiment import Experiment


def enumerated(experiment: Experiment) -> bool:
    """Tell whether every host gets every configuration (tiers grid and debug) or draws its own (train)."""
    return experiment.injection.tier != "train"


def draw_ids(
    host_id: np.ndarray, replicate: np.ndarray, config_id: np.ndarray, experiment: Experiment
) -> Keys:
    """Return the key of each row's draws, (n, 2) uint64.

    Equal for a pair, and for rows of experiments that differ in PSF, noise or stamp size only. Where the
    configuration is itself drawn, it is no part of the key.
    """
    config = config_id if enumerated(experiment) else np.full(len(host_id), -1)
    return digests(digest("injection", experiment.seed), host_id, replicate, config)
