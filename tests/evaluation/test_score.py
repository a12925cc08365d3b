"""Scoring: what is written, with which preprocessing, how it resumes, what it refuses."""

import threading

import numpy as np
import pytest
import torch
from astropy.table import Table
from fabricate import fabricated_columns, fabricated_pixels, write_stamps
from survey_testing import write_brick

from darkhaloscope.dataset import committed_files, content_hash, open_part, read_table
from darkhaloscope.results import SCORES
from darkhaloscope.stage import read_record
from darkhaloscope.survey.bricks import brick_centre, parse_names
from evaluation import score as module
from evaluation import sources
from evaluation.committee import Committee, load_committee
from evaluation.score import main, score
from evaluation.scores import read_scores
from evaluation.sources import stamp_files
from training import checkpoint
from training.data import make_batch
from training.predict import predict

N = 18
torch.set_num_threads(1)  # two threads on a busy two-core machine wait for each other: 30 times slower


def run(finder, packed, out, **more):
    return score(
        load_committee([finder]), stamp_files(packed, "test"), "test", str(out), progress=False, **more
    )


def test_scores_carry_the_rows_columns_and_the_logits_of_predict(finder, packed, tmp_path):
    run(finder, packed, tmp_path)
    model, preprocessing, _ = checkpoint.load_finder_model(finder)
    stamps = read_table(f"{packed}/split=test")
    stamps = stamps.filter(np.asarray(stamps.column("cutout_ok")) == 1)
    with open_part(committed_files(f"{packed}/split=test")[0]) as part:
        stamps = stamps.replace_schema_metadata(part.schema_arrow.metadata)
    expected = predict(model, make_batch(stamps, preprocessing, "test"))
    scores = read_table(str(tmp_path))
    assert scores.schema.equals(SCORES.arrow())
    assert scores.column("task_id").equals(stamps.column("task_id"))
    assert scores.column("arc_snr").equals(stamps.column("arc_snr"))
    np.testing.assert_allclose(scores.column("logit").to_numpy(), expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(expected)) == N - 1


def test_the_record_and_every_file_name_model_and_data(finder, packed, tmp_path):
    record = run(finder, packed, tmp_path)
    assert record == read_record(str(tmp_path))
    assert record["counts"] == {"rows_in": N, "scored": N - 1, "without_stamp": 1}
    assert record["inputs"]["data"] == content_hash(f"{packed}/split=test")
    provenance = read_scores(str(tmp_path)).provenance
    assert provenance["checkpoint"] == record["inputs"]["checkpoint"]
    assert (provenance["arch"], provenance["split"], provenance["d4"]) == ("small_resnet", "test", False)


def test_stage_4c_output_is_scored_by_its_split_column(finder, tmp_path):
    columns = fabricated_columns(20)
    columns["region_split"][:5] = "train"
    columns["cutout_ok"][[0, 8]] = 0
    write_stamps(tmp_path / "stamps", columns, fabricated_pixels(columns), "float32")
    record = run(finder, str(tmp_path / "stamps"), tmp_path / "out")
    assert record["counts"] == {"rows_in": 15, "scored": 14, "without_stamp": 1}


def test_a_run_that_died_continues_and_gives_the_same_scores(finder, packed, tmp_path, monkeypatch):
    run(finder, packed, tmp_path / "whole")
    commits = []

    def dies_at_the_second(*arguments):
        if commits:
            raise KeyboardInterrupt
        commits.append(commit(*arguments))

    commit = module.commit_chunk
    monkeypatch.setattr(module, "commit_chunk", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(finder, packed, tmp_path / "cut")
    monkeypatch.undo()
    first = committed_files(str(tmp_path / "cut"))
    assert len(first) == 1
    run(finder, packed, tmp_path / "cut")
    assert committed_files(str(tmp_path / "cut"))[0] == first[0]
    assert read_table(str(tmp_path / "cut")).equals(read_table(str(tmp_path / "whole")))


def test_the_network_does_not_wait_until_a_file_of_scores_is_committed(finder, packed, tmp_path, monkeypatch):
    batches, second, commit, score_rows = [], threading.Event(), module.commit_chunk, Committee.score

    def scores(*arguments):
        batches.append(1)
        if len(batches) == 2:
            second.set()
        return score_rows(*arguments)

    def commits(*arguments):
        assert second.wait(30), "the next file's rows are scored only after this file's commit"
        return commit(*arguments)

    monkeypatch.setattr(Committee, "score", scores)
    monkeypatch.setattr(module, "commit_chunk", commits)
    assert run(finder, packed, tmp_path)["counts"]["scored"] == N - 1


def test_a_file_without_a_stamp_is_committed_and_counted(finder, tmp_path):
    columns = fabricated_columns(N)
    columns["cutout_ok"][6:12] = 0
    write_stamps(tmp_path / "p" / "split=test", columns, fabricated_pixels(columns), parts=3)
    record = run(finder, str(tmp_path / "p"), tmp_path / "out")
    assert record["counts"] == {"rows_in": N, "scored": N - 6, "without_stamp": 6}
    scored = read_table(str(tmp_path / "out")).column("task_id").to_pylist()
    assert scored == [*columns["task_id"][:6], *columns["task_id"][12:]]


def test_the_output_of_other_options_is_refused_unless_overwritten(finder, packed, tmp_path, capsys):
    arguments = ["--checkpoint", finder, "--data", packed, "--out", str(tmp_path), "--device", "cpu"]
    assert main(arguments) == 0
    assert "scored 17 stamps, 1 rows had none" in capsys.readouterr().out
    assert main([*arguments, "--d4"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--d4", "--overwrite"]) == 0
    assert read_scores(str(tmp_path)).provenance["d4"] is True


def test_stamps_the_network_was_not_made_for_are_refused(finder, tmp_path, capsys):
    columns = fabricated_columns(4)
    write_stamps(tmp_path / "p" / "split=test", columns, fabricated_pixels(columns))
    broken = tmp_path / "pixels"
    pixels = fabricated_pixels(columns)
    pixels[2, 1, 5, 5] = np.nan
    write_stamps(broken / "split=test", columns, pixels)
    cases = [
        (str(tmp_path / "nothing.pt"), str(tmp_path / "p"), "no such checkpoint"),
        (finder, str(tmp_path / "empty"), "no committed chunk"),
        (finder, str(broken), "1 stamps have NaN or infinite pixels"),
    ]
    for path, data, message in cases:
        out = tmp_path / "out" / message[:4]
        assert main(["--checkpoint", path, "--data", data, "--out", str(out), "--device", "cpu"]) == 1
        assert message in capsys.readouterr().err
        assert not list(out.glob("chunk=*/_manifest.json"))


def test_another_normalisation_than_the_checkpoints_is_refused_and_its_own_is_not(
    finder, packed, tmp_path, capsys
):
    arguments = ["--checkpoint", finder, "--data", packed, "--device", "cpu", "--out"]
    assert main([*arguments, str(tmp_path / "a"), "--norm_method", "outer"]) == 1
    assert "norm_method is 'sky_asinh', not 'outer'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert main([*arguments, str(tmp_path / "b"), "--norm_method", "sky_asinh"]) == 0


def test_every_split_of_stamps_that_are_not_packed(finder, tmp_path):
    columns = fabricated_columns(6)
    columns["region_split"][:] = ["train", "val", "test"] * 2
    write_stamps(tmp_path / "stamps", columns, fabricated_pixels(columns))
    source = stamp_files(str(tmp_path / "stamps"), "all")
    counts = score(load_committee([finder]), source, "all", str(tmp_path / "out"), progress=False)["counts"]
    assert counts == {"rows_in": 6, "scored": 6, "without_stamp": 0}


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A brick with coadds and one without, in the survey's layout; (coadds, brick table, positions in each)."""
    root = tmp_path_factory.mktemp("survey")
    names = ["0591m305", "0600m305"]
    write_brick(root, names[0])
    ra, dec = brick_centre(*parse_names(names))
    facts = {
        f"{k}_{b}": np.full(2, v)
        for k, v in (("psfsize", 1.3), ("psfdepth", 24.5), ("nexp", 3))
        for b in "grz"
    }
    table = Table({"brickname": names, "ra": ra, "dec": dec, "ebv": [0.03, 0.03], **facts})
    table.write(root / "bricks.fits")
    return root, str(root / "bricks.fits"), list(zip(ra.tolist(), dec.tolist(), strict=True))


def test_positions_are_scored_or_refused_with_their_reason(finder, survey, tmp_path, capsys, monkeypatch):
    root, bricks, (good, empty) = survey
    rows = [(*empty, "no coadd"), (*good, "one"), (200.0, 80.0, "north"), (good[0], good[1] + 0.005, "two"),
            (good[0], good[1] + 0.005, "again")]  # fmt: skip
    table = tmp_path / "list.csv"
    table.write_text("ra,dec,name\n" + "".join(f"{ra},{dec},{name}\n" for ra, dec, name in rows))
    monkeypatch.setattr(sources, "_PIECE", 2)
    out = tmp_path / "out"
    arguments = ["--checkpoint", finder, "--positions", str(table), "--coadds", str(root), "--bricks", bricks,
                 "--object-type", "random", "--out", str(out), "--device", "cpu"]  # fmt: skip
    assert main(arguments) == 0
    assert "scored 2 stamps, 3 rows had none" in capsys.readouterr().out
    scored = read_table(str(out))
    assert sorted(scored.column("object_name").to_pylist()) == ["one", "two"]
    assert scored.column("label").to_pylist() == [0, 0]
    refused = (out / "refused.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in refused] == ["0", "2", "4"]
    for line, reason in zip(
        refused, ("no image or invvar", "outside the footprint", "duplicate"), strict=True
    ):
        assert reason in line
    assert read_record(str(out))["counts"]["reasons"]
    before = committed_files(str(out))
    assert main(arguments) == 0 and committed_files(str(out)) == before


def test_positions_without_coadds_or_without_a_type_are_refused(finder, survey, tmp_path, capsys):
    table = tmp_path / "list.csv"
    table.write_text(f"ra,dec\n{survey[2][0][0]},{survey[2][0][1]}\n")
    arguments = [
        "--checkpoint",
        finder,
        "--positions",
        str(table),
        "--out",
        str(tmp_path / "o"),
        "--device",
        "cpu",
    ]
    assert main(arguments) == 1
    assert "give --coadds and --bricks too" in capsys.readouterr().err
    assert main([*arguments, "--coadds", str(survey[0]), "--bricks", str(tmp_path / "none.fits")]) == 1
    assert "none.fits" in capsys.readouterr().err
