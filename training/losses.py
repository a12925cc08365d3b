"""Losses, in float32 from logits whatever the precision around them.

Computed from probabilities in half precision, a focal loss has exactly no gradient for a negative that the
network is sure is a lens: the example it should learn most from. `logsigmoid` keeps it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import logsigmoid

from darkhaloscope.sections import Training
from training.batch import LEFT_OUT

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def binary_cross_entropy(logit: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return -log p of the true class, row by row.

    Args:
        logit: (n,) any floating type.
        label: (n,) 0 to 1; a fraction is a soft label.

    Returns:
        (n,) float32.
    """
    with torch.autocast(logit.device.type, enabled=False):
        logit, label = logit.float(), label.float()
        return -(label * logsigmoid(logit) + (1 - label) * logsigmoid(-logit))


def focal(logit: torch.Tensor, label: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Return the focal loss, -a (1 - p)^gamma log p of the true class, row by row (Lin et al. 2017, eq. 5).

    Args:
        logit: (n,) any floating type.
        label: (n,) 0 to 1; a fraction is a soft label.
        alpha: the factor a of positives; negatives have 1 - alpha.
        gamma: 0 gives the weighted cross-entropy.

    Returns:
        (n,) float32.
    """
    with torch.autocast(logit.device.type, enabled=False):
        logit, label = logit.float(), label.float()
        log_p, log_q = logsigmoid(logit), logsigmoid(-logit)
        positive = -alpha * torch.exp(gamma * log_q) * log_p
        negative = -(1 - alpha) * torch.exp(gamma * log_p) * log_q
        return label * positive + (1 - label) * negative


def make_loss(config: Training) -> Loss:
    """Return the loss that a config names, as a function of (logit, label) row by row.

    It is 0, and has no gradient, where the label is `batch.LEFT_OUT`. Labels are smoothed towards 1/2 (Szegedy et al.
    2016, section 7, for two classes); positives count `positive_weight` times.
    """

    def loss(logit: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        shown = label != LEFT_OUT
        label = torch.where(shown, label.float(), 0.0)
        soft = label + config.label_smoothing * (0.5 - label)
        if config.loss == "focal":
            rows = focal(logit, soft, config.focal_alpha, config.focal_gamma)
        else:
            rows = binary_cross_entropy(logit, soft)
        rows = rows * (1 + (config.positive_weight - 1) * label)
        return torch.where(shown, rows, 0.0)

    return loss


def mean_loss(rows: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the mean of `make_loss`'s rows over those that are not left out; 0 where all are."""
    return rows.sum() / (label != LEFT_OUT).sum().clamp(min=1)
