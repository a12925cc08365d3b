import argparse

import pytest

from darkhaloscope.config import ConfigError
from spark_jobs import arguments, phase3_pipeline, phase4_pipeline
from spark_jobs.arguments import experiment_of


def parse(*argv: str) -> argparse.Namespace:
    return phase4_pipeline.parser().parse_args(["--stage", "4c", *argv])


@pytest.mark.parametrize("text", ["grz", "g,r,z", "g, r, z"])
def test_bands_parse_in_every_spelling(text):
    assert parse("--bands", text).bands == "grz"


@pytest.mark.parametrize(
    "flags",
    [
        ("--bands", "gry"),
        ("--bands", "g"),
        ("--test-limit", "0"),
        ("--test-limit", "x"),
        ("--stage", "4e"),
        ("--psf-model", "airy"),
    ],
)
def test_anything_else_is_a_clear_error(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*flags)
    assert stop.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_with_no_flag_but_the_stage_it_works_on_the_smoke_workspace():
    args = parse()
    experiment = experiment_of(args)
    assert (experiment.name, args.output_s3, experiment.survey.source) == (
        "smoke",
        "smoke-out",
        "smoke-out/sky",
    )


def test_the_seeds_flags_win_over_the_file():
    args = parse(
        "--variant", "v4_sota", "--experiment-id", "mine", "--psf-model", "moffat", "--moffat-beta", "2.5"
    )
    experiment = experiment_of(args, psf__model=args.psf_model, psf__moffat_beta=args.moffat_beta)
    assert experiment.name == "gen2"
    assert experiment.experiment_id == "mine"
    assert (experiment.psf.model, experiment.psf.moffat_beta) == ("moffat", 2.5)


def test_a_variant_names_its_experiment_file():
    assert experiment_of(parse("--variant", "v3_color_relaxed")).name == "gen1"
    assert experiment_of(parse("--variant", "v4_sota_moffat")).variant == "v4_sota_moffat"
    with pytest.raises(ConfigError, match="known variants"):
        experiment_of(parse("--variant", "v9"))


def test_a_variant_of_two_experiments_that_draw_from_other_priors_is_refused(tmp_path, monkeypatch):
    for name, bright in (("one", 22.0), ("two", 23.0)):
        text = f'name = "{name}"\nvariant = "v"\nexperiment_id = "e"\n[prior]\nsrc_r_bright = {bright}\n'
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.setattr(arguments, "EXPERIMENTS", tmp_path)
    with pytest.raises(ConfigError, match=r"one.toml', 'two.toml'.*give --experiment instead"):
        experiment_of(parse("--variant", "v"))


def test_an_experiment_and_a_variant_that_disagree_are_refused():
    assert (
        experiment_of(parse("--experiment", "experiments/gen2.toml", "--variant", "v4_sota")).name == "gen2"
    )
    with pytest.raises(ConfigError, match="give one of the two"):
        experiment_of(parse("--experiment", "experiments/gen2.toml", "--variant", "v3_color_relaxed"))


def test_the_generations_that_share_a_variant_share_their_stamps():
    gen3, gen4 = (experiment_of(parse("--experiment", f"experiments/gen{i}.toml")) for i in (3, 4))
    assert gen3.variant == gen4.variant
    assert gen3.digest(*arguments.STAMP_SECTIONS) == gen4.digest(*arguments.STAMP_SECTIONS)


def test_help_teaches(capsys):
    for parser in (phase3_pipeline.parser(), phase4_pipeline.parser()):
        text = parser.format_help()
        assert "make smoke-local" in text
        assert all(a.help for a in parser._actions)
