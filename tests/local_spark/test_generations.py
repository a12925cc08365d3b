"""The run of all generations: sizes, resuming and the page, without running a stage."""

import json
import tomllib
from pathlib import Path

import pytest

from darkhaloscope.experiment import load
from darkhaloscope.report.page import render_page
from darkhaloscope.stage import place
from local_spark import generations
from local_spark.generations import (
    CLAIMS,
    GENERATIONS,
    STAMP_STAGES,
    as_toml,
    borrow,
    page_of,
    run_generation,
    sized,
)
from local_spark.steps import REPOSITORY


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_sized_experiment_survives_its_file_and_keeps_what_makes_the_generation(name, tmp_path):
    experiment = sized(name, 600, 2, "sky")
    (tmp_path / "e.toml").write_text(as_toml(experiment.as_dict()))
    assert load(tmp_path / "e.toml") == experiment
    own = load(REPOSITORY / "experiments" / f"{name}.toml")
    for kept in ("psf", "targets", "prior", "variant", "stamps"):
        assert getattr(experiment, kept) == getattr(own, kept)
    for kept in (
        "arch",
        "loss",
        "lr",
        "weight_decay",
        "norm_method",
        "meta_cols",
        "negatives_per_positive",
        "hard_neg_weight",
    ):
        assert getattr(experiment.training, kept) == getattr(own.training, kept)
    for bound, most in (("min_theta_over_psf", 0.5), ("min_arc_snr", 5.0)):
        assert getattr(experiment.training, bound) == min(getattr(own.training, bound), most)
    assert experiment.injection.controls == own.injection.controls


def test_stamps_in_common_are_linked_and_others_are_made(tmp_path):
    for done in ("gen2", "gen3"):
        (tmp_path / done).mkdir()
        (tmp_path / done / "summary.json").write_text("{}")
    assert borrow("gen4", str(tmp_path), 90, 1) == {"phase3", *STAMP_STAGES}
    assert borrow("gen5", str(tmp_path), 90, 1) == {"phase3"}, "other sources, other PSF"
    assert borrow("modern", str(tmp_path), 90, 1) == set(), "dereddened magnitudes: other targets"
    own, other = (sized(name, 90, 1, "sky") for name in ("gen4", "gen3"))
    made = place(str(tmp_path / "gen3"), "phase4c", other)
    assert Path(place(str(tmp_path / "gen4"), "phase4c", own)).readlink() == Path(made)
    assert borrow("gen4", str(tmp_path), 90, 1), "again, over the links that are there"


def test_a_generation_that_is_done_is_kept_and_one_of_another_size_is_not(tmp_path, monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr(
        generations, "run_steps", lambda steps: ran.extend(s.name for s in steps) or {"train": 1.0}
    )
    monkeypatch.setattr(generations, "summarise", lambda out, e, seconds: {"config_hash": e.digest()})
    run_generation("gen4", str(tmp_path), 100, 1)
    order = [
        ran.index(n)
        for n in ("pack", "score_gen2", "score_gen3", "mine", "train", "score", "evaluate", "report")
    ]
    assert order == sorted(order)
    ran.clear()
    run_generation("gen4", str(tmp_path), 100, 1)
    assert not ran
    run_generation("gen4", str(tmp_path), 200, 1)
    assert "train" in ran


def test_the_page_shows_claims_as_claims_and_what_is_unresolved():
    figure = {"value": 0.5, "low": 0.1, "high": 0.9, "resolved": False}
    summary = {
        "config_hash": "abc", "training": {"arch": "resnet18", "loss": "bce"}, "seconds": {"train": 2.0},
        "stages": {"phase4c": {"counts": {"ok": 77}}},
        "metrics": {"n": {"negatives": 40}, "figures": dict.fromkeys(generations.FIGURES, figure),
                    "unresolved": ["tpr@fpr1e-4"]},
    }  # fmt: skip
    page = render_page(page_of({"gen1": summary}, 100, 1))
    assert "0.500 [0.100, 0.900] unresolved" in page
    assert "says nothing about performance" in page
    for claim in tomllib.loads(CLAIMS.read_text())["claim"]:
        assert json.dumps(claim["auroc"]) in page
        assert claim["status"].split(",")[0][:30] in page
