"""The stages on a small sky with a truncated brick, one lacking a band, a missing one and NaN pixels."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stage_cases import COMPARED, experiment_of, options, stamps_by_id

from darkhaloscope.dataset import (
    DatasetError,
    commit_chunk,
    committed_chunks,
    committed_parts,
    read_table,
    write_part,
)
from darkhaloscope.injection.completeness import completeness_table, count
from darkhaloscope.records import MANIFEST
from darkhaloscope.schema import SchemaError
from darkhaloscope.stage import OutputRefused, place
from spark_jobs import coadd_cache, completeness, manifest, pack, stamps, targets

pytestmark = pytest.mark.xdist_group("spark")


def test_rows_add_up_at_every_stage(done):
    root, experiment, records = done
    cuts = dict(records["3"]["counts"]["cuts"])
    rows, selected = cuts.pop("rows"), cuts.pop("targets")
    assert rows == selected + sum(cuts.values())
    assert cuts["star (type PSF) or duplicate (DUP)"] > 0
    made = records["4a"]["counts"]
    assert made["hosts"] == selected and made["rows"] == sum(made["rows_by_split"].values())
    assert made["rows"] == made["controls"] + 2 * (selected - made["controls"])  # one row a control, else two
    cut = records["4c"]["counts"]
    assert cut["rows"] == made["rows"] == cut["ok"] + cut["failed"]
    assert cut["failed"] == sum(cut["reasons"].values()) > 0
    injected = sum(r["is_control"] == 0 for r in read_table(place(root, "phase4c", experiment)).to_pylist())
    assert records["4d"]["counts"]["injections"] == injected
    rows, threshold = read_table(place(root, "phase4c", experiment)), experiment.completeness.snr_threshold
    whole = completeness_table(
        count(rows, threshold), threshold
    )  # a host's rows are in one part, or this differs
    assert read_table(place(root, "phase4d", experiment)).to_pylist() == whole.to_pylist()
    packed = records["pack"]["counts"]
    assert (packed["rows"], packed["left_out_failed"]) == (cut["ok"], cut["failed"])


def test_bad_bricks_cost_their_own_rows_only_and_are_quarantined_with_their_reason(done, sky):
    root, experiment, records = done
    names = sky[1]
    output = place(root, "phase4c", experiment)
    table = read_table(output).to_pylist()
    bad = {n for kind in ("truncated", "lacks_z", "missing") for n in names[kind]}
    quarantine = {r["unit"]: r for r in read_table(output + "/quarantine").to_pylist()}
    with_rows = bad & {r["brickname"] for r in table}
    assert len(with_rows) >= 2 and set(quarantine) == with_rows
    for name in with_rows:
        mine = [r for r in table if r["brickname"] == name]
        assert all(r["cutout_ok"] == 0 and r["stamp"] is None and name in r["failure_reason"] for r in mine)
        assert quarantine[name]["rows"] == len(mine)
    assert any(r["cutout_ok"] == 1 for r in table if r["brickname"] in names["good"])
    assert all(r["brickname"] in {*bad, names["good"][0]} for r in table if r["cutout_ok"] == 0)
    assets = {a["brickname"]: a["status"] for a in read_table(place(root, "phase4b", experiment)).to_pylist()}
    assert {assets[n] for n in names["missing"] if n in assets} <= {"missing"}
    assert {assets[n] for n in names["truncated"] if n in assets} <= {"failed"}
    assert records["4b"]["counts"]["rows"] == len(assets)


def test_every_stamp_has_the_bytes_its_metadata_says(done):
    root, experiment, _ = done
    table = read_table(place(root, "phase4c", experiment))
    shape = [int(n) for n in table.schema.metadata[b"stamp_shape"].split(b",")]
    size = np.dtype(table.schema.metadata[b"stamp_dtype"].decode()).itemsize * np.prod(shape)
    good = table.filter(pa.compute.field("cutout_ok") == 1)
    assert {len(s) for s in good.column("stamp").to_pylist()} == {size}


def test_no_host_and_no_source_crosses_splits(done):
    root, experiment, _ = done
    rows = read_table(place(root, "phase4a", experiment)).to_pylist()
    assert len({r["region_split"] for r in rows}) == 3
    for key in ("host_id", "sky_cell", "source_id"):
        splits = {}
        for row in rows:
            if row[key] != -1:
                splits.setdefault(row[key], set()).add(row["region_split"])
        assert all(len(s) == 1 for s in splits.values()), key


def test_the_partitioning_changes_no_byte_of_any_stamp_and_each_is_made_once(spark, done, monkeypatch):
    root, experiment, _ = done
    found = {}
    monkeypatch.setattr(stamps, "gc", lambda output: None)  # parts of a task that ran twice would stay
    for partitions in (1, 3, 8):
        again = dataclasses.replace(experiment, experiment_id=f"partitions{partitions}")
        source = Path(place(root, "phase4c", again))
        args = options(root, partitions=partitions)
        for stage in ("phase4a", "phase4b"):
            Path(place(root, stage, again)).symlink_to(place(root, stage, experiment))
        stamps.run(spark, again, args)
        found[partitions] = stamps_by_id(str(source))
        written = {f"{f.parent.name}/{f.name}" for f in source.glob("chunk=*/part-*")}
        assert written == {p.key for p in committed_parts(str(source))}
    assert found[1] == found[3] == found[8]
    assert any(row[COMPARED.index("stamp")] for row in found[1].values())


def test_a_second_run_makes_nothing_anew_and_says_the_same(spark, done):
    root, experiment, records = done
    output = place(root, "phase4c", experiment)
    before = {p.key for p in committed_parts(output)}
    again = stamps.run(spark, experiment, options(root))
    assert {p.key for p in committed_parts(output)} == before
    assert again["counts"] == records["4c"]["counts"]


def test_an_interrupted_run_makes_only_the_chunks_that_are_missing(spark, done):
    root, experiment, records = done
    output = place(root, "phase4c", experiment)
    before, rows = {p.key for p in committed_parts(output)}, stamps_by_id(output)
    assert len(committed_chunks(output)) > 1
    Path(output, "chunk=00001", "_manifest.json").unlink()
    again = stamps.run(spark, experiment, options(root))
    after = {p.key for p in committed_parts(output)}
    assert {k for k in before ^ after} == {k for k in before ^ after if k.startswith("chunk=00001")} != set()
    assert stamps_by_id(output) == rows
    assert again["counts"]["ok"] == records["4c"]["counts"]["ok"]
    on_disk = {str(f.relative_to(output)) for f in Path(output).glob("chunk=*/part-*")}
    assert on_disk == after, "parts of the interrupted run were left lying about"


def test_an_output_from_another_config_is_refused(spark, done):
    root, experiment, _ = done
    other = dataclasses.replace(experiment, psf=dataclasses.replace(experiment.psf, moffat_beta=3.5))
    with pytest.raises(OutputRefused, match="--overwrite"):
        stamps.run(spark, other, options(root))


def test_too_many_failures_fail_the_stage_and_keep_what_was_made(spark, done):
    root, experiment, records = done
    strict = dataclasses.replace(
        experiment, limits=dataclasses.replace(experiment.limits, max_failed_fraction=0.0)
    )
    with pytest.raises(DatasetError, match=r"failed, more than the fraction 0\.0"):
        stamps.run(spark, strict, options(root))
    assert stamps.run(spark, experiment, options(root))["counts"]["ok"] == records["4c"]["counts"]["ok"]


def test_a_test_limit_opens_only_the_files_it_needs(spark, done, monkeypatch):
    root, experiment, _ = done
    source = place(root, "phase4a", experiment)
    parts = [p for p in committed_parts(source) if p.rows]
    assert len(parts) > 1
    found = stamps.count_bricks(spark, source, 5, experiment)
    assert sum(b.rows for b in found) == 5
    assert {f.rsplit("/", 1)[1] for b in found for f in b.files} == {parts[0].key.rsplit("/", 1)[1]}


def test_shards_hold_every_good_stamp_once_shuffled_and_in_float16(done):
    root, experiment, _ = done
    output = place(root, "pack", experiment)
    made = {
        r["task_id"]: r for r in read_table(place(root, "phase4c", experiment)).to_pylist() if r["cutout_ok"]
    }
    seen = {}
    for split in ("train", "val", "test"):
        table = read_table(f"{output}/split={split}")
        assert set(table.column("region_split").to_pylist()) == {split}
        assert table.schema.metadata[b"stamp_dtype"] == b"float16"
        bricks = table.column("brickname").to_pylist()
        changes = sum(a != b for a, b in itertools.pairwise(bricks))
        assert changes > 2 * len(set(bricks)) or len(set(bricks)) == 1, "shards are in brick order"
        seen |= {r["task_id"]: r["stamp"] for r in table.to_pylist()}
    assert seen.keys() == made.keys()
    one = next(iter(seen))
    packed = np.frombuffer(seen[one], "<f2").astype(np.float32)
    assert np.allclose(packed, np.frombuffer(made[one]["stamp"], "<f4"), rtol=1e-3, atol=1e-7)
    assert len(committed_parts(f"{output}/split=train")) > 1


def altered(root: str, experiment, tmp_path: Path, change) -> str:
    """A workspace whose manifest is the one of `root` with `change` applied to its table."""
    copy = str(tmp_path / "altered")
    for stage in ("phase4b", "coadd_cache"):
        source = place(root, stage, experiment) if stage == "phase4b" else f"{root}/{stage}"
        target = Path(place(copy, stage, experiment) if stage == "phase4b" else f"{copy}/{stage}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    table = change(read_table(place(root, "phase4a", experiment)))
    output = place(copy, "phase4a", experiment)
    commit_chunk(output, 0, [write_part(output, 0, 0, table.to_batches(), table.schema)])
    Path(output, "_stage_config.json").write_text(json.dumps({"hash": "x", "state": "done"}))
    return copy


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.append_column("color", t.column("ra")), SchemaError, "unknown columns \\['color'\\]"),
        (lambda t: t.set_column(t.schema.get_field_index("lens_q"), "lens_q", t["lens_q"].cast("float")),
         SchemaError, "'lens_q' is float, expected double"),
        (lambda t: t.drop_columns(["shear"]), SchemaError, "missing column 'shear'"),
        (lambda t: pa.concat_tables([t, t.slice(0, 1)]), DatasetError, "more than once"),
    ],
    ids=["unknown column", "wrong type", "missing column", "duplicate task_id"],
)  # fmt: skip
def test_a_bad_manifest_is_refused_before_any_work(spark, done, tmp_path, change, error, words):
    root, experiment, _ = done
    copy = altered(root, experiment, tmp_path, change)
    with pytest.raises(error, match=words):
        stamps.run(spark, experiment, options(copy))
    assert committed_chunks(place(copy, "phase4c", experiment)) == {}


def test_the_order_of_a_manifests_columns_does_not_matter(spark, done, tmp_path):
    root, experiment, _ = done
    copy = altered(root, experiment, tmp_path, lambda t: t.select(MANIFEST.names[::-1]))
    stamps.run(spark, experiment, options(copy))
    assert stamps_by_id(place(copy, "phase4c", experiment)) == stamps_by_id(
        place(root, "phase4c", experiment)
    )


def test_paired_controls_are_in_the_same_split_and_name_each_other(spark, done, sky, tmp_path):
    root, _, _ = done
    experiment = experiment_of(sky[0], controls="paired", replicates=1)
    target = Path(place(str(tmp_path), "phase3", experiment))
    target.parent.mkdir(parents=True)
    target.symlink_to(place(root, "phase3", experiment))
    manifest.run(spark, experiment, options(tmp_path))
    rows = {r["task_id"]: r for r in read_table(place(str(tmp_path), "phase4a", experiment)).to_pylist()}
    assert len(rows) > 10
    for row in rows.values():
        partner = rows[row["partner_task_id"]]
        assert partner["partner_task_id"] == row["task_id"]
        assert partner["host_id"] == row["host_id"] and partner["is_control"] != row["is_control"]


def test_stage_3_without_sweeps_says_where_it_looked(spark, tmp_path):
    experiment = experiment_of(tmp_path / "nothing")
    with pytest.raises(DatasetError, match=r"nothing/sweep.*no sweep-\*\.fits"):
        targets.run(spark, experiment, options(tmp_path / "out"))


def test_every_stage_runs_on_s3_without_hadoop_jars(spark, sky, s3_bucket):
    root, experiment = f"{s3_bucket}/whole-way", experiment_of(sky[0], n_total_per_split=6)
    records = [
        stage.run(spark, experiment, options(root))
        for stage in (targets, manifest, coadd_cache, stamps, completeness, pack)
    ]
    made, packed = records[3]["counts"], records[5]["counts"]
    assert made["rows"] == records[1]["counts"]["rows"] > 10 and packed["rows"] == made["ok"] > 0
    table = read_table(place(root, "phase4c", experiment))
    assert {len(s) for s in table.column("stamp").to_pylist() if s is not None} == {3 * 64 * 64 * 4}
    again = stamps.run(spark, experiment, options(root))
    assert again["counts"] == made
