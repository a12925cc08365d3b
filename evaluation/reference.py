"""What a score means, for a search: `python -m evaluation.reference --scores TEST_SCORES --out reference.json`.

Keeps the logits of the test split's negatives, each galaxy once, for false-positive rates, and, with --calibration,
what turns a logit into a probability. `spark_jobs/search_pipeline.py --reference` and `load_finder` read it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from darkhaloscope.dataset import DatasetError
from darkhaloscope.schema import SchemaError
from darkhaloscope.search.reference import Member, Reference, thinned, write_reference
from darkhaloscope.storage import StorageError, read_bytes
from evaluation.scores import Scores, ScoresError, read_scores, without_repeats


def reference_of(scores: Scores, calibrations: Sequence[dict[str, Any]] = ()) -> Reference:
    """Return the reference of a model, or of an ensemble whose calibrated logits were averaged.

    Args:
        scores: of the test split.
        calibrations: files of `evaluation.calibrate`, parsed: of each model of an ensemble, and of the model itself.

    Raises:
        ScoresError: scores of another split, or averaged over orientations (a search is not), or no negatives; a
            model of an ensemble without its calibration, or a calibration of another model.
    """
    provenance = scores.provenance
    if provenance.get("split") != "test" or provenance.get("d4"):
        raise ScoresError(
            f"scores of split {provenance.get('split')!r}, d4 {provenance.get('d4')}: expected the split 'test', "
            "without --d4, as a search scores"
        )
    scores = without_repeats(scores)
    negatives = scores.logit[~scores.label]
    if not len(negatives):
        raise ScoresError("no negatives among the scores: there is no false-positive rate to tell")
    own = provenance["checkpoint"]
    of_model = {c["scored_with"]["checkpoint"]: c for c in calibrations}
    names = provenance.get("members", [own])
    if wrong := sorted(set(of_model) - {own, *names}):
        raise ScoresError(f"calibrations of checkpoints {wrong}; the scores are of {[own, *names]}")
    if len(names) > 1 and (missing := sorted(set(names) - set(of_model))):
        raise ScoresError(f"an ensemble averages calibrated logits: no --calibration of {missing}")
    members = tuple(Member(n, *_temperature(of_model[n])) if len(names) > 1 else Member(n) for n in names)
    slope, intercept = _log_odds(of_model[own]) if own in of_model else (None, None)
    logit, above = thinned(negatives)
    return Reference(
        members, scores.hash, logit, above, len(negatives), int(scores.label.sum()), slope, intercept
    )


def _temperature(calibration: dict[str, Any]) -> tuple[float, float]:
    return calibration["temperature"]["temperature"], calibration["temperature"]["bias"]


def _log_odds(calibration: dict[str, Any]) -> tuple[float, float]:
    """Return slope and intercept of the log odds where both classes are equally many."""
    temperature, bias = _temperature(calibration)
    share = calibration["prevalence"]
    return 1 / temperature, bias - float(np.log(share / (1 - share)))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser("python -m evaluation.reference", description=__doc__.split("\n\n")[0])
    p.add_argument("--scores", required=True, help="URL of a scores dataset of the test split")
    p.add_argument(
        "--calibration",
        action="append",
        default=[],
        help="file of evaluation.calibrate; repeat for ensembles",
    )
    p.add_argument("--out", required=True, help="URL of the JSON file to write")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    try:
        calibrations = [json.loads(read_bytes(url)) for url in a.calibration]
        made = reference_of(read_scores(a.scores), calibrations)
        write_reference(a.out, made)
    except (DatasetError, KeyError, OSError, SchemaError, ScoresError, StorageError, ValueError) as error:
        print(f"reference: {a.scores}: {error}", file=sys.stderr)
        return 1
    probability = "with" if made.slope is not None else "without"
    print(f"{made.n_negatives:,} negatives, {probability} a calibration -> {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
