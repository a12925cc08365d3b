import pytest

from darkhaloscope.dataset import DatasetError, commit_chunk, write_part
from darkhaloscope.records import SHARDS
from darkhaloscope.report.page import render_page
from darkhaloscope.schema import to_batch
from darkhaloscope.validation.shards import faults, pack_page


def shard(number: int, **other) -> dict:
    return {
        "split": "train", "shard": number, "file": f"split=train/{number}", "rows": 1000, "lenses": 500, "others": 500,
        "bytes": 25_000_000, "sha256": "ab" * 32, "bricks": 100, "same_brick_neighbours": 11,
        "same_brick_by_chance": 10.0,
    } | other  # fmt: skip


def written(root, rows: list[dict]) -> str:
    batch = to_batch(SHARDS, {n: [r[n] for r in rows] for n in SHARDS.names})
    at = str(root / "index")
    commit_chunk(at, 0, [write_part(at, 0, 0, [batch], batch.schema)])
    return str(root)


def test_the_page_has_every_shard_with_its_classes_and_size(tmp_path):
    page = pack_page(written(tmp_path, [shard(0), shard(1), shard(0, split="val")]))
    assert [s.title for s in page.sections] == ["train", "val"]
    assert [row[0] for row in page.sections[0].tables[0].rows] == [0, 1]
    assert not any(s.warnings for s in page.sections)
    html = render_page(page)
    assert "3,000 stamps in 3 shards" in html and "50.0 %" in html


def test_what_a_shuffle_would_not_leave_is_a_warning():
    assert faults([shard(0), shard(1)]) == []
    (said,) = faults([shard(0), shard(1, same_brick_neighbours=990)])
    assert "shard 1" in said and "bricks were not mixed" in said
    uneven = faults([shard(0, lenses=900, others=100), shard(1, lenses=100, others=900)])
    assert len(uneven) == 2 and "classes are uneven" in uneven[0]
    one_brick = shard(0, bricks=1, same_brick_neighbours=999, same_brick_by_chance=999.0)
    assert faults([one_brick]) == []
    assert faults([shard(0, rows=0, lenses=0, others=0, same_brick_neighbours=0, same_brick_by_chance=0.0)])


def test_a_stage_that_has_not_run_says_so(tmp_path):
    with pytest.raises(DatasetError):
        pack_page(str(tmp_path))
