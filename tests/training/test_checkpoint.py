import errno
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_shards import SIZE, make_columns

from darkhaloscope.experiment import Experiment
from darkhaloscope.records import STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Training
from training import checkpoint
from training.checkpoint import CheckpointError, load, load_finder_model, save
from training.data import make_batch
from training.models import Finder
from training.predict import predict
from training.preprocess import Preprocessing

CONFIG = Experiment("test", "v", "id", training=Training(arch="small_resnet", dropout=0.1))


def content(model: Finder) -> dict:
    return {
        "model": model.state_dict(),
        "preprocessing": model.preprocessing.as_dict(),
        "config": CONFIG.as_dict(),
        "data": {},
        "progress": {"epoch": 1},
        "metrics": {},
        "training_state": {},
    }


@pytest.fixture
def model() -> Finder:
    torch.manual_seed(3)
    return Finder("small_resnet", Preprocessing("outer", size=SIZE), 0.1).eval()


def test_a_loaded_finder_gives_the_same_logits(tmp_path, model):
    save(tmp_path / "a.pt", content(model))
    loaded, preprocessing, config = load_finder_model(tmp_path / "a.pt")
    assert (preprocessing, config) == (model.preprocessing, CONFIG)
    batch = make_batch(
        to_batch(STAMPS, make_columns(8, 1), stamp_metadata("float32", SIZE)), preprocessing, "here"
    )
    expected, found = predict(model, batch), predict(loaded, batch)
    assert found.dtype == np.float32
    assert (found == expected).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_predict_refuses_training_mode_and_names_rows_without_a_finite_logit(model):
    batch = make_batch(
        to_batch(STAMPS, make_columns(4, 1), stamp_metadata("float32", SIZE)), model.preprocessing, "here"
    )
    with pytest.raises(ValueError, match=r"model.eval\(\)"):
        predict(model.train(), batch)
    broken = batch._replace(stamps=batch.stamps.index_fill(0, torch.tensor([2]), torch.nan))
    with pytest.raises(FloatingPointError, match=f"1 logits.*{batch.task_ids()[2]}"):
        predict(model.eval(), broken)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path(Bomb.target),))


def test_loading_runs_no_code_from_the_file(tmp_path, model):
    Bomb.target = str(tmp_path / "exploded")
    torch.save(content(model) | {"format": 1, "metrics": Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    for name in ("bomb.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="could run code"):
            load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, model, monkeypatch):
    save(tmp_path / "last.pt", content(model))
    before = (tmp_path / "last.pt").read_bytes()

    def full(content, sink):
        sink.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*still stands"):
        save(tmp_path / "last.pt", content(model))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, model):
    save(tmp_path / "good.pt", content(model))
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "other_text.pt").write_text("i am none either")  # a first letter that unpickling knows
    (tmp_path / "empty.pt").touch()
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    torch.save(content(model) | {"format": 99}, tmp_path / "format.pt")
    for name in ("cut", "text", "other_text", "empty", "other", "format", "absent"):
        with pytest.raises(CheckpointError, match=f"{name}.pt: "):
            load(tmp_path / f"{name}.pt")


def test_a_checkpoint_of_another_network_or_preprocessing_is_refused(tmp_path, model):
    wrong = content(model)
    del wrong["model"]["head.bias"]
    wrong["model"]["head.weight"] = torch.zeros(1, 7)
    save(tmp_path / "weights.pt", wrong)
    with pytest.raises(CheckpointError, match=r"do not fit 'small_resnet': 2 of \d+ tensors.*head"):
        load_finder_model(tmp_path / "weights.pt")
    save(
        tmp_path / "version.pt",
        content(model) | {"preprocessing": model.preprocessing.as_dict() | {"version": 0}},
    )
    with pytest.raises(CheckpointError, match=r"version.pt: preprocessing of version 0"):
        load_finder_model(tmp_path / "version.pt")
    config = CONFIG.as_dict()
    config["training"]["arch"] = "vit"
    save(tmp_path / "arch.pt", content(model) | {"config": config})
    with pytest.raises(CheckpointError, match=r"arch.pt: training.arch = 'vit'"):
        load_finder_model(tmp_path / "arch.pt")
