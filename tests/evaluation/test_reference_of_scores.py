"""A reference holds the test split's negatives, each galaxy once, and nothing of another split or model."""

from types import SimpleNamespace

import numpy as np
import pytest

from darkhaloscope.search.reference import read_reference, write_reference
from darkhaloscope.stats.calibration import Temperature
from evaluation.calibrate import Calibration
from evaluation.calibration import Isotonic
from evaluation.reference import reference_of
from evaluation.scores import Scores, ScoresError


def calibration(checkpoint: str = "a" * 16) -> Calibration:
    """A calibration of a checkpoint."""
    curve = Isotonic((0.0, 1.0), (0.0, 1.0))
    return Calibration(Temperature(2.0, 0.5), curve, 0.2, 1, 4, {"checkpoint": checkpoint}, "v")


def scores(**provenance) -> Scores:
    logit = np.array([3.0, -1.0, -1.0, 0.5], np.float32)
    columns = {"logit": logit, "label": np.array([1, 0, 0, 0]), "host_id": np.array([1, 2, 2, 3])}
    found = {"checkpoint": "a" * 16, "split": "test", "d4": False} | provenance
    return Scores(columns, found, "h", {})


def test_negatives_count_once_a_galaxy_and_the_calibration_becomes_odds_at_equal_numbers(tmp_path):
    made = reference_of(scores(), [calibration()])
    assert (made.logit, made.above, made.n_negatives, made.n_positives) == ([0.5, -1.0], [1, 2], 2, 1)
    assert made.probability(np.array([1.0]), 0.2)[0] == pytest.approx(1 / (1 + np.exp(-(1.0 / 2 + 0.5))))
    write_reference(str(tmp_path / "r.json"), made)
    model = SimpleNamespace(checkpoint="a" * 64)
    assert read_reference(str(tmp_path / "r.json"), [model]) == made  # type: ignore[list-item]


def test_an_ensemble_needs_the_calibration_of_each_model():
    together = scores(checkpoint="e" * 16, members=["a" * 16, "b" * 16])
    made = reference_of(together, [calibration(), calibration("b" * 16)])
    assert [m.checkpoint[0] for m in made.members] == ["a", "b"]
    assert {m.calibration for m in made.members} == {Temperature(2.0, 0.5)}
    assert made.calibration is None
    with pytest.raises(ScoresError, match="bbbb"):
        reference_of(together, [calibration()])


@pytest.mark.parametrize("provenance, why", [({"split": "val"}, "'test'"), ({"d4": True}, "d4 True")])
def test_scores_of_another_split_or_way_are_refused(provenance, why):
    with pytest.raises(ScoresError, match=why):
        reference_of(scores(**provenance))


def test_a_calibration_of_another_model_is_refused():
    with pytest.raises(ScoresError, match="cccc"):
        reference_of(scores(), [calibration("c" * 16)])
