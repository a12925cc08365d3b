"""What a score means, for a search: `python -m evaluation.reference --scores TEST_SCORES --out reference.json`.

Keeps the logits of the test split's negatives, each galaxy once, for false-positive rates, and, with --calibration,
what turns a logit into a probability. `spark_jobs/search_pipeline.py --reference` and `load_finder` read it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from darkhaloscope.errors import Explained
from darkhaloscope.search.reference import Member, Reference, thinned, write_reference
from evaluation.calibrate import Calibration, read_calibration
from evaluation.command import command_line
from evaluation.scores import Scores, ScoresError, read_scores, without_repeats


def reference_of(scores: Scores, calibrations: Sequence[Calibration] = ()) -> Reference:
    """Return the reference of a model, or of an ensemble whose calibrated logits were averaged.

    Args:
        scores: of the test split.
        calibrations: of each model of an ensemble, and of the model (or the ensemble) itself.

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
    of_model = {c.scored_with["checkpoint"]: c for c in calibrations}
    names = provenance.get("members", [own])
    if wrong := sorted(set(of_model) - {own, *names}):
        raise ScoresError(f"calibrations of checkpoints {wrong}; the scores are of {[own, *names]}")
    if len(names) > 1 and (missing := sorted(set(names) - set(of_model))):
        raise ScoresError(f"an ensemble averages calibrated logits: no --calibration of {missing}")
    members = tuple(Member(n, of_model[n].temperature) if len(names) > 1 else Member(n) for n in names)
    logit, above = thinned(negatives)
    reference = Reference(members, scores.hash, logit, above, len(negatives), int(scores.label.sum()))
    if own not in of_model:
        return reference
    return replace(reference, calibration=of_model[own].temperature, prevalence=of_model[own].prevalence)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("reference", __doc__)
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
        made = reference_of(read_scores(a.scores), [read_calibration(url) for url in a.calibration])
        write_reference(a.out, made)
    except (Explained, OSError) as error:
        print(f"reference: {a.scores}: {error}", file=sys.stderr)
        return 1
    probability = "with" if made.calibration is not None else "without"
    print(f"{made.n_negatives:,} negatives, {probability} a calibration -> {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
