"""A row beyond what a model was trained for is told apart, with what is beyond."""

import numpy as np
from tiny_model import experiment_like

from darkhaloscope.search.conditions import SOUTH_MAX_DEC, beyond, conditions_of, release_of


def rows(**changes):
    good = {"dec": 10.0, "psfsize_r": 1.3, "psfdepth_r": 24.5, "ebv": 0.05}
    return {k: np.array([v, changes.get(k, v)]) for k, v in good.items()}


def test_each_condition_is_named_with_value_and_bound():
    conditions = conditions_of(experiment_like())
    for change, text in (
        ({"dec": 40.0}, "dec 40 north of 32.375"),
        ({"psfsize_r": 1.9}, "psfsize_r 1.9 above 1.6"),
        ({"psfdepth_r": 23.0}, "psfdepth_r 23 below 23.6"),
        ({"ebv": 0.2}, "ebv 0.2 above 0.12"),
        ({"psfdepth_r": np.nan}, "psfdepth_r nan below 23.6"),
        ({"dec": 40.0, "ebv": 0.2}, "dec 40 north of 32.375; ebv 0.2 above 0.12"),
        ({"dec": SOUTH_MAX_DEC}, ""),
    ):
        assert beyond(rows(**change), conditions, "dr10-south").tolist() == ["", text]


def test_images_of_another_release_are_beyond_everywhere():
    found = beyond(rows(), conditions_of(experiment_like()), "dr9-south")
    assert found.tolist() == ["release dr9-south, trained on dr10-south"] * 2


def test_a_release_is_told_by_the_name_of_its_brick_table():
    survey = experiment_like(bricks_table="survey-bricks-dr9-north.fits.gz").survey
    assert release_of(survey) == "dr9-north"
    assert release_of(experiment_like(bricks_table="bricks.fits").survey) == ""
