"""The passes of the pack: every row once, one order, bounded memory, whatever happened on the way."""

import json

import numpy as np
import pyarrow as pa
import pytest
from packing_cases import stamp_rows, write_stamps

from darkhaloscope.dataset import (
    DatasetError,
    commit_chunk,
    committed_files,
    open_part,
    read_table,
    write_part,
)
from darkhaloscope.pack import shuffle as passes
from darkhaloscope.pack.packing import Layout, Shuffle
from darkhaloscope.pack.shuffle import Held, shuffled_order
from darkhaloscope.schema import SchemaError
from darkhaloscope.storage import StorageError, join

F32, F16 = Layout("float32", 8), Layout("float16", 8)
SHUFFLE = Shuffle(3, (("train", 3), ("val", 1), ("test", 1)), F16)


def pack(source: str, out: str, per_task: int, files=None, shuffle=SHUFFLE) -> dict[int, tuple]:
    """Run both passes, `per_task` row groups a scatter task; return the (sha256, facts) of each shard."""
    pieces = [p for url in files or committed_files(source) for p in passes.count(url, shuffle.bound).pieces]
    groups = [tuple(pieces[i : i + per_task]) for i in range(0, len(pieces), per_task)]
    scratch = [passes.scatter(g, join(out, "scratch"), n, 0, shuffle) for n, g in enumerate(groups)]
    made = {}
    for number in range(shuffle.n_shards):
        ranges = [(join(out, "scratch", s.part.key), *s.offsets[number : number + 2]) for s in scratch]
        root = join(out, "shards", shuffle.shard_in_split(number)[0])
        part, facts = passes.gather(number, ranges, root, 0, shuffle, "zstd", 16)
        commit_chunk(root, facts["shard"], [part], facts)
        made[number] = (part.sha256, part.rows, facts)
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("stamps"))
    return root, write_stamps(root, [250, 130, 320], F32, failed=7)


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory):
    """(folder of the shards, what was made of each) of the stamps."""
    out = str(tmp_path_factory.mktemp("packed"))
    made = pack(source[0], out, 2)
    return join(out, "shards"), made


def test_every_good_row_is_in_one_shard_of_its_split(source, packed):
    _, ids = source
    found = []
    for split in ("train", "val", "test"):
        table = read_table(join(packed[0], split))
        assert set(table["region_split"].to_pylist()) == {split}
        found += table["task_id"].to_pylist()
    assert sorted(found) == sorted(ids)


def test_the_bytes_do_not_depend_on_how_rows_are_shared_out(source, packed, tmp_path):
    root, _ = source
    assert packed[1] == pack(root, str(tmp_path / "a"), 100)
    assert packed[1] == pack(root, str(tmp_path / "b"), 1, committed_files(root)[::-1])


@pytest.mark.parametrize(("layout", "codec"), [(F16, "zstd"), (F32, "none")])
def test_stamps_of_4c_may_be_of_either_type_and_any_codec(source, tmp_path, layout, codec):
    table = pa.Table.from_batches([passes.repack(stamp_rows(0, 50, F32), F32, layout)[0]])
    for name, rows, how in (
        ("plain", stamp_rows(0, 50, F32), "gzip"),
        ("other", table.to_batches()[0], codec),
    ):
        at = str(tmp_path / name)
        commit_chunk(at, 0, [write_part(at, 0, 0, [rows], rows.schema, codec=how)])
    plain, other = (pack(str(tmp_path / n), str(tmp_path / f"{n}-out"), 1) for n in ("plain", "other"))
    assert plain == other


def test_a_shard_is_in_the_order_of_its_keys_and_its_groups_are_full(packed):
    for url in committed_files(join(packed[0], "train")):
        with open_part(url) as part:
            ids = part.read(columns=["task_id"])["task_id"].to_pylist()
            sizes = [part.metadata.row_group(i).num_rows for i in range(part.num_row_groups)]
        assert shuffled_order(ids, SHUFFLE.seed).tolist() == list(range(len(ids)))
        assert set(sizes[:-1]) == {16}


def test_no_order_of_bricks_is_left_and_the_classes_of_a_shard_are_told(packed):
    for _, rows, facts in packed[1].values():
        assert facts["lenses"] + facts["others"] == rows
        expected = facts["same_brick_by_chance"]
        assert abs(facts["same_brick_neighbours"] - expected) < 5 * np.sqrt(expected) + 5
    together = stamp_rows(0, 50, F32)  # all of one brick
    facts = passes._facts(pa.Table.from_batches([together]))
    assert (facts["bricks"], facts["same_brick_neighbours"], facts["same_brick_by_chance"]) == (1, 49, 49.0)


def test_a_row_that_does_not_fit_is_left_out_by_name_and_the_others_stay(tmp_path):
    rows = stamp_rows(0, 30, F32)
    pixels = np.zeros((30, 3 * 64), "<f4")
    pixels[4] = 1e6
    rows = rows.set_column(rows.schema.get_field_index("stamp"), "stamp", passes.cells(pixels.view(np.uint8)))
    root = str(tmp_path / "in")
    commit_chunk(root, 0, [write_part(root, 0, 0, [rows], rows.schema)])
    pieces = passes.count(committed_files(root)[0], None).pieces
    made = passes.scatter(pieces, str(tmp_path / "out"), 0, 0, SHUFFLE)
    assert made.left_out == (f"{4:032x}",) and made.part.rows == 29


def test_two_rows_with_one_id_are_refused(tmp_path):
    root = str(tmp_path / "in")
    for chunk in range(2):
        rows = stamp_rows(0, 10, F32)
        commit_chunk(root, chunk, [write_part(root, chunk, 0, [rows], rows.schema)])
    with pytest.raises(DatasetError, match="more than once"):
        pack(root, str(tmp_path / "out"), 1)


def test_a_truncated_scratch_file_is_named(source, tmp_path):
    pieces = passes.count(committed_files(source[0])[0], None).pieces
    made = passes.scatter(pieces, str(tmp_path), 0, 0, SHUFFLE)
    path = tmp_path / made.part.key
    path.write_bytes(path.read_bytes()[:-100])
    last = (str(path), *made.offsets[-2:])
    with pytest.raises(StorageError, match=f"{made.part.key}.*truncated"):
        passes.gather(SHUFFLE.n_shards - 1, [last], str(tmp_path), 0, SHUFFLE, "zstd", 16)


def test_a_file_that_is_no_table_of_stamps_is_refused_with_every_fault(tmp_path):
    rows = (
        pa.Table.from_batches([stamp_rows(0, 3, F32)])
        .drop_columns(["ra"])
        .append_column("x", pa.array([1] * 3))
    )
    root = str(tmp_path)
    commit_chunk(root, 0, [write_part(root, 0, 0, rows.to_batches(), rows.schema)])
    with pytest.raises(SchemaError, match="missing column 'ra'"):
        passes.count(committed_files(root)[0], None)


def test_held_rows_come_back_in_any_order_without_a_second_copy_of_the_pixels():
    batch = stamp_rows(0, 40, F16)
    held = Held(batch.schema, 3 * 64 * 2)
    held.add(batch.slice(0, 13))
    held.add(batch.slice(13))
    order = np.random.default_rng(1).permutation(40)
    between = held.ordered(order)
    assert between(5, 25).equals(batch.take(pa.array(order[5:25])))
    assert between(0, 0).num_rows == 0
    address = batch.column("stamp").buffers()[2].address
    assert held._pixels[0].ctypes.data == address


def test_an_empty_split_has_an_empty_shard(source, tmp_path):
    part, facts = passes.gather(4, [], str(tmp_path), 0, SHUFFLE, "zstd", 16)
    assert part.rows == 0 and facts["lenses"] == facts["others"] == 0
    assert json.dumps(facts)
