"""The cache as a whole: what a second run visits, what it costs to know, and whether the disk will do."""

import os
from types import SimpleNamespace

import pytest
from survey_testing import BRICK

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.records import ASSETS
from darkhaloscope.schema import to_batch
from darkhaloscope.storage import StorageError
from darkhaloscope.survey.cache import (
    BRICK_BYTES,
    DAY_S,
    bricks_to_fetch,
    bytes_in_cache,
    check_space,
    clear_incoming,
    mean_brick_bytes,
    read_assets,
)
from darkhaloscope.survey.coadds import file_path
from darkhaloscope.survey.fetch import INCOMING, fetch_brick

NOW = 100 * DAY_S


def asset(brick, status, cause="", tried=NOW - DAY_S, size=7):
    return {
        "brickname": brick, "status": status, "cause": cause, "reason": "", "bands": "grz", "files": 10, "bytes": size,
        "by_checksum": 0, "seconds": 1.0, "tried": tried,
    }  # fmt: skip


def commit(root, chunk, rows):
    batch = to_batch(ASSETS, {name: [row[name] for row in rows] for name in ASSETS.names})
    commit_chunk(str(root), chunk, [write_part(str(root), chunk, 0, [batch], ASSETS.arrow())])


def test_a_later_row_of_a_brick_replaces_an_earlier_one(tmp_path):
    assert read_assets(str(tmp_path)) == {}
    commit(tmp_path, 0, [asset("a", "failed"), asset("b", "cached")])
    commit(tmp_path, 1, [asset("a", "cached")])
    assert {k: v["status"] for k, v in read_assets(str(tmp_path)).items()} == {"a": "cached", "b": "cached"}


def test_only_what_is_unknown_failed_or_missing_long_ago_is_visited_again():
    rows = [
        asset("cached", "cached"),
        asset("failed", "failed", "HTTP 503"),
        asset("missing", "missing", "not found"),
        asset("long missing", "missing", "not found", tried=NOW - 31 * DAY_S),
        asset("lacks a band", "cached", "not found"),
        asset("lacked one long ago", "cached", "not found", tried=NOW - 31 * DAY_S),
    ]
    assets = {row["brickname"]: row for row in rows}
    bricks = ["new", *assets]
    again = bricks_to_fetch(bricks, assets, NOW, 30 * DAY_S)
    assert again == ["new", "failed", "long missing", "lacked one long ago"]
    told_to = bricks_to_fetch(bricks, assets, NOW, 0)
    assert set(bricks) - set(told_to) == {"cached"}
    assert "cached" in bricks_to_fetch(bricks, assets, NOW, 0, {name: 6 for name in bricks}), (
        "a file has gone"
    )
    assert "cached" not in bricks_to_fetch(bricks, assets, NOW, 0, {name: 7 for name in bricks})


def test_a_local_cache_is_looked_at_without_opening_a_file(sky, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    row = fetch_brick(str(sky), str(cache), BRICK)
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr("pathlib.Path.open", None)
    assert bytes_in_cache(str(cache), [BRICK, "0594m305"], "grz") == {BRICK: row["bytes"], "0594m305": 0}
    (cache / file_path(BRICK, "image", "r")).unlink()
    assert bytes_in_cache(str(cache), [BRICK], "grz")[BRICK] < row["bytes"]
    assert bytes_in_cache("s3://bucket/cache", [BRICK], "grz") is None


def test_a_bricks_size_is_measured_where_it_can_be(sky):
    known = [asset("a", "cached", size=10), asset("b", "cached", size=30), asset("c", "failed", size=99)]
    assert mean_brick_bytes("https://x.org/dr10/south", ["d"], "grz", known) == 20
    assert mean_brick_bytes("https://x.org/dr10/south", ["d"], "grz", []) == BRICK_BYTES
    files = sum(p.stat().st_size for p in (sky / "coadd").rglob("*.fz"))
    assert mean_brick_bytes(str(sky), [BRICK], "grz", []) == files


def test_what_the_disk_cannot_hold_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5_000_000_000))
    check_space(str(tmp_path / "not" / "yet"), 60, 79e6)
    with pytest.raises(
        StorageError, match=r"64 bricks of about 79 MB need 5\.1 GB, and 5\.0 GB are free.*run again"
    ):
        check_space(str(tmp_path / "not" / "yet"), 64, 79e6)
    check_space("s3://bucket/cache", 10**9, 79e6)


def test_what_a_killed_run_left_is_removed_and_what_is_on_its_way_is_not(tmp_path):
    folder = tmp_path / INCOMING
    folder.mkdir()
    for name, age in (("dead.part", 7200), ("alive.part", 5)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (NOW - age, NOW - age))
    assert clear_incoming(str(tmp_path), NOW) == 1
    assert [p.name for p in folder.iterdir()] == ["alive.part"]
    assert clear_incoming(str(tmp_path / "nothing")) == 0
