import numpy as np
import pyarrow as pa
import pytest
from packing_cases import stamp_rows

from darkhaloscope.pack.packing import (
    Layout,
    Shuffle,
    cells,
    count_shards,
    labels,
    last_of_first,
    layout_of,
    pixel_rows,
    pixels_of,
    repack,
    shard_of,
    shuffle_keys,
    taking_part,
)
from darkhaloscope.schema import SchemaError

F32, F16 = Layout("float32", 8), Layout("float16", 8)


def test_keys_depend_on_id_and_seed_only_and_fill_the_range_evenly():
    ids = [f"{i:032x}" for i in range(20_000)]
    keys = shuffle_keys(ids, 7)
    assert (shuffle_keys(ids[::-1], 7)[::-1] == keys).all()
    assert (shuffle_keys(ids, 8) != keys).all()
    assert keys.min() >= 0
    counts = np.bincount(shard_of(keys, 16), minlength=16)
    assert np.abs(counts - 1250).max() < 5 * np.sqrt(1250)


def test_shards_follow_the_order_of_keys():
    keys = np.sort(shuffle_keys([str(i) for i in range(1000)], 0))
    assert (np.diff(shard_of(keys, 7)) >= 0).all()
    assert shard_of(np.array([0, 2**63 - 1]), 7).tolist() == [0, 6]


def test_splits_have_shards_of_their_own():
    shuffle = Shuffle(0, (("train", 3), ("val", 2)), F16)
    keys = shuffle_keys([str(i) for i in range(200)], 0)
    splits = pa.array(["train", "val"] * 100)
    number = shuffle.place(keys, splits)
    assert set(number[::2]) == {0, 1, 2} and set(number[1::2]) == {3, 4}
    assert [shuffle.shard_in_split(n) for n in range(5)] == [
        ("train", 0), ("train", 1), ("train", 2), ("val", 0), ("val", 1),
    ]  # fmt: skip
    with pytest.raises(SchemaError, match="guard"):
        shuffle.place(keys, pa.array(["guard"] * 200))


def test_a_default_shard_is_about_256_mb():
    layout = Layout("float16", 64)
    assert count_shards(1_000_000, layout, 256.0) == 99
    assert count_shards(0, layout, 256.0) == 1
    assert layout.cell_bytes == 24_576


def test_float16_keeps_a_2000th_of_each_pixel():
    batch = stamp_rows(0, 20, F32)
    packed, fits = repack(batch, F32, F16)
    before = pixel_rows(batch.column("stamp"), F32.cell_bytes).view("<f4")
    after = pixel_rows(packed.column("stamp"), F16.cell_bytes).view("<f2")
    np.testing.assert_allclose(after.astype("<f4"), before, rtol=2**-11, atol=1e-7)
    assert fits.all() and layout_of(packed.schema, "x") == F16
    assert packed.drop_columns(["stamp"]).equals(batch.drop_columns(["stamp"]))


@pytest.mark.parametrize("layout", [F32, F16])
def test_the_same_type_changes_no_byte(layout):
    batch = stamp_rows(0, 5, layout)
    assert repack(batch, layout, layout)[0].column("stamp").equals(batch.column("stamp"))


def test_rows_beyond_float16_are_left_out_and_told():
    batch = stamp_rows(0, 4, F32)
    pixels = pixel_rows(batch.column("stamp"), F32.cell_bytes).view("<f4").copy()
    pixels[1, 3], pixels[2, 0] = 7e4, np.nan
    batch = batch.set_column(batch.schema.get_field_index("stamp"), "stamp", cells(pixels.view(np.uint8)))
    packed, fits = repack(batch, F32, F16)
    assert fits.tolist() == [True, False, False, True]
    assert packed.column("task_id").to_pylist() == [f"{0:032x}", f"{3:032x}"]


@pytest.mark.parametrize("as_table", [True, False])
def test_pixels_are_those_of_the_cells_whatever_rows_were_left_out(as_table):
    some = stamp_rows(0, 6, F16).filter(pa.array([True, False, True, True, False, False]))
    expected = [np.frombuffer(c, "<f2").reshape(3, 8, 8) for c in some["stamp"].to_pylist()]
    found = pixels_of(pa.Table.from_batches([some.slice(0, 1), some.slice(1)]) if as_table else some)
    assert found.dtype == np.dtype("<f2") and np.array_equal(found, expected)


def test_slices_of_a_column_are_read_from_where_they_start():
    column = cells(np.arange(40, dtype=np.uint8).reshape(10, 4))
    assert pixel_rows(column.slice(3, 2), 4).tolist() == [[12, 13, 14, 15], [16, 17, 18, 19]]
    with pytest.raises(SchemaError, match="should have 5 bytes a row; row 0 has 4"):
        pixel_rows(column, 5)
    with pytest.raises(SchemaError, match="1 rows are null"):
        pixel_rows(pa.array([b"abcd", None]), 4)


def test_a_bound_lets_exactly_the_first_rows_take_part():
    batch = pa.Table.from_batches([stamp_rows(0, 120, F32)])
    mixed = batch.take(pa.array(np.random.default_rng(0).permutation(120)))
    bound = last_of_first(mixed, 57)
    kept = mixed.filter(pa.array(taking_part(mixed, bound)))
    assert sorted(kept["task_id"].to_pylist()) == batch["task_id"].to_pylist()[:57]
    assert last_of_first(mixed, 120) is None and taking_part(mixed, None).all()


def test_a_file_that_does_not_say_how_stamps_are_laid_out_is_named():
    with pytest.raises(SchemaError, match=r"part-7.*does not say"):
        layout_of(pa.schema([]), "part-7")
    odd = stamp_rows(0, 1, F32).schema.with_metadata({"stamp_dtype": "float64", "stamp_shape": "3,8,8"})
    with pytest.raises(SchemaError, match="float64"):
        layout_of(odd, "x")


def test_a_lens_is_what_is_labelled_so():
    assert labels(stamp_rows(0, 4, F32)).tolist() == [True, False, True, False]
