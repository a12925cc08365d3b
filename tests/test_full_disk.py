"""A disk that is full: nothing half-written is seen, and a repetition has every row once and the same bytes."""

import pytest
from fault_cases import files, wait_until, write
from full_disk import small_disk

from darkhaloscope import dataset as ds
from darkhaloscope.experiment import from_dict
from darkhaloscope.stage import Owner, StageRun
from darkhaloscope.storage import StorageError

EXPERIMENT = from_dict({"name": "x", "variant": "v", "experiment_id": "e"}, "test")


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


def test_a_disk_that_fills_while_a_part_is_written_leaves_nothing_and_a_repetition_has_the_same_bytes(
    disk, tmp_path
):
    expected = write(str(tmp_path / "undisturbed"))
    disk.fill(64 << 10)
    before = files(disk.folder)
    with pytest.raises(StorageError, match=r"part-00000.*No space left.*free space or give another place"):
        write(str(disk.folder))
    assert files(disk.folder) == before == ["ballast"]
    disk.free()
    part = write(str(disk.folder))
    ds.commit_chunk(str(disk.folder), 0, [part])
    assert (part.sha256, part.rows) == (expected.sha256, 300)
    assert ds.gc(str(disk.folder)) == []


def test_a_disk_that_is_full_when_a_manifest_is_written_commits_nothing(disk):
    root = str(disk.folder)
    part = write(root)
    disk.fill(0)
    with pytest.raises(StorageError, match=r"_manifest.json.*No space left.*free space"):
        ds.commit_chunk(root, 0, [part])
    assert ds.committed_chunks(root) == {} and files(disk.folder) == ["ballast", part.key]
    disk.free()
    ds.commit_chunk(root, 0, [part])
    assert ds.read_table(root).num_rows == 300 and ds.gc(root) == []


def test_a_disk_that_is_full_when_a_run_starts_or_ends_says_so_and_holds_nobody_up(disk):
    root = str(disk.folder)
    disk.fill(0)
    with pytest.raises(StorageError, match=r"_owner.json.*No space left"):
        Owner(root).acquire(take_over=False)
    assert files(disk.folder) == ["ballast"]
    disk.free()
    with StageRun(root, "4c", EXPERIMENT, ("psf",), {}) as run:
        disk.fill(0)
        with pytest.raises(StorageError, match=r"_stage_config.json.*No space left"):
            run.finish(rows=1)
        disk.free()
        run.finish(rows=1)
    assert files(disk.folder) == ["_stage_config.json"]


def test_a_heartbeat_that_finds_the_disk_full_is_tried_again(disk, capfd):
    root = str(disk.folder)
    alive = Owner(root, expiry_s=60, heartbeat_s=0.02)
    alive.acquire(take_over=False)
    disk.fill(0)
    wait_until(lambda: "heartbeat missed" in capfd.readouterr().err)
    disk.free()
    written = (disk.folder / "_owner.json").stat().st_mtime_ns
    wait_until(lambda: (disk.folder / "_owner.json").stat().st_mtime_ns > written)
    alive.check()
    alive.release()
    assert files(disk.folder) == []
