"""What a score means: the evaluation's negatives and a calibration, as one small file beside the model.

`python -m evaluation.reference` writes it from the scores of a test split.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from darkhaloscope.intervals import clopper_pearson
from darkhaloscope.search.model import Model
from darkhaloscope.storage import read_bytes, replace_file

FORMAT = "dark-halo-scope reference 1"
EXACT = 20_000  # highest-scored negatives whose logits are kept one by one
QUANTILES = 2_000  # of the others


class ReferenceRefused(ValueError):
    """A reference that does not fit the models or cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Reference:
    """How negatives and lenses of a test split scored.

    Attributes:
        checkpoints: first 16 hex digits of the sha256 of each checkpoint whose logits were averaged.
        scores: content hashes of the scores datasets.
        logit: negatives' logits, from the highest on; all of the first `EXACT`, quantiles of the rest.
        above: number of negatives at or above each.
        n_negatives, n_positives: rows of the test split.
        slope, intercept: of the log odds of a lens where both classes are equally many, over the logit.
    """

    checkpoints: list[str]
    scores: list[str]
    logit: list[float]
    above: list[int]
    n_negatives: int
    n_positives: int
    slope: float
    intercept: float

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

        The evaluation's classes tell the likelihood ratio; the prevalence adds its log odds (Bayes).
        """
        prior = np.log(prevalence / (1 - prevalence))
        return expit(self.slope * np.asarray(logit, np.float64) + self.intercept + prior)


def thinned(logits: np.ndarray) -> tuple[list[float], list[int]]:
    """Return `Reference.logit` and `Reference.above` of negatives' logits, (n,)."""
    falling = np.sort(np.asarray(logits, np.float64))[::-1]
    above = np.searchsorted(-falling, -falling, side="right")
    rest = np.unique(np.linspace(EXACT, len(falling) - 1, QUANTILES).astype(int)) if len(falling) > EXACT else []
    keep = np.concatenate([np.arange(min(EXACT, len(falling))), np.asarray(rest, int)])
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
        reference = Reference(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReferenceRefused(
            f"{url}: not a reference ({error}); make it with python -m evaluation.reference --scores SCORES --out {url}"
        ) from error
    wanted = sorted(m.checkpoint[:16] for m in models)
    if sorted(reference.checkpoints) != wanted:
        raise ReferenceRefused(
            f"{url}: of checkpoints {sorted(reference.checkpoints)}; the models are of {wanted}: a score means what it "
            "did in the evaluation of the same model only; make the reference from this model's scores"
        )
    return reference
