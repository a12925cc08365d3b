"""A few lines of Python, and one command, tell what a finder thinks of a place."""

import numpy as np
import pytest
from survey_testing import BRICK, write_brick
from tiny_model import expected_logit, experiment_like, write_model

from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.search.model import ModelError
from darkhaloscope.search.reference import Member, Reference, write_reference
from darkhaloscope.stats.calibration import Temperature
from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.errors import CatalogueError
from evaluation import load_finder
from evaluation.find import main
from evaluation.finder import sky_of

RA, DEC = (float(v[0]) for v in brick_centre(*parse_names([BRICK])))
LENSCAT = f"name,RA [deg],DEC [deg],zlens,type,grading,ref\nThe Arc,{RA},{DEC + 2 / 3600},-,galaxy,confident,a paper\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(folder of a model with its reference, a survey of one brick, a table of known lenses)."""
    import fitsio

    base = tmp_path_factory.mktemp("finder")
    write_brick(base / "sky", BRICK)
    columns = {"brickname": np.array([BRICK], "S8"), "ra": np.array([RA]), "dec": np.array([DEC]),
               "ebv": np.array([0.03], "f4")}  # fmt: skip
    columns |= {f"{k}_{b}": np.array([v], "f4") for k, v in (("psfsize", 1.3), ("psfdepth", 24.5), ("nexp", 3))
                for b in "grz"}  # fmt: skip
    fitsio.write(
        str(base / "sky/survey-bricks-dr10-south.fits.gz"), list(columns.values()), names=list(columns)
    )
    write_model(base / "model/finder.onnx", experiment_like(source=str(base / "sky")))
    finder = load_finder(base / "model")
    reference = Reference(
        (Member(finder.model.checkpoint[:16]),), "s", [9.0, -9.0], [1, 2], 2, 1, Temperature(1.0, 0.0)
    )
    write_reference(str(base / "model/reference.json"), reference)
    (base / "known.csv").write_text(LENSCAT)
    return base


def test_an_array_is_scored_with_its_own_sky_unless_it_is_given(place):
    finder = load_finder(place / "model")
    stamps = np.random.default_rng(0).normal(0.1, 2.0, (4, 3, 64, 64)).astype(np.float32)
    sky = np.full((4, 3), 2.0, np.float32)
    np.testing.assert_allclose(finder.score(stamps, sky), expected_logit(stamps, sky), rtol=1e-4)
    np.testing.assert_allclose(sky_of(stamps), sky, rtol=0.1)
    np.testing.assert_allclose(finder.score(stamps), expected_logit(stamps, sky_of(stamps)), rtol=1e-4)
    with pytest.raises(ModelError, match="stamps of shape"):
        finder.score(stamps[0])


def test_positions_are_cut_scored_and_matched_with_known_lenses(place):
    finder = load_finder(place / "model")
    asked = [(RA, DEC), (200.0, 80.0), (RA + 0.002, DEC), (RA + 0.004, DEC)]
    result = finder.search(asked, known=str(place / "known.csv"))
    assert sorted(result.no_stamp) == [1] and "footprint" in result.no_stamp[1]
    found = result.candidates
    assert found.num_rows == 3
    rows = sorted(found.to_pylist(), key=lambda r: r["ra"])
    assert sorted(r["known_name"] for r in rows) == ["", "", "The Arc"]
    sky = np.array([[r[f"sky_sigma_{b}"] for b in "grz"] for r in found.to_pylist()])
    np.testing.assert_allclose(
        [r["logit"] for r in found.to_pylist()], expected_logit(pixels_of(found), sky), rtol=1e-4
    )
    assert {r["fpr"] for r in rows} == {0.5} and all(0 < r["probability"] < 1 for r in rows)
    with pytest.raises(CatalogueError, match="outside the footprint"):
        finder.search([(200.0, 80.0)])


def test_the_command_shows_score_rank_known_lens_and_picture(place, tmp_path, capsys):
    flags = [
        "--model",
        str(place / "model"),
        "--known",
        str(place / "known.csv"),
        "--out",
        str(tmp_path / "a.png"),
    ]
    assert main([*flags, "--", str(RA), str(DEC)]) == 0
    told = capsys.readouterr().out
    for text in (
        BRICK,
        "1 of 2 negatives",
        "The Arc (galaxy, confident), a paper",
        "legacysurvey.org/viewer?ra=",
    ):
        assert text in told
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main([*flags, "--", "200", "80"]) == 1
    assert "outside the footprint" in capsys.readouterr().err
