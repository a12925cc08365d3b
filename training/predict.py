"""Logits of a batch: the one way from a batch to scores, in validation and in scoring."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
import torch

from darkhaloscope.errors import Explained
from training.data import Batch
from training.models import Finder

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which a network computes at `precision`; weights stay float32."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES)


def device_of(model: torch.nn.Module) -> torch.device:
    """Return the device that a network's weights are on."""
    return next(model.parameters()).device


class NotFinite(Explained, FloatingPointError):
    """Logits that are no numbers; the message names their rows."""


@torch.inference_mode()
def predict(model: Finder, batch: Batch, precision: Precision = "fp32") -> np.ndarray:
    """Return logits, (n,) float32; larger is more lens-like.

    Args:
        model: in evaluation mode, as `checkpoint.load_finder_model` returns it.
        batch: rows, as `data.make_batch` makes them from a table.
        precision: of the network's inner layers.

    Raises:
        ValueError: the model is in training mode, where a row's logit would depend on its neighbours.
        NotFinite: a logit is NaN or infinite; the rows are named.
    """
    if model.training:
        raise ValueError("predict: the model is in training mode; call model.eval() first")
    device = device_of(model)
    moved = batch.to(device)
    with autocast(device, precision):
        logit = model(moved.stamps, moved.sky_sigma, moved.meta).cpu().numpy()
    if not np.isfinite(logit).all():
        names = [t for t, fine in zip(batch.task_ids(), np.isfinite(logit), strict=True) if not fine]
        raise NotFinite(
            f"{len(names)} logits are NaN or infinite, task_id {', '.join(names[:5])}; look at these stamps, "
            f"and at the weights if it is all of them"
        )
    return logit
