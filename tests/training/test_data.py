from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_shards import SIZE, make_columns, write_shards

import training.data
from darkhaloscope.dataset import commit_chunk, committed_files, write_part
from darkhaloscope.records import STAMPS, stamp_metadata
from darkhaloscope.schema import SchemaError, to_batch
from training.data import Batch, StampStream, World, make_batch, make_loader
from training.preprocess import Preprocessing, PreprocessingError
from training.selection import DataError, Selection
from training.shards import Shards, open_shards, open_split

PREPROCESSING = Preprocessing(size=SIZE)


def one_lane(monkeypatch, stream: StampStream, worker: int) -> list[Batch]:
    """Return what one worker of a stream yields, without starting a process."""
    info = SimpleNamespace(id=worker, num_workers=stream.workers)
    monkeypatch.setattr(training.data, "get_worker_info", lambda: info)
    return list(stream)


def ids(batches: list[Batch]) -> list[str]:
    return [t for b in batches for t in b.task_ids()]


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Shards:
    """200 rows in 100 row groups of 4 files."""
    root = tmp_path_factory.mktemp("train")
    write_shards(root, [make_columns(50, i) for i in range(4)], rows_per_group=2)
    return open_shards([(str(root), Selection())])


TRAIN_IDS = [make_columns(50, i)["task_id"] for i in range(4)]


def test_a_batch_holds_what_was_written(tmp_path):
    for dtype in ("float16", "float32"):
        columns = make_columns(6, 5, dtype)
        batch = to_batch(STAMPS, columns, stamp_metadata(dtype, SIZE))
        preprocessing = Preprocessing(size=SIZE, meta_cols=("psfsize_r",), meta_mean=(0.0,), meta_std=(1.0,))
        made = make_batch(batch.slice(2), preprocessing, "here")
        pixels = np.stack([np.frombuffer(s, dtype).reshape(3, SIZE, SIZE) for s in columns["stamp"][2:]])
        assert (made.stamps.numpy() == pixels).all()
        assert made.stamps.dtype == getattr(torch, dtype)
        assert made.label.tolist() == [0, 1, 0, 1]
        assert made.task_ids() == columns["task_id"][2:]
        sky = np.stack([columns[f"sky_sigma_{b}"][2:] for b in "grz"], axis=1)
        np.testing.assert_allclose(made.sky_sigma.numpy(), sky, rtol=1e-6)
        np.testing.assert_allclose(made.meta[:, 0].numpy(), columns["psfsize_r"][2:], rtol=1e-6)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [1, 2, 5, 8])
def test_every_row_is_seen_exactly_once_an_epoch_whatever_the_world(monkeypatch, train, ranks, workers):
    everything, steps = [], set()
    for rank in range(ranks):
        stream = StampStream(
            train, PREPROCESSING, 7, 42, workers=workers, world=World(rank, ranks), pool_rows=5
        )
        lanes = [one_lane(monkeypatch, stream, w) for w in range(workers)]
        assert {len(lane) * workers for lane in lanes} == {stream.steps_per_epoch}
        steps.add(stream.steps_per_epoch)
        assert all(1 <= len(b.label) <= 7 for lane in lanes for b in lane)
        everything += [t for lane in lanes for t in ids(lane)]
    assert sorted(everything) == sorted(t for one in TRAIN_IDS for t in one)
    assert len(steps) == 1, "ranks that take different numbers of steps wait for each other for ever"


def test_equal_seeds_give_equal_batches_and_epochs_differ(train):
    def epoch(seed: int, number: int) -> list[str]:
        return ids(list(StampStream(train, PREPROCESSING, 16, seed, epochs=(number, number + 1))))

    assert epoch(1, 0) == epoch(1, 0)
    assert epoch(1, 0) != epoch(1, 1) != epoch(2, 1)
    assert sorted(epoch(1, 0)) == sorted(epoch(1, 1))


def test_rows_are_mixed_across_row_groups(train):
    first = next(iter(StampStream(train, PREPROCESSING, 20, 3, pool_rows=200)))
    home = {t: (i, r // 2) for i, one in enumerate(TRAIN_IDS) for r, t in enumerate(one)}
    assert len({home[t] for t in first.task_ids()}) > 12


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("position", [0, 1, 4, 5, -2, -1])
def test_a_stream_started_in_mid_epoch_goes_on_with_the_next_batch(monkeypatch, train, workers, position):
    def batches(position: int) -> list[list[str]]:
        stream = StampStream(
            train, PREPROCESSING, 7, 42, epochs=(1, 3), position=position, workers=workers, pool_rows=11
        )
        lanes = [one_lane(monkeypatch, stream, w) for w in range(workers)]
        count = 2 * stream.steps_per_epoch - position
        return [lanes[k % workers][k // workers].task_ids() for k in range(count)]

    steps = StampStream(train, PREPROCESSING, 7, 42, workers=workers).steps_per_epoch
    assert batches(position % (steps + 1)) == batches(0)[position % (steps + 1) :]


def test_a_resumed_stream_does_not_read_what_it_skips(monkeypatch, train):
    read = []
    original = StampStream._read
    monkeypatch.setattr(
        StampStream, "_read", lambda s, v, e, i, a, b: (read.append(i), original(s, v, e, i, a, b))[1]
    )
    steps = StampStream(train, PREPROCESSING, 10, 1).steps_per_epoch
    list(StampStream(train, PREPROCESSING, 10, 1, position=steps - 1, pool_rows=10))
    assert len(read) < 15, f"{len(read)} of 100 row groups read for the last batch"


def test_worker_processes_deliver_the_planned_order(monkeypatch, train):
    def stream(position: int = 0) -> StampStream:
        return StampStream(train, PREPROCESSING, 9, 7, epochs=(0, 2), position=position, workers=2)

    whole = [b.task_ids() for b in make_loader(stream(), 2)]
    assert len(whole) == 2 * stream().steps_per_epoch
    first_epoch = [t for ids_ in whole[: len(whole) // 2] for t in ids_]
    assert sorted(first_epoch) == sorted(t for one in TRAIN_IDS for t in one)
    assert [b.task_ids() for b in make_loader(stream(3), 2)] == whole[3:]


def test_fewer_row_groups_than_readers_is_an_error_that_says_what_to_do(train):
    with pytest.raises(
        DataError, match=r"100 row groups for 102 readers.*--num_workers to at most 33.*rows_per_group"
    ):
        StampStream(train, PREPROCESSING, 7, 42, workers=34, world=World(0, 3))


def test_uncommitted_parts_are_not_read(shards):
    root = shards()
    metadata = stamp_metadata("float16", SIZE)
    stray = to_batch(STAMPS, make_columns(10, 77, "float16"), metadata)
    write_part(f"{root}/split=train", 0, 9, [stray], STAMPS.arrow(metadata))
    assert open_split(root, "train").rows.sum() == 96


def test_a_bound_filters_both_classes_and_its_effect_is_counted(tmp_path):
    columns = make_columns(40, 1)
    columns["theta_over_psf"] = np.where(np.arange(40) < 10, 0.3, 0.6)
    columns["theta_over_psf"][39] = np.nan
    write_shards(tmp_path, [columns])
    shards = open_shards([(str(tmp_path), Selection("", (("theta_over_psf", 0.5),)))])
    facts = shards.facts()
    assert [facts[k] for k in ("positives_before_bounds", "positives")] == [20, 14]
    assert [facts[k] for k in ("negatives_before_bounds", "negatives")] == [20, 15]
    kept = ids(list(StampStream(shards, PREPROCESSING, 8, 1)))
    assert sorted(kept) == sorted(columns["task_id"][10:39])


def test_stage_4c_output_is_read_by_region_split_without_failed_rows(tmp_path):
    columns = make_columns(40, 1)
    columns["region_split"] = ["train", "train", "val", "test"] * 10
    columns["cutout_ok"][[0, 1, 4]] = 0
    for name in ("stamp", "sky_sigma_g", "theta_over_psf"):
        values = list(columns[name])
        for i in (0, 1, 4):
            values[i] = None
        columns[name] = values
    write_shards(tmp_path, [columns])
    shards = open_split(str(tmp_path), "train")
    facts = shards.facts()
    assert [facts[k] for k in ("positives", "negatives", "rows_in_dataset")] == [9, 8, 40]
    seen = ids(list(StampStream(shards, PREPROCESSING, 4, 1)))
    expected = [t for i, t in enumerate(columns["task_id"]) if i % 4 < 2 and i not in (0, 1, 4)]
    assert sorted(seen) == sorted(expected)


def test_no_split_and_nothing_committed_says_where_it_looked(tmp_path):
    with pytest.raises(DataError, match="split=train"):
        open_split(str(tmp_path / "nothing"), "train")


def test_one_class_only_is_an_error(tmp_path):
    columns = make_columns(8, 1)
    columns |= {"is_control": np.ones(8, int), "label": np.zeros(8, int), "sample": ["random_negative"] * 8}
    write_shards(tmp_path, [columns])
    with pytest.raises(DataError, match="0 positives and 8 negatives"):
        open_shards([(str(tmp_path), Selection())])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_numbers_are_refused_and_their_rows_named(dtype, value):
    columns = make_columns(5, 3, dtype)
    pixels = np.frombuffer(columns["stamp"][3], dtype).copy()
    pixels[7] = value
    columns["stamp"][3] = pixels.tobytes()
    with pytest.raises(DataError, match=f"file.parquet: 1 stamps have NaN or inf.*{columns['task_id'][3]}"):
        make_batch(to_batch(STAMPS, columns, stamp_metadata(dtype, SIZE)), PREPROCESSING, "file.parquet")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_largest_numbers_are_pixels_like_others(dtype):
    columns = make_columns(2, 3, dtype)
    largest = np.finfo(dtype).max
    columns["stamp"] = [np.full((3, SIZE, SIZE), v, dtype).tobytes() for v in (largest, -largest)]
    make_batch(to_batch(STAMPS, columns, stamp_metadata(dtype, SIZE)), PREPROCESSING, "here")


def test_a_stamp_of_another_length_is_named():
    columns = make_columns(4, 3)
    columns["stamp"][2] = columns["stamp"][2][:-4]
    with pytest.raises(SchemaError, match=r"'stamp' should have 3072 bytes a row; row 2 has 3068"):
        make_batch(to_batch(STAMPS, columns, stamp_metadata("float32", SIZE)), PREPROCESSING, "here")


def test_missing_sky_sigma_of_a_good_row_is_named():
    columns = make_columns(4, 3)
    columns["sky_sigma_z"] = [0.1, None, 0.1, 0.1]
    with pytest.raises(DataError, match="sky_sigma_z"):
        make_batch(to_batch(STAMPS, columns, stamp_metadata("float32", SIZE)), PREPROCESSING, "here")


def test_stamps_of_another_shape_or_without_layout_are_refused():
    batch = to_batch(STAMPS, make_columns(4, 3), stamp_metadata("float32", SIZE))
    with pytest.raises(PreprocessingError, match=r"grz \(3, 16, 16\).*\(3, 64, 64\)"):
        make_batch(batch, Preprocessing(), "here")
    with pytest.raises(SchemaError, match="does not say how stamps are laid out"):
        make_batch(batch.replace_schema_metadata(), PREPROCESSING, "here")


def rewrite(url: str, change) -> None:
    """Replace a committed file, as a disk fault or another program would."""
    table = change(pq.read_table(url))
    pq.write_table(table, url, row_group_size=8)


def test_a_missing_or_mistyped_column_is_named_with_its_file(shards):
    root = shards(files=1)
    url = committed_files(f"{root}/split=train")[0]
    rewrite(url, lambda t: t.drop(["theta_over_psf"]))
    with pytest.raises(SchemaError, match=rf"{Path(url).name}.*missing column 'theta_over_psf'"):
        open_split(root, "train", [("theta_over_psf", 0.5)])
    index = STAMPS.names.index("label")
    rewrite(url, lambda t: t.set_column(index, "label", t.column("label").cast(pa.int64())))
    with pytest.raises(SchemaError, match="'label' is int64, expected int8"):
        open_split(root, "train")


def test_files_of_different_layouts_are_refused(tmp_path):
    for chunk, dtype in enumerate(("float16", "float32")):
        metadata = stamp_metadata(dtype, SIZE)
        batch = to_batch(STAMPS, make_columns(8, chunk, dtype), metadata)
        commit_chunk(
            str(tmp_path), chunk, [write_part(str(tmp_path), chunk, 0, [batch], STAMPS.arrow(metadata))]
        )
    with pytest.raises(DataError, match=r"float32.*float16"):
        open_shards([(str(tmp_path), Selection())])


def test_a_truncated_or_damaged_shard_is_named(shards):
    root = shards(files=1, codec="zstd")
    url = Path(committed_files(f"{root}/split=train")[0])
    whole = url.read_bytes()
    opened = open_split(root, "train")
    middle = len(whole) // 2
    url.write_bytes(whole[: middle - 400] + bytes(800) + whole[middle + 400 :])
    with pytest.raises(DataError, match=rf"{url.name} row group \d+: damaged"):
        list(StampStream(opened, PREPROCESSING, 8, 1))
    url.write_bytes(whole[:middle])
    with pytest.raises(Exception, match=url.name):
        open_split(root, "train")


def test_metadata_columns_are_measured_over_the_rows_that_take_part(tmp_path):
    columns = make_columns(40, 1)
    columns["psfdepth_r"] = np.full(40, 24.5)
    write_shards(tmp_path, [columns])
    bound = (("theta_over_psf", 0.9),)
    shards = open_shards([(str(tmp_path), Selection("", bound))], ("psfsize_r", "psfdepth_r"))
    kept = columns["psfsize_r"][columns["theta_over_psf"].astype(np.float32) >= 0.9]
    assert shards.meta_mean == pytest.approx((kept.mean(), 24.5), rel=1e-6)
    assert shards.meta_std == pytest.approx((kept.std(), 1.0), rel=1e-5)


def test_shards_on_s3_are_read_like_local_ones_by_worker_processes(s3_bucket, train):
    root = f"{s3_bucket}/loader"
    write_shards(root, [make_columns(50, i) for i in range(4)], rows_per_group=2)
    remote = open_shards([(root, Selection())])
    found = [
        b.task_ids()
        for b in make_loader(StampStream(remote, PREPROCESSING, 9, 7, epochs=(0, 1), workers=2), 2)
    ]
    expected = [
        b.task_ids()
        for b in make_loader(StampStream(train, PREPROCESSING, 9, 7, epochs=(0, 1), workers=2), 2)
    ]
    assert sorted(t for b in found for t in b) == sorted(t for one in TRAIN_IDS for t in one)
    assert [len(b) for b in found] == [len(b) for b in expected]
