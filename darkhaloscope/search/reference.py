"""What a score means: the evaluation's negatives and a calibration, as one small file beside the model.

`python -m evaluation.reference` writes it from the scores of a test split.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from darkhaloscope.errors import Explained
from darkhaloscope.search.model import Model
from darkhaloscope.stats.calibration import Temperature, at_prevalence
from darkhaloscope.stats.intervals import clopper_pearson
from darkhaloscope.storage import read_bytes
from darkhaloscope.writing import replace_file

FORMAT = "dark-halo-scope reference 1"
EXACT = 20_000  # highest-scored negatives whose logits are kept one by one
QUANTILES = 2_000  # of the others


class ReferenceRefused(Explained, ValueError):
    """A reference that does not fit the models or cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Member:
    """One model of a reference, and its calibration; a model that is alone is averaged with nothing, and needs none."""

    checkpoint: str
    calibration: Temperature = field(default_factory=lambda: Temperature(1.0, 0.0))


@dataclass(frozen=True)
class Reference:
    """How negatives and lenses of a test split scored.

    Attributes:
        members: the models whose logits were averaged; checkpoint: first 16 hex digits of its sha256.
        scores: content hash of the scores.
        logit: negatives' logits, falling: all of the first `EXACT`, quantiles of the rest.
        above: number of negatives at or above each.
        n_negatives, n_positives: rows of the test split.
        calibration: of the averaged logit; None where none was given.
        prevalence: share of lenses among the rows of its fit.
    """

    members: tuple[Member, ...]
    scores: str
    logit: list[float]
    above: list[int]
    n_negatives: int
    n_positives: int
    calibration: Temperature | None = None
    prevalence: float = 0.5

    def combined(self, logits: np.ndarray, checkpoints: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of calibrated logits and their standard deviation, (n,) each; NaN for one model.

        Args:
            logits: (model, n).
            checkpoints: of each model.
        """
        of = {m.checkpoint: m for m in self.members}
        member = [of[c[:16]] for c in checkpoints]
        return mean_and_spread(
            np.stack([m.calibration.logits(z) for m, z in zip(member, logits, strict=True)])
        )

    def false_positives(self, logit: np.ndarray) -> np.ndarray:
        """Return the number of negatives scored at least this, (n,) int64; between kept quantiles: the larger."""
        kept = np.asarray(self.logit)[::-1]  # rising
        above = np.append(np.asarray(self.above, np.int64)[::-1], 0)
        at = np.searchsorted(kept, np.asarray(logit, np.float64), side="left")
        exact = np.isin(np.asarray(logit, np.float64), kept)
        lower = np.where(exact | (above[at] < EXACT), at, np.maximum(at - 1, 0))
        return above[lower]

    def fpr(self, logit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the false-positive rate at each logit and the upper bound of its exact 95 % interval, (n,) each."""
        count = self.false_positives(logit)
        return count / self.n_negatives, clopper_pearson(count, self.n_negatives)[1]

    def probability(self, logit: np.ndarray, prevalence: float) -> np.ndarray:
        """Return the calibrated probability of a lens where `prevalence` of the targets are lenses, (n,).

        NaN without a calibration.
        """
        if self.calibration is None:
            return np.full(len(logit), np.nan)
        return at_prevalence(self.calibration.probability(logit), self.prevalence, prevalence)


def mean_and_spread(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over models of (model, n) logits, (n,) each; the latter NaN for one model."""
    spread = logits.std(axis=0, ddof=1) if len(logits) > 1 else np.full(logits.shape[1], np.nan)
    return logits.mean(axis=0), spread


def thinned(logits: np.ndarray) -> tuple[list[float], list[int]]:
    """Return `Reference.logit` and `Reference.above` of negatives' logits, (n,)."""
    falling = np.sort(np.asarray(logits, np.float64))[::-1]
    above = np.searchsorted(-falling, -falling, side="right")
    rest = np.unique(np.linspace(EXACT, max(len(falling) - 1, EXACT), QUANTILES).astype(int))
    keep = np.concatenate([np.arange(min(EXACT, len(falling))), rest[rest < len(falling)]])
    return falling[keep].tolist(), above[keep].tolist()


def write_reference(url: str, reference: Reference) -> None:
    """Write a reference as JSON."""
    replace_file(url, json.dumps({"format": FORMAT, **asdict(reference)}).encode())


def read_reference(url: str, models: Sequence[Model]) -> Reference:
    """Read a reference and check that it is of these models.

    Raises:
        FileNotFoundError: there is none.
        ReferenceRefused: not a reference, or of other models.
    """
    try:
        content: dict[str, Any] = json.loads(read_bytes(url))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        members = tuple(
            Member(m["checkpoint"], Temperature(**m["calibration"])) for m in content.pop("members")
        )
        own = content.pop("calibration")
        reference = Reference(members, calibration=Temperature(**own) if own else None, **content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReferenceRefused(
            f"{url}: not a reference ({error}); make it with python -m evaluation.reference --scores SCORES --out {url}"
        ) from error
    wanted, found = (sorted(m.checkpoint[:16] for m in some) for some in (models, reference.members))
    if found != wanted:
        raise ReferenceRefused(
            f"{url}: of checkpoints {found}; the models are of {wanted}: a score means what it "
            "did in the evaluation of the same model only; make the reference from this model's scores"
        )
    return reference
