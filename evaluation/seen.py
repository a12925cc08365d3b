"""What a network sees of real lenses and of injections: its penultimate features, and how their hosts look."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from darkhaloscope.experiment import Experiment
from darkhaloscope.survey.photometry import magnitude
from evaluation.gates import looks
from evaluation.gates.rows import read_rows, read_stamps
from evaluation.real_lenses import read_real, sky_sigma_of
from training.batch import Batch, make_batch
from training.models import Finder
from training.predict import device_of
from training.selection import DataError

HOST = ("r magnitude", "g - r", "r - z", "sky noise r")


@dataclass(frozen=True)
class Seen:
    """Stamps as the network sees them, and what their hosts are matched by.

    Attributes:
        feature: (n, feature).
        host: (n, 4) magnitudes, `HOST`: within 1.6 arcsec of the middle, arc included, since nothing else is known of a
            real lens; sky noise as a magnitude.
        content: hash of the pixels it was made from.
    """

    feature: np.ndarray
    host: np.ndarray
    content: str = ""


@torch.inference_mode()
def seen(model: Finder, batch: Batch, sky_sigma: np.ndarray) -> Seen:
    """Return what the network sees of a batch; sky_sigma (n, band) nmgy/pixel."""
    parts, device = [], device_of(model)
    for at in torch.arange(len(batch.label)).split(256):
        some = Batch(*(t[at] for t in batch)).to(device)
        parts.append(model.features(some.stamps, some.sky_sigma, some.meta).cpu().numpy())
    g, r, z = magnitude(np.maximum(looks.apertures(batch.stamps.float().numpy())[-1], 1e-3)).T
    host = np.stack([r, g - r, r - z, magnitude(sky_sigma[:, 1])], axis=1)
    return Seen(np.concatenate(parts), host)


def see_real(place: str, model: Finder) -> Seen:
    """Return what the network sees of real lenses; `place` is that of `real_lenses.read_real`."""
    real = read_real(place, model.preprocessing)
    return replace(seen(model, real.batch, real.sky_sigma), content=real.content)


def see_injections(data: str, model: Finder, trained: Experiment, split: str, limit: int) -> Seen:
    """Return the injections of a split, each host once."""
    rows = read_rows(data, trained, limit)
    injected = rows.chosen & (rows.columns["label"] == 1) & (rows.columns["split"] == split)
    parts = [
        seen(model, make_batch(table, model.preprocessing, data), sky_sigma_of(table))
        for _, table in read_stamps(replace(rows, chosen=injected))
    ]
    if not parts:
        raise DataError(f"{data}: no injections in split {split}; give another --split")
    feature, host = (np.concatenate([getattr(p, name) for p in parts]) for name in ("feature", "host"))
    return Seen(feature, host, rows.content)
