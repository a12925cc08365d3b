"""Every setting is a flag, and its bounds are kept."""

import typing

import pytest

from darkhaloscope.config import ConfigError
from darkhaloscope.experiment import load
from darkhaloscope.sections import Training
from training.options import DEFAULT_EXPERIMENT, REPOSITORY, experiment_of, parser
from training.preprocess import PreprocessingError


def test_every_setting_of_the_config_is_a_flag_that_takes_effect():
    flags = {a.dest: a.option_strings for a in parser()._actions if a.dest not in ("help",)}
    values = {int: "7", float: "0.3", bool: None, str: "some/file"}
    hints = typing.get_type_hints(Training)
    default = load(DEFAULT_EXPERIMENT).training
    for name, hint in hints.items():
        assert f"--{name}" in parser().format_help(), name
        if typing.get_origin(hint) is typing.Literal:
            value = next(c for c in typing.get_args(hint) if c != getattr(default, name))
        elif typing.get_origin(hint) is tuple:
            value = "psfsize_r, psfdepth_r"
        else:
            value = values[hint]
        given = [f"--{name}", value] if value is not None else [f"--{'no-' * getattr(default, name)}{name}"]
        assert getattr(experiment_of(parser().parse_args(given)).training, name) != getattr(default, name)
    known = {*hints, "experiment", "data", "out_dir", "resume", "overwrite", "seed", "device", "tensorboard"}
    assert set(flags) == known
    assert experiment_of(parser().parse_args(["--use_bf16"])).training.precision == "bf16"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "experiments").glob("*.toml")), ids=lambda p: p.stem)
def test_every_experiment_can_be_trained_as_its_file_says(path):
    experiment_of(parser().parse_args(["--experiment", str(path)]))


@pytest.mark.parametrize(("flag", "error"), [("--lr=0", ConfigError), ("--dropout=1", ConfigError),
                                             ("--meta_cols=arc_snr", PreprocessingError)])  # fmt: skip
def test_settings_out_of_range_are_refused(flag, error):
    with pytest.raises(error):
        experiment_of(parser().parse_args([flag]))
