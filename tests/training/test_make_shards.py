"""Shards made where they are used: the pipeline's own stamps, packed, every host once, repeatable."""

import dataclasses
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from field_cases import PLAN, experiment, field
from test_imports import BLOCKED

from darkhaloscope.dataset import committed_files, content_hash, open_part, read_table
from darkhaloscope.injection.arcs import added_light
from darkhaloscope.pack.packing import layout_of
from darkhaloscope.records import STAMPS
from darkhaloscope.schema import check_schema, refuse_unknown
from darkhaloscope.stage import OutputRefused
from training.make_shards import fields_of, main, make_shards, stamps_of

HOSTS = {"train": 20, "val": 12}
SMALL = dataclasses.replace(PLAN, cells=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("made"))
    one = dataclasses.replace(experiment(), splits=experiment(splits={"train": 0.5, "val": 0.5}).splits)
    return root, one, make_shards(root, HOSTS, one, SMALL, processes=1)


def test_what_is_written_is_a_table_of_packed_stamps(made):
    root, one, record = made
    for split in HOSTS:
        url = committed_files(f"{root}/split={split}")[0]
        with open_part(url) as part:
            schema = part.schema_arrow
        check_schema(STAMPS, schema, url)
        refuse_unknown(STAMPS, schema, url)
        assert layout_of(schema, url).dtype == one.pack.dtype
        rows = read_table(f"{root}/split={split}")
        assert set(rows["region_split"].to_pylist()) == {split}
        assert sum(record["counts"]["rows"][split].values()) == rows.num_rows
        ids = rows["host_id"].to_pylist()
        assert len(set(ids)) == len(ids), "a bare or unpaired host is there once"
    cells = [set(read_table(f"{root}/split={s}")["sky_cell"].to_pylist()) for s in HOSTS]
    assert not cells[0] & cells[1]


def test_training_rows_are_bare_and_validation_rows_are_not(made):
    root, *_ = made
    train, val = (read_table(f"{root}/split={s}") for s in ("train", "val"))
    assert set(train["is_control"].to_pylist()) == {1}
    assert set(train["label"].to_pylist()) == {0}
    assert {"random_negative", "mimic"} == set(train["sample"].to_pylist())
    assert set(val["label"].to_pylist()) == {0, 1}
    kinds = np.array(train["object_type"].to_pylist())
    assert ((kinds != "") == (np.array(train["sample"].to_pylist()) == "mimic")).all()


def test_the_same_settings_make_the_same_bytes_and_others_are_refused(made, tmp_path):
    root, one, record = made
    again = make_shards(root, HOSTS, one, SMALL, processes=1)
    assert again["counts"] == record["counts"]
    other = make_shards(str(tmp_path), HOSTS, one, SMALL, processes=1)
    assert other["counts"] == record["counts"]
    assert all(content_hash(f"{root}/split={s}") == content_hash(f"{tmp_path}/split={s}") for s in HOSTS)
    with pytest.raises(OutputRefused, match="another config"):
        make_shards(root, HOSTS, one, dataclasses.replace(SMALL, seed=1), processes=1)


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(made, tmp_path):
    root, one, _ = made
    make_shards(str(tmp_path), HOSTS, one, SMALL, processes=2)
    assert all(content_hash(f"{root}/split={s}") == content_hash(f"{tmp_path}/split={s}") for s in HOSTS)


def test_stamps_are_those_of_the_pipeline_for_the_same_rows():
    """A positive is its bare stamp plus its arc: the same pixels, made in two runs that share nothing else."""
    one = experiment(stamps={"poisson_noise": False})
    bare, rendered = (stamps_of(field(), one, "train", bare=b) for b in (True, False))
    of_host = {h: s for h, s in zip(*(bare.column(n).to_pylist() for n in ("host_id", "stamp")), strict=True)}
    light = added_light(rendered, one)
    lit = 0
    for host, cell, arc, control in zip(
        *(rendered.column(n).to_pylist() for n in ("host_id", "stamp")), light,
        rendered.column("is_control").to_pylist(), strict=True,
    ):  # fmt: skip
        stamp, ground = (np.frombuffer(c, np.float32).reshape(arc.shape) for c in (cell, of_host[host]))
        assert np.array_equal(stamp, ground if control else np.where(arc == 0, ground, ground + arc))
        lit += not control
    assert 0 < lit < rendered.num_rows


def test_fields_are_distinct_and_of_their_split():
    one = dataclasses.replace(experiment(), splits=experiment("gen2").splits)
    one = dataclasses.replace(one, splits=dataclasses.replace(one.splits, train=0.7, val=0.15, test=0.15))
    names = [fields_of(s, 300, one, 42) for s in ("train", "val", "test")]
    assert len({n for some in names for n in some}) == 900


def test_it_needs_none_of_the_surveys_tools(tmp_path):
    script = tmp_path / "make.py"
    script.write_text(
        BLOCKED.replace("pyspark", "torch")
        + "\nfrom training.make_shards import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    flags = ["--out", str(tmp_path / "out"), "--train", "60", "--val", "0", "--test", "0", "--processes", "1"]
    done = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "random_negative" in done.stdout


def test_bad_settings_are_refused_with_a_message(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--experiment", "none.toml"]) == 2
    assert "no such experiment file" in capsys.readouterr().err
    assert isinstance(stamps_of(field(), experiment(), "val", bare=True), pa.RecordBatch), (
        "no host of that split"
    )
