import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_shards import SIZE, make_columns, write_shards

from training.data import StampStream
from training.hard_negatives import read_hard_negatives
from training.mixture import Mixture
from training.preprocess import Preprocessing
from training.selection import DataError
from training.shards import open_split


@pytest.fixture
def columns() -> dict:
    """40 stamps, even rows controls; row 1 is an arc on the galaxy of row 0."""
    made = make_columns(40, 1)
    for name in ("host_id", "ra", "dec"):
        made[name][1] = made[name][0]
    return made


def opened(tmp_path, columns: dict, listed: dict, **how):
    write_shards(tmp_path / "split=train", [columns])
    pq.write_table(pa.table(listed), tmp_path / "hard.parquet")
    hard = read_hard_negatives(str(tmp_path / "hard.parquet"))
    return open_split(str(tmp_path), "train", hard_negatives=hard, **how)


@pytest.mark.parametrize("by", ["position", "host_id", "task_id"])
def test_negatives_are_found_by_id_or_position_and_an_arc_on_the_same_galaxy_stays_a_positive(
    tmp_path, columns, by
):
    rows, elsewhere = [0, 4, 6], 2
    listed = {
        # the seed's: rounded to six decimals, and a galaxy twice
        "position": {"ra_key": [*np.round(columns["ra"][[*rows, 0]], 6), 10.0],
                     "dec_key": [*np.round(columns["dec"][[*rows, 0]], 6), 0.0]},
        "host_id": {"host_id": [*columns["host_id"][rows], -5]},
        "task_id": {"task_id": [*(columns["task_id"][i] for i in rows), "0" * 32]},
    }[by]  # fmt: skip
    shards = opened(tmp_path, columns, listed)
    assert shards.facts()["hard_negatives"] == {"entries": 4, "matched": 3, "unmatched": 1, "rows": 3}
    assert shards.facts()["samples"]["hard_negative"] == 3
    weights = (1.0, 1.0, 1.0, 5.0, 1.0)
    shown = [
        t
        for b in StampStream(shards, Preprocessing(size=SIZE), 8, 1, mixture=Mixture(weights))
        for t in b.task_ids()
    ]
    assert [shown.count(columns["task_id"][i]) for i in (*rows, 1, elsewhere)] == [5, 5, 5, 1, 1]


def test_a_position_half_an_arcsecond_away_is_the_same_galaxy_and_one_arcsecond_is_not(tmp_path, columns):
    dec = columns["dec"][[2, 4]] + np.array([0.4, 1.0]) / 3600
    shards = opened(tmp_path, columns, {"ra": columns["ra"][[2, 4]], "dec": dec})
    assert shards.matches.entry.tolist().count(True) == 1


def test_none_found_says_how_far_away_the_nearest_stamp_is(tmp_path, columns):
    listed = {"ra_key": [columns["ra"][2]], "dec_key": [columns["dec"][2] + 0.01], "region_split": ["val"]}
    with pytest.raises(
        DataError, match=r"none of 1 hard.*nearest stamp is 36\.0 arcsec away; .*region_split val"
    ):
        opened(tmp_path, columns, listed)


def test_none_found_says_that_they_are_positives_or_left_out(tmp_path, columns):
    columns["theta_over_psf"] = np.where(np.arange(40) == 2, 0.1, 1.0)
    listed = {"task_id": [columns["task_id"][i] for i in (2, 3)]}
    with pytest.raises(DataError, match=r"1 stamps of these galaxies are positives.*1 are left out"):
        opened(tmp_path, columns, listed, minimum=(("theta_over_psf", 0.5),))


@pytest.mark.parametrize(
    "listed", [{"name": ["x"]}, {"ra_key": pa.array([], pa.float64()), "dec_key": pa.array([], pa.float64())}]
)
def test_a_list_without_rows_or_keys_says_what_it_needs(tmp_path, columns, listed):
    with pytest.raises(DataError, match="needs rows, and task_id, host_id, ra_key"):
        opened(tmp_path, columns, listed)
