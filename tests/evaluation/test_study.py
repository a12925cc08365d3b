"""The study compares one thing at a time, says what is noise, and its page holds only what the runs' files say."""

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest

from evaluation import study, study_page
from evaluation.study import PLAN, Study, Variant
from evaluation.study_page import describe, statistics, verdict

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def plan():
    return tomllib.loads(PLAN.read_text())


def fabricated(monkeypatch, tmp_path, plan, shift, scatter=0.002, unresolved=()):
    """Runs whose AUROC is 0.9 plus the variant's shift plus a seed's scatter; all on one test set."""
    rng, folders = np.random.default_rng(0), {}
    common = rng.normal(0, 0.01, 400)

    def resampled(scores, names):
        run = json.loads((scores.parent / "result.json").read_text())
        return np.repeat((run["figures"]["auroc"] + common)[:, None], len(names), 1)

    monkeypatch.setattr(study_page, "resampled", resampled)
    for name, by in shift.items():
        folders[name] = []
        for seed in SEEDS:
            folder = tmp_path / f"{name}-{seed}"
            folder.mkdir()
            figures = dict.fromkeys(plan["figures"], 0.9 + by + rng.normal(0, scatter))
            figures |= {"unresolved": list(unresolved), "n_positives": 77, "n_negatives": 88}
            result = {
                "figures": figures,
                "device": "CPU",
                "train_seconds": 11.0,
                "score_seconds": 1.0,
                "arch": "a",
                "epochs": 3,
            }
            (folder / "result.json").write_text(json.dumps(result))
            folders[name].append(folder)
    return statistics(folders, plan) | {"size": "small", "hosts": {"train": 5}}


def test_a_shift_beyond_the_seeds_scatter_is_told_from_noise(monkeypatch, tmp_path, plan):
    found = fabricated(
        monkeypatch, tmp_path, plan, {"gen2": 0, "paired": 0.05, "moffat": -0.05, "focal": 0.001}
    )
    told = {n: v["figures"]["auroc"].get("verdict") for n, v in found["variants"].items()}
    assert told == {"gen2": None, "paired": "better", "moffat": "worse", "focal": "within noise"}
    one = found["variants"]["paired"]["figures"]["auroc"]
    assert one["low"] < 0.05 < one["high"]
    assert one["high"] - one["low"] < 0.03, "what all runs share cancels: the test set's scatter is 0.01"


def test_the_interval_holds_for_all_comparisons_together(monkeypatch, tmp_path, plan):
    (tmp_path / "two").mkdir()
    (tmp_path / "four").mkdir()
    two = fabricated(monkeypatch, tmp_path / "two", plan, {"gen2": 0, "paired": 0})
    four = fabricated(monkeypatch, tmp_path / "four", plan, {"gen2": 0, "paired": 0, "focal": 0, "live": 0})
    assert (two["comparisons"], four["comparisons"]) == (1, 3)
    assert (two["degrees_of_freedom"], four["degrees_of_freedom"]) == (4, 8)


def test_the_page_says_what_is_unresolved_and_what_was_not_run(monkeypatch, tmp_path, plan):
    found = fabricated(monkeypatch, tmp_path, plan, {"gen2": 0, "paired": 0.05}, unresolved=["tpr@fpr1e-4"])
    page = describe(found, plan)
    assert "**Unresolved** for want of negatives" in page
    assert "77 lenses and 88 others" in page
    row = next(line for line in page.splitlines() if line.startswith("| paired | paired"))
    assert "auroc: better" in row
    assert "tpr@fpr1e-4: unresolved" in row
    assert "Not run: moffat, converted" in page
    assert "6 runs of 12 to 12 s, 1 minutes in all" in page


def test_one_seed_has_no_interval():
    assert verdict(1.0, float("inf")) == "within noise"
    assert study_page.interval({"difference": 0.1, "low": None, "high": None}).endswith(
        "[one seed: no interval]"
    )


@pytest.mark.parametrize("size", ["small", "gpu"])
def test_every_variant_is_generation_2_with_its_own_change_and_nothing_else(tmp_path, plan, size):
    one = Study(tmp_path, size, plan)
    base = one.experiment(one.variants[0]).as_dict()
    for variant in one.variants:
        other = one.experiment(variant).as_dict()
        changed = {
            f"{s}.{k}"
            for s in base
            if isinstance(base[s], dict)
            for k in base[s]
            if base[s][k] != other[s][k]
        }
        assert changed == set(variant.change)
    assert one.common().psf.model == "moffat"
    names = {v.name for v in one.variants}
    assert names == {
        "gen2",
        "paired",
        "moffat",
        "converted",
        "images",
        "focal",
        "outer",
        "asinh",
        "mined",
        "live",
    }


@pytest.fixture
def tiny(tmp_path, plan):
    """A study of two variants that takes seconds."""
    small = plan["size"]["small"]
    change = {**small["change"], "training.epochs": 1}
    size = {
        **small,
        "hosts": {"train": 24, "val": 16, "test": 16},
        "field_cells": 2,
        "mine": 3,
        "change": change,
    }
    return Study(tmp_path, "small", plan | {"size": {"small": size}, "seeds": [1]})


def test_a_run_is_scored_by_the_scorer_as_it_is(monkeypatch):
    """The slow test scores in earnest; this one sees at once that the scorer's arguments have changed."""
    for name in ("load_committee", "stamp_files", "score"):
        monkeypatch.setattr(study, name, create_autospec(getattr(study, name)))
    study.scored(Path("best.pt"), "view", "test", "out", "cpu")
    assert study.load_committee.call_args.args == (["best.pt"],)
    assert study.score.call_args.args[2:] == ("test", "out")


@pytest.mark.slow
def test_runs_share_validation_and_test_rows_and_are_not_done_twice(tiny, monkeypatch):
    picked = [v for v in tiny.variants if v.name in ("gen2", "live", "mined")]
    made = {v.name: study.run(tiny, v, 1, "cpu") for v in picked}
    views = {v.name: study.shards_of(tiny, v) for v in picked}
    assert views["gen2"] == views["mined"] != views["live"]
    assert len({(m["figures"]["n_positives"], m["figures"]["n_negatives"]) for m in made.values()}) == 1
    monkeypatch.setattr(study, "train", SimpleNamespace())
    assert study.run(tiny, picked[0], 1, "cpu") == made["gen2"]
    found = study.write_page(tiny, tiny.out / "study.md")
    assert "one seed: no interval" in (tiny.out / "study.md").read_text()
    assert found["degrees_of_freedom"] == 0


def test_an_unknown_variant_is_refused(tmp_path, capsys):
    assert study.main(["--out", str(tmp_path), "--only", "gen9"]) == 2
    assert "gen9" in capsys.readouterr().err
    assert Variant("a", "b", "c", {}).mined is False
