"""A target is scored or refused, and its row tells which and why."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from fake_brick import FakeBrick, at
from tiny_model import expected_logit, experiment_like, write_model

from darkhaloscope.injection.catalogue import UNKNOWN, lay_out_catalogue
from darkhaloscope.injection.stamps import make_stamps
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import HOST
from darkhaloscope.search.model import load_model
from darkhaloscope.search.scoring import GivenScores, Scoring, score_rows
from darkhaloscope.survey.positions import Positions

PLACES = [(300.0, 300.2), (500.0, 400.0), (-50.0, 300.0), (600.0, 600.0)]  # the third is outside the brick


def host_of(n):
    ra, dec = np.array([list(at(*p).values()) for p in PLACES[:n]]).T
    values = {"ra": ra, "dec": dec, "host_id": np.arange(n), "brickname": "1500p020", "type": "DEV", "sky_cell": 5,
              "region_split": "test", "ebv": 0.03}  # fmt: skip
    values |= {f"{k}_{b}": v for k, v in (("mag", 19.0), ("psfsize", 1.3), ("psfdepth", 24.5)) for b in "grz"}
    return {c.name: np.broadcast_to(np.asarray(values[c.name], object if c.type == pa.string() else None), n)
            for c in HOST if c.name not in UNKNOWN}  # fmt: skip


@pytest.fixture(scope="module")
def stamps():
    experiment = experiment_like()
    experiment = dataclasses.replace(
        experiment, stamps=dataclasses.replace(experiment.stamps, poisson_noise=False)
    )
    n = len(PLACES)
    columns = {k: np.full(n, "", object) for k in ("object_name", "object_type", "sample")}
    columns |= {"label": np.full(n, -1, np.int8), "theta_e_arcsec": np.full(n, np.nan)}
    rows = lay_out_catalogue(Positions(columns, np.full(n, "", object), ""), host_of(n), experiment)
    return make_stamps(FakeBrick(), rows.sort_by("host_id"), experiment)


def scoring(**changes):
    return Scoring(
        **(
            {"models": (), "reference": None, "release": "dr10-south", "force": False, "pictures": 9}
            | changes
        )
    )


def test_every_target_is_scored_or_refused_with_its_reason(stamps, tmp_path):
    model = load_model(write_model(tmp_path / "a.onnx"))
    found = score_rows(stamps, [model], scoring())
    assert np.isfinite(found["logit"]).tolist() == [True, True, False, True]
    assert [bool(r) for r in found["refused"]] == [False, False, True, False]
    assert "outside brick" in found["refused"][2] and found["bands"].tolist() == ["grz", "grz", "", "grz"]
    good = stamps.take([0, 1, 3])
    sky = np.stack([good.column(f"sky_sigma_{b}").to_numpy() for b in "grz"], axis=1)
    np.testing.assert_allclose(found["logit"][[0, 1, 3]], expected_logit(pixels_of(good), sky), rtol=1e-4)


def test_a_row_beyond_the_training_is_refused_unless_forced_and_then_says_so(stamps, tmp_path):
    narrow = experiment_like()
    narrow = dataclasses.replace(narrow, targets=dataclasses.replace(narrow.targets, max_psfsize_r=1.2))
    model = load_model(write_model(tmp_path / "a.onnx", narrow))  # the brick's map says 1.25
    found = score_rows(stamps, [model], scoring())
    assert np.isnan(found["logit"]).all()
    assert found["refused"][0] == "outside the model's training: psfsize_r 1.25 above 1.2"
    forced = score_rows(stamps, [model], scoring(force=True))
    assert np.isfinite(forced["logit"]).sum() == 3
    assert forced["outside"].tolist() == ["psfsize_r 1.25 above 1.2"] * 2 + [""] + [
        "psfsize_r 1.25 above 1.2"
    ]


def test_several_models_give_a_mean_and_a_spread(stamps, tmp_path):
    models = [load_model(write_model(tmp_path / f"{w}.onnx", weight=w)) for w in (1.0, 3.0)]
    one, found = (score_rows(stamps, some, scoring()) for some in (models[:1], models))
    np.testing.assert_allclose(found["logit"], 2 * one["logit"], rtol=1e-5)
    np.testing.assert_allclose(found["logit_spread"], np.sqrt(2) * np.abs(one["logit"]), rtol=1e-5)
    assert set(found["n_models"].tolist()) == {2} and np.isnan(one["logit_spread"]).all()


def test_scores_made_elsewhere_are_joined_by_the_stamp_and_a_missing_one_is_a_refusal(stamps, tmp_path):
    model = load_model(write_model(tmp_path / "a.onnx"))
    ids = stamps.column("task_id").to_numpy(zero_copy_only=False).astype(bytes)
    order = np.argsort(ids[:2])
    given = GivenScores(ids[:2][order], np.array([7.0, 8.0])[order])
    found = score_rows(stamps, [model], scoring(), given)
    assert found["logit"][:2].tolist() == [7.0, 8.0]
    assert found["refused"][3] == "not among the scores given with --scores"
