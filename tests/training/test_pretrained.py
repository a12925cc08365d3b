import pickle

import pytest
import torch
from safetensors.torch import save_file

from training.checkpoint import CheckpointError
from training.models import Finder
from training.preprocess import Preprocessing
from training.pretrained import start_from


@pytest.fixture
def donor() -> Finder:
    torch.manual_seed(5)
    return Finder("small_resnet", Preprocessing())


def fresh() -> Finder:
    torch.manual_seed(6)
    return Finder("small_resnet", Preprocessing())


@pytest.mark.parametrize("name", ["whole.safetensors", "whole.pt", "backbone.pt", "nested.pt"])
def test_weights_are_taken_by_name_from_every_kind_of_file(tmp_path, donor, name):
    state, path = donor.state_dict(), tmp_path / name
    if name == "whole.safetensors":
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    elif name == "backbone.pt":
        torch.save(donor.backbone.state_dict(), path)
    else:
        torch.save(state if name == "whole.pt" else {"state_dict": state}, path)
    model = fresh()
    found = start_from(model, path)
    same = {k for k, v in model.state_dict().items() if torch.equal(v, state[k])}
    assert same >= {k for k in state if k.startswith("backbone")}
    assert found["missing"] == (["head.bias", "head.weight"] if name == "backbone.pt" else [])
    assert len(found["sha256"]) == 64


def test_what_does_not_fit_is_listed_and_left_as_it_was(tmp_path, donor):
    state = donor.state_dict()
    state["backbone.0.weight"] = torch.zeros(8, 3, 3, 3)
    del state["head.bias"]
    torch.save({**state, "backbone.99.weight": torch.zeros(1)}, tmp_path / "odd.pt")
    model = fresh()
    before = model.backbone[0].weight.clone()
    found = start_from(model, tmp_path / "odd.pt")
    assert (found["other_shape"], found["missing"], found["extra"]) == (
        ["backbone.0.weight"], ["head.bias"], ["backbone.99.weight"],
    )  # fmt: skip
    assert "1 of another shape (backbone.0.weight)" in found["summary"]
    assert torch.equal(model.backbone[0].weight, before)


def test_a_file_that_fits_nothing_or_could_run_code_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(print, protocol=2))
    (tmp_path / "torn.safetensors").write_bytes(b"\x00" * 20)
    torch.save([1, 2], tmp_path / "list.pt")
    refusals = {
        "other.pt": r"no tensor of it fits 'small_resnet'.*conv1.weight",
        "evil.pt": "could run code",
        "torn.safetensors": "not a readable safetensors",
        "list.pt": "found list",
        "none.pt": "no such checkpoint",
    }
    for name, message in refusals.items():
        with pytest.raises(CheckpointError, match=f"{name}: .*{message}"):
            start_from(fresh(), tmp_path / name)
