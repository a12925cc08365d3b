"""Scoring: what is written, with which preprocessing, how it resumes, what it refuses."""

import numpy as np
import pytest
import torch
from fabricate import fabricated_columns, fabricated_pixels, write_stamps

from darkhaloscope.dataset import committed_files, content_hash, open_part, read_table
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import SCORES
from darkhaloscope.sections import Training
from darkhaloscope.stage import read_record
from evaluation import score as module
from evaluation.committee import averaged_logits, d4_views
from evaluation.score import main, score
from evaluation.scores import read_scores
from training import checkpoint
from training.data import make_batch
from training.models import Finder
from training.predict import predict
from training.preprocess import Preprocessing

N = 18
torch.set_num_threads(1)  # two threads on a busy two-core machine wait for each other: 30 times slower


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    """Path of a checkpoint of a small untrained network."""
    torch.manual_seed(0)
    experiment = Experiment("t", "v", "id", training=Training(arch="small_resnet"))
    preprocessing = Preprocessing(norm_method="sky_asinh")
    path = tmp_path_factory.mktemp("finder") / "best.pt"
    content = {"model": Finder("small_resnet", preprocessing).state_dict(), "config": experiment.as_dict()}
    rest = {"preprocessing": preprocessing.as_dict(), "data": {}, "progress": {}, "metrics": {}}
    checkpoint.save(path, {**content, **rest, "training_state": {}})
    return str(path)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Packed shards of 18 rows in three files; one row has no stamp."""
    root = tmp_path_factory.mktemp("pack")
    columns = fabricated_columns(N)
    columns["cutout_ok"][7] = 0
    write_stamps(root / "split=test", columns, fabricated_pixels(columns), parts=3)
    return str(root)


def run(finder, packed, out, **more):
    return score([finder], packed, "test", str(out), progress=False, **more)


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


def test_the_eight_views_are_the_symmetries_of_the_square():
    stamp = torch.arange(2 * 9.0).reshape(1, 2, 3, 3)
    views = [v for v in d4_views(stamp)]
    assert len({tuple(v.flatten().tolist()) for v in views}) == 8
    assert any(torch.equal(v, stamp.transpose(-1, -2)) for v in views)
    assert all(torch.equal(v[:, :, 1, 1], stamp[:, :, 1, 1]) for v in views)


def test_averaged_logits_do_not_depend_on_orientation(finder, packed):
    model, preprocessing, _ = checkpoint.load_finder_model(finder)
    with open_part(committed_files(f"{packed}/split=test")[2]) as part:
        batch = make_batch(part.read(), preprocessing, "test")
    turned = batch._replace(stamps=torch.rot90(batch.stamps, 1, (2, 3)).flip(2).contiguous())
    assert np.abs(predict(model, batch) - predict(model, turned)).max() > 1e-4
    np.testing.assert_allclose(averaged_logits(model, batch), averaged_logits(model, turned), atol=1e-5)


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
