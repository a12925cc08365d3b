import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricate import fabricated_columns, score_columns

from darkhaloscope.dataset import commit_chunk, read_table, write_part
from darkhaloscope.results import HARD_NEGATIVES, SCORES
from darkhaloscope.schema import check_schema, to_batch
from evaluation.mine import main
from evaluation.scores import PROVENANCE
from training.hard_negatives import read_hard_negatives

N = 60


def write_scores(root, logit, change=None, **provenance) -> str:
    """Write scores of 60 stamps, every second a negative, at 60 places 36 arcsec apart."""
    columns = fabricated_columns(N, split="train")
    columns |= {"ra": np.full(N, 150.0), "dec": np.arange(N) * 0.01}
    if change:
        change(columns)
    told = {"checkpoint": "0123456789abcdef", "arch": root.name, "mined_negatives": 0, **provenance}
    metadata = {PROVENANCE: json.dumps({k: v for k, v in told.items() if v is not None})}
    part = write_part(
        str(root), 0, 0, [to_batch(SCORES, score_columns(columns, logit), metadata)], SCORES.arrow(metadata)
    )
    commit_chunk(str(root), 0, [part])
    return str(root)


@pytest.fixture
def lenses(tmp_path) -> str:
    """Known lenses at the place of row 59, 9 arcsec off, and 11 arcsec from row 57's."""
    path = tmp_path / "lenses.csv"
    path.write_text(f"name,ra,dec\na,150.0,{0.59 + 9 / 3600}\nb,150.0,{0.57 - 11 / 3600}\n")
    return str(path)


def mined(tmp_path, lenses, scores: list[str], *flags: str):
    """Run the command; return its exit status and the table."""
    out = str(tmp_path / "hard")
    status = main(["--scores", *scores, "--known-lenses", lenses, "--out", out, *flags])
    return status, (read_table(out) if status == 0 else None)


def test_the_highest_negatives_of_each_model_are_merged_by_position_with_known_lenses_guarded(
    tmp_path, lenses, capsys
):
    up, down = np.arange(N, dtype=float), -np.arange(N, dtype=float)
    a, b = write_scores(tmp_path / "a", up), write_scores(tmp_path / "b", down)
    status, table = mined(tmp_path, lenses, [a, b], "--top", "3")
    assert status == 0
    check_schema(HARD_NEGATIVES, table.schema, "hard")
    # odd rows are controls; 59 is guarded; a takes 57, 55, 53 and b takes 1, 3, 5
    assert sorted(np.round(table.column("dec_key").to_numpy() * 100).astype(int)) == [1, 3, 5, 53, 55, 57]
    assert table.column("rank").to_pylist() == [0, 0, 1, 1, 2, 2]
    assert table.column("source_models").to_pylist()[:2] == [["a"], ["b"]]
    assert (
        "6 hard negatives of [3, 3] candidates; [1, 1] lay within 10 arcsec of one of 2"
        in capsys.readouterr().out
    )
    assert len(read_hard_negatives(str(tmp_path / "hard"))) == 6


def test_a_galaxy_that_two_models_choose_is_one_row_with_both(tmp_path, lenses):
    def shift(columns):
        columns["dec"] = columns["dec"] + 0.5 / 3600
        columns["task_id"] = columns["task_id"][::-1]

    a = write_scores(tmp_path / "a", np.arange(N, dtype=float))
    b = write_scores(tmp_path / "b", 2.0 * np.arange(N), shift)
    _, table = mined(tmp_path, lenses, [a, b], "--top", "2")
    assert table.column("source_models").to_pylist() == [["a", "b"], ["a", "b"]]
    assert table.column("source_logits").to_pylist() == [[57.0, 114.0], [55.0, 110.0]]
    assert table.column("ra_key").to_pylist() == [150.0, 150.0]
    assert table.column("dec_key").to_pylist() == [0.57, 0.55]


def test_replicates_of_a_galaxy_count_once(tmp_path, lenses):
    def repeat(columns):
        columns["dec"][:] = 0.3 + np.arange(N) // 20 * 0.01

    _, table = mined(
        tmp_path, lenses, [write_scores(tmp_path / "a", np.arange(N, dtype=float), repeat)], "--top", "20"
    )
    assert sorted(np.round(table.column("dec").to_numpy(), 6)) == [0.3, 0.31, 0.32]


def test_negatives_beside_a_real_lens_among_the_scores_are_guarded_too(tmp_path, lenses):
    def real(columns):
        columns["sample"][0] = "real_positive"
        columns["dec"][0] = columns["dec"][55]

    _, table = mined(
        tmp_path, lenses, [write_scores(tmp_path / "a", np.arange(N, dtype=float), real)], "--top", "2"
    )
    assert table.column("dec_key").to_pylist() == [0.57, 0.53]


@pytest.mark.parametrize(
    ("mined_before", "says"), [(7, "trained with 7 mined negatives"), (None, "do not say")]
)
def test_a_second_round_is_refused_unless_forced(tmp_path, lenses, capsys, mined_before, says):
    scores = write_scores(tmp_path / "a", np.arange(N, dtype=float), mined_negatives=mined_before)
    assert mined(tmp_path, lenses, [scores])[0] == 1
    assert says in capsys.readouterr().err
    assert mined(tmp_path, lenses, [scores], "--force")[0] == 0


def test_a_bound_that_leaves_nothing_is_an_error_and_writes_nothing(tmp_path, lenses, capsys):
    scores = write_scores(tmp_path / "a", np.full(N, -3.0))
    assert mined(tmp_path, lenses, [scores], "--min-probability", "0.9")[0] == 1
    assert "no negative is left" in capsys.readouterr().err
    assert not (tmp_path / "hard").exists()


def test_an_earlier_table_is_not_overwritten(tmp_path, lenses, capsys):
    scores = write_scores(tmp_path / "a", np.arange(N, dtype=float))
    assert [mined(tmp_path, lenses, [scores])[0] for _ in range(2)] == [0, 1]
    assert "holds a committed table" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "says"), [
    ("name,x\na,1\n", "expected ra and dec"), ("ra,dec\n10:20:30,-5\n", "not numbers"),
    ("ra,dec\n10,95\n", "out of range"), ("", "not a readable"),
])  # fmt: skip
def test_known_lenses_that_are_not_positions_in_degrees_are_refused(tmp_path, capsys, content, says):
    (tmp_path / "bad.csv").write_text(content)
    scores = write_scores(tmp_path / "a", np.arange(N, dtype=float))
    assert mined(tmp_path, str(tmp_path / "bad.csv"), [scores])[0] == 1
    assert says in capsys.readouterr().err


def test_known_lenses_may_be_parquet(tmp_path):
    pq.write_table(pa.table({"RA": [150.0], "DEC": [0.59]}), tmp_path / "lenses.parquet")
    scores = write_scores(tmp_path / "a", np.arange(N, dtype=float))
    assert mined(tmp_path, str(tmp_path / "lenses.parquet"), [scores], "--top", "1")[1].column(
        "dec_key"
    ).to_pylist() == [0.57]
