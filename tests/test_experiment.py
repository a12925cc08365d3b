import dataclasses
from pathlib import Path

import pytest

from darkhaloscope.config import ConfigError
from darkhaloscope.experiment import from_dict, load, parse_bands
from darkhaloscope.storage import filesystem

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))
NAMES = {"name": "x", "variant": "v", "experiment_id": "e"}


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "x.toml"
        path.write_text('name = "x"\nvariant = "v"\nexperiment_id = "e"\n' + text)
        return path

    return write


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_every_experiment_file_loads_and_is_named_after_its_file(path):
    experiment = load(path)
    assert experiment.name == path.stem
    assert from_dict(experiment.as_dict(), "again") == experiment


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[psf]\nmodle = 'moffat'", ["unknown key 'psf.modle'", "did you mean 'psf.model'"]),
        ("[psff]\nmodel = 'moffat'", ["unknown key 'psff'", "did you mean 'psf'"]),
        ("[psf]\nmodel = 'mofat'", ["psf.model", "'mofat'", "did you mean 'moffat'"]),
        ("[psf]\nmoffat_beta = 'big'", ["psf.moffat_beta", "str", "float"]),
        ("[stamps]\nsize = true", ["stamps.size", "bool", "int"]),
        ("psf = 3", ["psf", "expected a table [psf]"]),
        ("[splits]\ntrain = 0.9", ["splits", "add to 1"]),
        ("[injection]\ncontrol_frac = 1.5", ["control_frac", "0 to 1"]),
        ("[psf]\nmodel = 'kernel'", ["psf.kernel"]),
        ("[survey]\nbands = 'gx'", ["'gx'", "grz"]),
        ("[survey]\nbad_maskbits = ['MEDIUN']", ["survey.bad_maskbits", "did you mean 'MEDIUM'"]),
        ("[survey", ["not TOML"]),
    ],
)
def test_a_bad_experiment_file_is_refused_with_file_key_and_hint(toml, text, words):
    path = toml(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    for word in [str(path), *words] if "bands" not in text else words:
        assert word in str(error.value)


def test_a_missing_file_says_where_experiments_are(tmp_path):
    with pytest.raises(ConfigError, match="no such experiment file"):
        load(tmp_path / "gen9.toml")


def test_overrides_win_over_the_file_and_are_checked_like_it(toml):
    path = toml("[psf]\nmoffat_beta = 3.5")
    assert load(path, {"psf.moffat_beta": 2.5, "seed": 7}).psf.moffat_beta == 2.5
    with pytest.raises(ConfigError, match=r"psf\.moffat_bet"):
        load(path, {"psf.moffat_bet": 2.5})


def test_the_digest_changes_with_what_decides_and_not_with_names():
    one = from_dict(NAMES, "a")
    assert one.digest() == from_dict(NAMES | {"description": "other", "name": "y"}, "b").digest()
    other = dataclasses.replace(one, psf=dataclasses.replace(one.psf, moffat_beta=2.5))
    assert one.digest("psf") != other.digest("psf")
    assert one.digest("stamps") == other.digest("stamps")


@pytest.mark.parametrize("text", ["grz", "g,r,z", "g, r, z", " g r z "])
def test_bands_parse_however_they_are_written(text):
    assert parse_bands(text) == "grz"


@pytest.mark.parametrize("text", ["", "g", "grzi", "ggr", "zrg", "g;r;z"])
def test_other_bands_are_a_clear_error(text):
    with pytest.raises(ConfigError, match="bands"):
        parse_bands(text)


def test_an_experiment_is_read_from_a_url_as_from_a_path(toml, s3_bucket):
    path = toml("seed = 9\n")
    fs, key = filesystem(f"{s3_bucket}/configs/x.toml")
    fs.put_file(str(path), key)
    assert load(f"{s3_bucket}/configs/x.toml") == load(path)
    with pytest.raises(ConfigError, match="no such experiment file"):
        load(f"{s3_bucket}/configs/none.toml")
