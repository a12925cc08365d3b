"""The models of one scoring: one network, or several whose calibrated logits are averaged.

Networks trained on different data err differently, so their mean errs less. Raw logits of two networks are on two
scales: calibration puts them on one before they are averaged. The spread tells where they disagree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.special import expit

from darkhaloscope.draws import digest
from darkhaloscope.experiment import Experiment
from evaluation.calibrate import Calibration, CalibrationError, model_of, read_calibration
from training.batch import Batch, make_batch
from training.checkpoint import load, load_finder_model
from training.models import Finder
from training.predict import predict
from training.preprocess import Preprocessing


@dataclass(frozen=True)
class Member:
    """One network: its checkpoint's hash, what it needs, and its calibration where one was given."""

    hash: str
    model: Finder
    preprocessing: Preprocessing
    experiment: Experiment
    mined_negatives: int
    calibration: Calibration | None


@dataclass(frozen=True)
class Committee:
    """One or several networks that score together.

    Attributes:
        members: the networks.
        d4: average over the eight orientations.
        calibration: of the logits that come out; None: an ensemble's mean is its own probability's logit, and one
            network has no probability.
    """

    members: tuple[Member, ...]
    d4: bool
    calibration: Calibration | None

    @property
    def hash(self) -> str:
        """Hash of the one checkpoint, or of the ensemble: its checkpoints and how each was calibrated."""
        return _hash_of(self.members)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the model in a scores file."""
        first, calibrations = self.members[0], [m.calibration for m in self.members] + [self.calibration]
        facts: dict[str, Any] = {
            "checkpoint": self.hash,
            "d4": self.d4,
            "arch": "+".join(m.model.arch for m in self.members),
            "experiment_id": first.experiment.experiment_id,
            "mined_negatives": max(m.mined_negatives for m in self.members),
        }
        if len(self.members) > 1:
            facts["members"] = [m.hash for m in self.members]
        if any(calibrations):
            fits = [asdict(c.temperature) if c else None for c in calibrations]
            facts["calibration"] = digest(json.dumps(fits))[:16]
        return facts

    def score(self, table: pa.Table, where: str) -> dict[str, Any]:
        """Return the columns `logit`, `logit_spread` and `probability` of rows that have a stamp.

        Raises:
            DataError, PreprocessingError, SchemaError, NotFinite: see `make_batch` and `predict`.
        """
        logits = [self._logits(member, table, where) for member in self.members]
        if len(logits) == 1:
            mean, spread = logits[0], None
        else:
            fits = [
                m.calibration.temperature.logits(z)
                for m, z in zip(self.members, logits, strict=True)
                if m.calibration
            ]
            mean, spread = np.mean(fits, axis=0).astype(np.float32), np.std(fits, axis=0, ddof=1)
        empty = pa.nulls(table.num_rows, pa.float32())
        probability: Any = empty
        if self.calibration is not None:
            probability = self.calibration.temperature.probability(mean)
        elif len(self.members) > 1:
            probability = expit(mean.astype(np.float64))
        return {
            "logit": mean,
            "logit_spread": empty if spread is None else spread,
            "probability": probability,
        }

    def _logits(self, member: Member, table: pa.Table, where: str) -> np.ndarray:
        batch = make_batch(table, member.preprocessing, where)
        return averaged_logits(member.model, batch) if self.d4 else predict(member.model, batch)


def d4_views(stamps: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the eight rotations and mirror images of square stamps (n, band, y, x)."""
    for mirrored in (stamps, stamps.flip(-1)):
        for quarter_turns in range(4):
            yield torch.rot90(mirrored, quarter_turns, (-2, -1))


def averaged_logits(model: Finder, batch: Batch) -> np.ndarray:
    """Return the mean logit of the eight orientations, (n,) float32: the sky has no preferred one.

    Arguments and errors as `training.predict.predict`.
    """
    views = [predict(model, batch._replace(stamps=view.contiguous())) for view in d4_views(batch.stamps)]
    return np.asarray(np.mean(views, axis=0, dtype=np.float64), np.float32)


def load_committee(
    checkpoints: Sequence[str], calibrations: Sequence[str] = (), d4: bool = False, device: str = "cpu"
) -> Committee:
    """Load networks and give each its calibration, told by the checkpoint it is of.

    Args:
        checkpoints: paths; several make an ensemble, of which each needs a calibration.
        calibrations: URLs of files of `evaluation.calibrate`, in any order; one may be of the ensemble itself.
        d4: average over the eight orientations; calibrations must be of logits made alike.
        device: torch device.

    Raises:
        CheckpointError: see `load_finder_model`.
        CalibrationError: a network of an ensemble has none, or one is of none of these networks.
    """
    found = {c.model: (url, c) for url in calibrations for c in [read_calibration(url)]}
    members = []
    for path in checkpoints:
        model, preprocessing, experiment = load_finder_model(path, device)
        hash_ = file_hash(path)
        _, own = found.pop(model_of({"checkpoint": hash_, "d4": d4}), ("", None))
        if own is None and len(checkpoints) > 1:
            raise CalibrationError(
                f"{path} (checkpoint {hash_}, d4 {d4}): no calibration of it was given; an ensemble averages "
                "calibrated logits: score the split val with this checkpoint alone, fit with "
                "python -m evaluation.calibrate, and give --calibration for each"
            )
        members.append(Member(hash_, model, preprocessing, experiment, mined_negatives(load(path)), own))
    together = members[0].calibration
    if len(members) > 1:
        _, together = found.pop(model_of({"checkpoint": _hash_of(members), "d4": d4}), ("", None))
    if found:
        url, other = next(iter(found.values()))
        raise CalibrationError(
            f"{url}: of checkpoint {other.model[0]} with d4 {other.model[1]}; those given are "
            f"{[m.hash for m in members]} with d4 {d4}: a calibration is of one model's logits only"
        )
    return Committee(tuple(members), d4, together)


def mined_negatives(content: dict[str, Any]) -> int:
    """Return how many rows of mined negatives a checkpoint was trained on: `evaluation.mine` asks for none."""
    return int(content["data"].get("train", {}).get("samples", {}).get("hard_negative", 0))


def _hash_of(members: Sequence[Member]) -> str:
    if len(members) == 1:
        return members[0].hash
    parts = [(m.hash, asdict(m.calibration.temperature) if m.calibration else None) for m in members]
    return digest(json.dumps(sorted(parts, key=str)))[:16]


def file_hash(path: str) -> str:
    """Return 16 hex digits of a file's sha256."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
