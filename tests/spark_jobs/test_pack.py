"""The pack as a stage: the same shards whatever the partitioning, and whatever happened on the way."""

import argparse
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from full_disk import small_disk
from packing_cases import write_stamps

from darkhaloscope.dataset import (
    DatasetError,
    commit_chunk,
    committed_chunks,
    committed_parts,
    open_part,
    read_table,
    write_part,
)
from darkhaloscope.experiment import from_dict
from darkhaloscope.pack import shuffle as passes
from darkhaloscope.pack.packing import Layout
from darkhaloscope.records import SHARDS
from darkhaloscope.stage import OutputRefused, Owner, place
from darkhaloscope.storage import join
from spark_jobs import pack

pytestmark = pytest.mark.xdist_group("spark")

FAILED = 5
SPLITS = ("train", "val", "test")


def experiment_of(name: str, **how):
    return from_dict(
        {
            "name": name,
            "variant": "v",
            "experiment_id": name,
            "pack": {"shard_mb": 0.1, "rows_per_group": 16} | how,
        },
        "test",
    )


def options(root, **more) -> argparse.Namespace:
    base = {
        "output_s3": str(root),
        "test_limit": None,
        "partitions": 2,
        "overwrite": False,
        "take_over": False,
    }
    return argparse.Namespace(**(base | more))


@pytest.fixture(scope="module")
def stamps(tmp_path_factory):
    """(folder with stamps of one experiment, ids of those that were made)."""
    root = tmp_path_factory.mktemp("stamps")
    ids = write_stamps(str(root), [130, 90, 170], Layout("float32", 16), failed=FAILED)
    (root / "_stage_config.json").write_text(json.dumps({"hash": "x", "state": "done"}))
    return root, ids


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(pack, "SCATTER_BYTES", 120 * 3 * 16 * 16 * 2)


def workspace(root: Path, stamps: Path, experiment) -> Path:
    """A workspace with the stamps in it; return the output of the pack."""
    source = Path(place(str(root), "phase4c", experiment))
    source.parent.mkdir(parents=True, exist_ok=True)
    source.symlink_to(stamps)
    return Path(place(str(root), "pack", experiment))


def shards_of(output: Path) -> dict[str, tuple[str, int]]:
    """What each committed shard is: (sha256, rows) by split and number."""
    return {
        f"{split}/{number}": (chunk["parts"][0]["sha256"], chunk["rows"])
        for split in SPLITS
        for number, chunk in committed_chunks(str(output / f"split={split}")).items()
    }


@pytest.fixture(scope="module")
def undisturbed(spark, stamps, tmp_path_factory):
    """(output, record) of a run that nothing happened to."""
    root, experiment = tmp_path_factory.mktemp("undisturbed"), experiment_of("undisturbed")
    output = workspace(root, stamps[0], experiment)
    return output, pack.run(spark, experiment, options(root))


def check(output: Path, undisturbed: Path, ids: list[str]) -> None:
    """Every row once, the bytes of the undisturbed run, and no file that nothing names."""
    found = [i for s in SPLITS for i in read_table(join(str(output), f"split={s}"))["task_id"].to_pylist()]
    assert sorted(found) == sorted(ids)
    assert shards_of(output) == shards_of(undisturbed)
    named = {f"split={s}/{p.key}" for s in SPLITS for p in committed_parts(str(output / f"split={s}"))}
    on_disk = {str(f.relative_to(output)) for f in output.rglob("*.parquet") if "index" not in f.parts}
    assert on_disk == named and not (output / "_scatter").exists() and not list(output.rglob("*.tmp"))


@pytest.mark.parametrize("partitions", [1, 3, 8])
def test_the_partitioning_changes_no_byte(spark, stamps, undisturbed, tmp_path, small_groups, partitions):
    experiment = experiment_of(f"p{partitions}")
    output = workspace(tmp_path, stamps[0], experiment)
    record = pack.run(spark, experiment, options(tmp_path, partitions=partitions))
    check(output, undisturbed[0], stamps[1])
    counts = record["counts"]
    assert (counts["rows"], counts["left_out_failed"], counts["left_out_pixels"]) == (
        len(stamps[1]),
        3 * FAILED,
        0,
    )


def test_the_index_says_what_is_in_each_shard(undisturbed):
    output, record = undisturbed
    index = read_table(join(str(output), "index"))
    assert index.schema.names == SHARDS.names
    for row in index.to_pylist():
        with open_part(str(output / row["file"])) as part:
            rows = part.read(columns=["is_control"])
            groups = [part.metadata.row_group(i).num_rows for i in range(part.num_row_groups)]
        assert row["rows"] == rows.num_rows == row["lenses"] + row["others"]
        assert row["others"] == sum(rows["is_control"].to_pylist())
        assert row["bytes"] == (output / row["file"]).stat().st_size
        assert max(groups) <= 16
    splits = record["counts"]["splits"]
    assert {s: splits[s]["shards"] for s in SPLITS} == {
        s: sum(r["split"] == s for r in index.to_pylist()) for s in SPLITS
    }


def test_a_run_that_stops_while_scattering_or_gathering_goes_on_where_it_was(
    spark, stamps, undisturbed, tmp_path, small_groups, monkeypatch
):
    experiment = experiment_of("stopped")
    output = workspace(tmp_path, stamps[0], experiment)
    monkeypatch.setattr(pack, "ROUNDS", 1)
    commit, done = pack.commit_chunk, []

    def stop_after(n):
        def committing(root, *args):
            if len(done) == n:
                raise KeyboardInterrupt
            done.append(root)
            commit(root, *args)

        return committing

    for n in (1, 5):  # in the first pass, then in the second
        monkeypatch.setattr(pack, "commit_chunk", stop_after(n))
        with pytest.raises(KeyboardInterrupt):
            pack.run(spark, experiment, options(tmp_path))
    scratch = [root for root in done if "_scatter" in root]
    assert len(done) - len(scratch) > 0, "the second stop was in the second pass"
    monkeypatch.setattr(pack, "commit_chunk", commit)
    pack.run(spark, experiment, options(tmp_path))
    check(output, undisturbed[0], stamps[1])


def test_a_lost_shard_is_made_again_alone_and_a_finished_output_is_left_as_it_is(
    spark, stamps, undisturbed, tmp_path
):
    experiment = experiment_of("lost")
    output = workspace(tmp_path, stamps[0], experiment)
    pack.run(spark, experiment, options(tmp_path))
    before = {f: f.stat().st_mtime_ns for f in output.rglob("*.parquet")}
    pack.run(spark, experiment, options(tmp_path))
    assert {f: f.stat().st_mtime_ns for f in output.rglob("*.parquet")} == before
    shutil.rmtree(output / "split=train" / "chunk=00001")
    pack.run(spark, experiment, options(tmp_path))
    check(output, undisturbed[0], stamps[1])
    kept = {f: f.stat().st_mtime_ns for f in output.rglob("*.parquet") if "chunk=00001" not in f.parts}
    assert kept.items() <= before.items()


@pytest.mark.parametrize("room", [300_000, 1_000_000], ids=["while scattering", "while gathering"])
def test_a_disk_that_fills_while_packing_is_told_and_a_repetition_is_as_if_nothing_was(
    spark, stamps, undisturbed, tmp_path, small_groups, room
):
    with small_disk(tmp_path / "disk") as disk:
        experiment = experiment_of("full")
        output = workspace(disk.folder, stamps[0], experiment)
        disk.fill(room)
        with pytest.raises(Exception, match="No space left on device; free space or give another place"):
            pack.run(spark, experiment, options(disk.folder))
        assert not list(output.rglob("*.tmp")) and not (output / "index").exists()
        assert len(shards_of(output)) < len(shards_of(undisturbed[0]))
        disk.free()
        pack.run(spark, experiment, options(disk.folder))
        check(output, undisturbed[0], stamps[1])


def test_a_second_start_is_refused_while_the_first_packs(spark, stamps, tmp_path):
    experiment = experiment_of("second")
    output = workspace(tmp_path, stamps[0], experiment)
    first = Owner(str(output))
    first.acquire(take_over=False)
    with pytest.raises(OutputRefused, match="is writing here"):
        pack.run(spark, experiment, options(tmp_path))
    first._stop.set()
    first._thread.join()
    long_ago = (output / "_owner.json").stat().st_mtime - 3600
    os.utime(output / "_owner.json", (long_ago, long_ago))
    assert pack.run(spark, experiment, options(tmp_path))["counts"]["rows"] == len(stamps[1])
    assert not (output / "_owner.json").exists()


def test_a_test_limit_takes_the_first_rows_by_brick_and_id(spark, stamps, tmp_path):
    experiment = experiment_of("limit")
    output = workspace(tmp_path, stamps[0], experiment)
    counts = pack.run(spark, experiment, options(tmp_path, test_limit=70))["counts"]
    assert (counts["rows"], counts["left_out_failed"]) == (70, 0)
    found = [i for s in SPLITS for i in read_table(join(str(output), f"split={s}"))["task_id"].to_pylist()]
    assert sorted(found) == sorted(stamps[1])[:70]


def test_pieces_are_grouped_in_order_up_to_a_bound():
    pieces = [passes.Piece("a", i, n) for i, n in enumerate((3, 4, 2, 9, 1))]
    groups = pack.group_pieces(pieces, 7)
    assert [[p.rows for p in g] for g in groups] == [[3, 4], [2], [9], [1]]
    assert pack.group_pieces([], 7) == ()


def test_rows_that_do_not_fit_float16_are_quarantined_and_too_many_fail_the_stage(spark, stamps, tmp_path):
    experiment = experiment_of("bright")
    table = read_table(str(stamps[0])).slice(0, 120)
    pixels = [
        c if i != 7 else np.full(len(c) // 4, 1e6, "<f4").tobytes()
        for i, c in enumerate(table["stamp"].to_pylist())
    ]
    table = table.set_column(table.schema.get_field_index("stamp"), "stamp", pa.array(pixels, pa.binary()))
    source = place(str(tmp_path), "phase4c", experiment)
    commit_chunk(source, 0, [write_part(source, 0, 0, table.to_batches(), table.schema)])
    Path(source, "_stage_config.json").write_text(json.dumps({"hash": "x", "state": "done"}))
    counts = pack.run(spark, experiment, options(tmp_path))["counts"]
    assert (counts["rows"], counts["left_out_pixels"]) == (119, 1)
    (row,) = read_table(join(place(str(tmp_path), "pack", experiment), "quarantine")).to_pylist()
    assert row["unit"] == table["task_id"][7].as_py() and "range" in row["reason"]
    strict = dataclasses.replace(
        experiment, limits=dataclasses.replace(experiment.limits, max_failed_fraction=0.0)
    )
    with pytest.raises(DatasetError, match=r"1 of 120 stamps failed"):
        pack.run(spark, strict, options(tmp_path))
