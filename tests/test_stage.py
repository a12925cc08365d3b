import dataclasses
import json
import time

import pytest

from darkhaloscope.dataset import DatasetError
from darkhaloscope.experiment import from_dict
from darkhaloscope.provenance import PACKAGE_FACTS, package_facts
from darkhaloscope.stage import (
    OutputRefused,
    Owner,
    StageRun,
    input_hash,
    place,
    read_record,
)

EXPERIMENT = from_dict({"name": "x", "variant": "v", "experiment_id": "e"}, "test")


def run(root, experiment=EXPERIMENT, **more) -> StageRun:
    return StageRun(str(root), "4c", experiment, ("psf",), {"manifest": "abc"}, **more)


def test_the_record_says_what_was_run_on_what(tmp_path):
    with run(tmp_path, options={"test_limit": 5}) as stage:
        stage.finish(rows=3)
    record = json.loads((tmp_path / "_stage_config.json").read_text())
    assert (record["state"], record["counts"], record["inputs"]) == ("done", {"rows": 3}, {"manifest": "abc"})
    assert record["experiment"]["psf"]["model"] == EXPERIMENT.psf.model
    assert (record["variant"], record["experiment_id"]) == ("v", "e")
    tier = {"grid": "grid_sota", "n_total_per_split": 200_000, "control_frac": 0.5}
    assert record["tiers"] == {"train": tier}, "the seed's names"
    assert record["options"] == {"test_limit": 5}
    assert record["seconds"] >= 0 and record["code_version"]
    assert not (tmp_path / "_owner.json").exists()


def test_the_record_has_the_facts_of_the_package_it_ran_in(tmp_path, monkeypatch):
    assert package_facts() is None
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    (tmp_path / PACKAGE_FACTS).write_text('{"wheel_sha256": "abc"}')
    with run(tmp_path / "out") as stage:
        stage.finish()
    assert read_record(str(tmp_path / "out"))["package"] == {"wheel_sha256": "abc"}


def test_a_stage_that_did_not_finish_is_no_input(tmp_path):
    with pytest.raises(DatasetError, match="has not run"):
        input_hash(str(tmp_path))
    with pytest.raises(RuntimeError), run(tmp_path):
        raise RuntimeError("killed")
    with pytest.raises(DatasetError, match="is running, not done"):
        input_hash(str(tmp_path))
    with run(tmp_path) as stage:
        stage.finish()
    assert input_hash(str(tmp_path)) == stage.hash


def test_an_output_of_another_config_is_refused_unless_overwrite(tmp_path):
    with run(tmp_path) as stage:
        (tmp_path / "chunk=00000").mkdir()
        stage.finish()
    other = dataclasses.replace(EXPERIMENT, psf=dataclasses.replace(EXPERIMENT.psf, moffat_beta=3.5))
    with pytest.raises(OutputRefused, match=r"another config.*--overwrite"), run(tmp_path, other):
        pass
    assert (tmp_path / "chunk=00000").exists()
    with run(tmp_path, other, overwrite=True) as stage:
        assert not (tmp_path / "chunk=00000").exists()
        stage.finish()


def test_the_same_config_continues_and_keeps_what_is_there(tmp_path):
    with run(tmp_path):
        (tmp_path / "chunk=00000").mkdir()
    with run(tmp_path):
        assert (tmp_path / "chunk=00000").exists()


def test_inputs_and_options_are_part_of_the_hash_and_unrelated_sections_are_not():
    hashes = {
        run("x").hash,
        run("x", options={"test_limit": 1}).hash,
        StageRun("x", "4c", EXPERIMENT, ("psf",), {"manifest": "other"}).hash,
    }
    assert len(hashes) == 3
    pack = dataclasses.replace(EXPERIMENT, pack=dataclasses.replace(EXPERIMENT.pack, dtype="float32"))
    assert run("x", pack).hash == run("x").hash


def test_a_second_writer_is_refused_while_the_first_lives_and_may_take_over(tmp_path):
    with run(tmp_path) as first:
        with pytest.raises(OutputRefused, match="--take-over"), run(tmp_path):
            pass
        with run(tmp_path, take_over=True), pytest.raises(OutputRefused, match="taken over"):
            first.finish()


def test_a_dead_writer_blocks_for_no_longer_than_the_expiry(tmp_path):
    dead = Owner(str(tmp_path), expiry_s=0.2, heartbeat_s=60)
    dead.acquire(take_over=False)
    with pytest.raises(OutputRefused):
        Owner(str(tmp_path), expiry_s=0.2).acquire(take_over=False)
    time.sleep(0.3)
    late = Owner(str(tmp_path), expiry_s=0.2)
    late.acquire(take_over=False)
    dead.release()
    assert (tmp_path / "_owner.json").exists(), "the dead writer must not remove its successor's file"
    late.release()


def test_the_heartbeat_keeps_the_output(tmp_path):
    def beat() -> float:
        return json.loads((tmp_path / "_owner.json").read_text())["beat"]

    alive = Owner(str(tmp_path), heartbeat_s=0.05)
    alive.acquire(take_over=False)
    first, patience = beat(), time.monotonic() + 60
    while beat() == first and time.monotonic() < patience:
        time.sleep(0.02)
    assert beat() > first
    with pytest.raises(OutputRefused):
        Owner(str(tmp_path)).acquire(take_over=False)
    alive.release()


def test_places_follow_stage_variant_and_experiment():
    assert place("s3://b/r", "phase4c", EXPERIMENT) == "s3://b/r/phase4c/v/e"
    assert read_record("does/not/exist") is None
