"""Fit a calibration on scores of a calibration split: from logits to probabilities.

    python -m evaluation.score --checkpoint best.pt --data PACK --split val --out scores/val
    python -m evaluation.calibrate --scores scores/val --out calibration.json

Fits a temperature (with a bias) and an isotonic curve, and stores both with the model, data and scores they are of.
`evaluation.score --calibration FILE` then fills the column `probability`, and `evaluation.evaluate --calibration FILE`
shows whether the probabilities hold on the test split. Only scores of the split val are taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from darkhaloscope.errors import Explained
from darkhaloscope.stage import code_version
from darkhaloscope.stats.calibration import Temperature, at_prevalence
from darkhaloscope.storage import read_bytes
from darkhaloscope.writing import replace_file
from evaluation.calibration import (
    Isotonic,
    fit_isotonic,
    fit_temperature,
    reliability,
)
from evaluation.command import command_line
from evaluation.scores import Scores, read_scores, without_repeats

FORMAT = "dark-halo-scope calibration 1"
MODEL = (
    "checkpoint",
    "d4",
)  # of a scoring's provenance: what a calibration must share with the scores it is used on


class CalibrationError(Explained, RuntimeError):
    """A calibration that cannot be read or does not belong here; the message says what to do."""


@dataclass(frozen=True)
class Calibration:
    """Both fits of one model's logits.

    Attributes:
        temperature: the one that probabilities and ensembles use: it keeps the order.
        isotonic: the one to compare it with.
        prevalence: share of lenses among the rows of the fit.
        n_positives: lenses among them.
        n_negatives: others.
        scored_with: provenance of the scores: model, data, split.
        scores_hash: of the scores.
    """

    temperature: Temperature
    isotonic: Isotonic
    prevalence: float
    n_positives: int
    n_negatives: int
    scored_with: dict[str, Any]
    scores_hash: str

    @property
    def model(self) -> tuple[Any, ...]:
        """What identifies the model, as `model_of` gives it."""
        return model_of(self.scored_with)


def model_of(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what identifies the model in a scoring's provenance: checkpoint(s) and averaging."""
    return tuple(provenance.get(name) for name in MODEL)


def calibrate(scores: Scores) -> Calibration:
    """Fit both calibrations; a control galaxy counts once.

    Raises:
        CalibrationError: scores of another split than val.
        MetricsError: one class only, or logits that do not rank lenses above others.
    """
    if (split := scores.provenance.get("split")) != "val":
        raise CalibrationError(
            f"these are scores of the split {split!r}, expected 'val': what is fitted on test rows proves nothing on "
            "them, and the network knows train rows by heart; python -m evaluation.score --split val ..."
        )
    scores = without_repeats(scores)
    positives = int(scores.label.sum())
    return Calibration(
        fit_temperature(scores.logit, scores.label),
        fit_isotonic(scores.logit, scores.label),
        positives / len(scores.label),
        positives,
        len(scores.label) - positives,
        scores.provenance,
        scores.hash,
    )


def check_calibration(calibration: Calibration, scores: Scores) -> None:
    """Refuse a calibration that is not of these scores' model, or that saw their rows.

    Raises:
        CalibrationError: says which.
    """
    if (found := model_of(scores.provenance)) != calibration.model:
        raise CalibrationError(
            f"the calibration is of checkpoint and d4 {calibration.model}, the scores of {found}; fit one on this "
            "model's scores of the split val"
        )
    if calibration.scores_hash == scores.hash:
        raise CalibrationError(
            "the calibration was fitted on these very scores; evaluate those of the test split"
        )


def reliability_of(scores: Scores, calibration: Calibration | None) -> dict[str, Any]:
    """Return reliability of the raw logits and, where there is a calibration, of its two fits at this prevalence."""
    prevalence = float(scores.label.mean())
    probabilities = {"raw": expit(scores.logit.astype(np.float64))}
    facts: dict[str, Any] = {"prevalence": prevalence, "fitted_on": None}
    if calibration is not None:
        fits = {"temperature": calibration.temperature, "isotonic": calibration.isotonic}
        for name, fit in fits.items():
            p = fit.probability(scores.logit)
            probabilities[name] = at_prevalence(p, calibration.prevalence, prevalence)
        facts["fitted_on"] = {
            "split": calibration.scored_with.get("split"),
            "scores_hash": calibration.scores_hash,
            "n_positives": calibration.n_positives,
            "n_negatives": calibration.n_negatives,
            "prevalence": calibration.prevalence,
            **asdict(calibration.temperature),
        }
    return facts | {"reliability": {k: reliability(p, scores.label) for k, p in probabilities.items()}}


def write_calibration(url: str, calibration: Calibration) -> None:
    """Write a calibration as JSON, whole or not at all."""
    content = {"format": FORMAT, "code_version": code_version(), **asdict(calibration)}
    replace_file(url, json.dumps(content, indent=1, allow_nan=False).encode())


def read_calibration(url: str) -> Calibration:
    """Read a calibration.

    Raises:
        CalibrationError: there is none, or the file is another.
    """
    try:
        content = json.loads(read_bytes(url))
    except FileNotFoundError:
        raise CalibrationError(
            f"{url}: no such calibration; python -m evaluation.calibrate writes one"
        ) from None
    except ValueError as error:
        raise CalibrationError(f"{url}: not JSON ({error})") from None
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise CalibrationError(
            f"{url}: not a calibration of this version; python -m evaluation.calibrate writes one"
        )
    del content["code_version"]
    fits = {
        "temperature": Temperature(**content.pop("temperature")),
        "isotonic": Isotonic(**{k: tuple(v) for k, v in content.pop("isotonic").items()}),
    }
    return Calibration(**content, **fits)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("calibrate", __doc__)
    p.add_argument("--scores", required=True, help="URL of a scores dataset, of the split val")
    p.add_argument("--out", required=True, help="URL of the JSON file to write")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    try:
        made = calibrate(read_scores(a.scores))
        write_calibration(a.out, made)
    except (Explained, OSError) as error:
        print(f"calibrate: {a.scores}: {error}", file=sys.stderr)
        return 1
    t = made.temperature
    print(
        f"fitted on {made.n_positives:,} lenses and {made.n_negatives:,} others: calibrated logit = "
        f"logit / {t.temperature:.4g} {t.bias:+.4g} -> {a.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
