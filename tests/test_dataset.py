"""Committed datasets, on a local path and on a local S3 server: the same promises."""

import json
import uuid

import numpy as np
import pyarrow as pa
import pytest

from darkhaloscope import dataset as ds
from darkhaloscope.storage import filesystem, join

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.binary())], {"unit": "nmgy"})


def batches(*sizes: int) -> list[pa.RecordBatch]:
    start = np.cumsum([0, *sizes])
    return [
        pa.record_batch({"a": np.arange(s, s + n), "b": [b"x" * 8] * n}, schema=SCHEMA)
        for s, n in zip(start[:-1], sizes, strict=True)
    ]


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "data")
    return join(request.getfixturevalue("s3_bucket"), uuid.uuid4().hex)


def test_a_part_is_invisible_until_its_chunk_is_committed(root):
    part = ds.write_part(root, 0, 0, batches(5), SCHEMA)
    with pytest.raises(ds.DatasetError, match="no committed chunk"):
        ds.committed_files(root)
    ds.commit_chunk(root, 0, [part], {"ok": 5})
    assert [f.endswith(part.key) for f in ds.committed_files(root)] == [True]
    assert ds.committed_chunks(root)[0]["ok"] == 5
    table = ds.read_table(root)
    assert table.column("a").to_pylist() == list(range(5))
    assert table.schema.metadata[b"unit"] == b"nmgy"


def test_parts_of_repeated_tasks_are_not_read_and_are_collected(root):
    kept = ds.write_part(root, 0, 0, batches(3), SCHEMA)
    ds.write_part(root, 0, 0, batches(3), SCHEMA, attempt=1)
    ds.commit_chunk(root, 0, [kept])
    assert ds.read_table(root).num_rows == 3
    assert len(ds.gc(root)) == 1
    assert ds.gc(root) == []
    assert ds.read_table(root).num_rows == 3


def test_only_committed_chunks_are_counted(root):
    parts = [ds.write_part(root, chunk, 0, batches(3), SCHEMA) for chunk in range(3)]
    assert ds.count_committed_chunks(root) == 0
    for chunk in (0, 2):
        ds.commit_chunk(root, chunk, [parts[chunk]])
    assert ds.count_committed_chunks(root) == 2


def test_a_chunk_is_committed_once(root):
    first, second = (ds.write_part(root, 0, i, batches(2), SCHEMA) for i in range(2))
    ds.commit_chunk(root, 0, [first])
    with pytest.raises(ds.DatasetError, match="committed by another run"):
        ds.commit_chunk(root, 0, [second])
    assert [p.key for p in ds.committed_parts(root)] == [first.key]


def test_a_task_that_fails_leaves_no_part(root):
    def failing():
        yield batches(4)[0]
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        ds.write_part(root, 0, 0, failing(), SCHEMA)
    fs, path = filesystem(root)
    assert [f for f in fs.find(path) if "part-" in f] == []


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_row_groups_are_full_whatever_the_batches(tmp_path, codec):
    part = ds.write_part(str(tmp_path), 0, 0, batches(3, 700, 2500, 1), SCHEMA, codec=codec)
    with ds.open_part(join(str(tmp_path), part.key)) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert file.read().column("a").to_pylist() == list(range(3204))
    assert groups == [1000, 1000, 1000, 204]
    assert part.rows == 3204


def test_row_groups_above_the_bound_are_refused(tmp_path):
    with pytest.raises(ds.DatasetError, match="1 to 1000"):
        ds.write_part(str(tmp_path), 0, 0, batches(1), SCHEMA, rows_per_group=1001)


def test_the_recorded_hash_and_size_are_those_of_the_file(tmp_path):
    import hashlib

    part = ds.write_part(str(tmp_path), 0, 0, batches(10), SCHEMA)
    data = (tmp_path / part.key).read_bytes()
    assert (part.bytes, part.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_content_hash_is_of_the_rows_not_of_the_names(tmp_path):
    for name in "xy":
        root = str(tmp_path / name)
        ds.commit_chunk(root, 0, [ds.write_part(root, 0, 0, batches(10), SCHEMA)])
    other = str(tmp_path / "z")
    ds.commit_chunk(other, 0, [ds.write_part(other, 0, 0, batches(11), SCHEMA)])
    x, y, z = (ds.content_hash(str(tmp_path / n)) for n in "xyz")
    assert x == y != z


def test_a_truncated_file_is_named(tmp_path):
    part = ds.write_part(str(tmp_path), 0, 0, batches(10), SCHEMA)
    path = tmp_path / part.key
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ds.DatasetError, match=part.key):
        ds.open_part(str(path))


def test_chunks_are_read_in_order(tmp_path):
    root = str(tmp_path)
    for chunk in (2, 0, 1):
        ds.commit_chunk(root, chunk, [ds.write_part(root, chunk, 0, batches(chunk + 1), SCHEMA)])
    assert [p.rows for p in ds.committed_parts(root)] == [1, 2, 3]
    assert json.loads((tmp_path / "chunk=00001" / "_manifest.json").read_text())["rows"] == 2
