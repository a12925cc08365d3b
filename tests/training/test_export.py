import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from darkhaloscope.search.model import load_model
from training import export as exporting
from training.checkpoint import CheckpointError, load, load_finder_model
from training.export import ExportError, example, export, to_onnx
from training.models import Finder
from training.preprocess import Preprocessing
from training.train import main as train

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained finder with a sky scale and metadata, exported."""
    from tiny_shards import make_columns, write_shards

    root = tmp_path_factory.mktemp("export")
    write_shards(root / "pack/split=train", [make_columns(64, 1)])
    write_shards(root / "pack/split=val", [make_columns(32, 2, split="val")])
    flags = "--arch small_resnet --batch_size 16 --epochs 2 --num_workers 0 --device cpu --precision fp32"
    assert train(["--data", str(root / "pack"), "--out_dir", str(root / "run"), *flags.split(), "--meta_cols",
                  "psfsize_r,psfdepth_r", "--ema_decay", "0.9"]) == 0  # fmt: skip
    export(root / "run/best.pt", root / "out")
    return root


def test_the_graph_takes_nanomaggies_and_gives_the_checkpoints_logits_for_any_number_of_rows(run):
    finder, _, _ = load_finder_model(run / "run/best.pt")
    session = onnxruntime.InferenceSession(run / "out/finder.onnx")
    assert [i.name for i in session.get_inputs()] == ["stamps", "sky_sigma", "meta"]
    model = load_model(str(run / "out/finder.onnx"))  # what a search knows of it
    assert (model.bands, model.size, model.meta_cols) == ("grz", 16, ("psfsize_r", "psfdepth_r"))
    assert model.checkpoint == hashlib.sha256((run / "run/best.pt").read_bytes()).hexdigest()
    assert model.experiment.training.arch == "small_resnet"
    for rows in (1, 2, 33):
        inputs = example(finder, rows, seed=100 + rows)
        (found,) = session.run(None, {k: v.numpy() for k, v in inputs.items()})
        with torch.no_grad():
            expected = finder(**inputs).numpy()
        assert found.shape == (rows,)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)
    brighter = {k: v.numpy() * (3 if k == "stamps" else 1) for k, v in inputs.items()}
    assert not np.allclose(session.run(None, brighter)[0], found), "the scale is the sky's, not the stamp's"


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny", "efficientnetv2_s", "small_resnet"])
@pytest.mark.parametrize("method", ["full", "outer", "sky_asinh"])
def test_every_network_and_normalisation_can_be_exported(tmp_path, arch, method):
    torch.manual_seed(0)
    assert to_onnx(settled(Finder(arch, Preprocessing(method, clip=10.0))), tmp_path / "f.onnx") < 1e-3


def settled(finder):
    """A network whose layers are normalised as after training: one that never saw data makes of a pixel's last bit
    another logit altogether (EfficientNet)."""
    for layer in finder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean over all batches
    finder.train()
    with torch.no_grad():
        for seed in range(3):
            finder(**example(finder, 16, seed))
    return finder


def test_the_median_of_an_annulus_is_in_the_graph(tmp_path):
    how = Preprocessing("outer", clip=10.0, size=16)
    assert to_onnx(Finder("small_resnet", how), tmp_path / "finder.onnx") < 1e-3


def test_a_graph_with_other_logits_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_difference", lambda *given: 0.5)
    with pytest.raises(ExportError, match=r"differ.*0\.5"):
        to_onnx(Finder("small_resnet", Preprocessing(size=16)), tmp_path / "finder.onnx")
    assert not list(tmp_path.iterdir())


def test_state_dict_and_safetensors_hold_the_scored_weights_and_open_without_running_code(run):
    scored = load(run / "run/best.pt")["model"]
    plain = torch.load(run / "out/finder.pt", weights_only=True)
    with safe_open(run / "out/finder.safetensors", "pt") as file:
        assert json.loads(file.metadata()["preprocessing"])["meta_cols"] == ["psfsize_r", "psfdepth_r"]
        safe = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    for name, value in scored.items():
        assert torch.equal(plain[name], value)
        assert torch.equal(safe[name], value)


def test_the_card_says_what_the_runs_files_say(run):
    card = (run / "out/README.md").read_text()
    content = load(run / "run/best.pt")
    assert content["data"]["train"]["content_hash"] in card
    assert f"{content['metrics']['auroc']:.4f}" in card
    assert f"{content['metrics']['auroc_low']:.4f} to {content['metrics']['auroc_high']:.4f}" in card
    assert "16 positives and 16 negatives" in card
    assert "unresolved" in card
    assert f"{json.loads((run / 'run/config.json').read_text())['parameters']:,} parameters" in card
    assert hashlib.sha256((run / "out/finder.onnx").read_bytes()).hexdigest() in card
    assert "| lr | " in card
    assert "Test: no figures were given" in card


def test_no_checkpoint_no_export(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        export(tmp_path / "none.pt", tmp_path / "out")
    assert exporting.main([str(tmp_path / "none.pt"), "--out", str(tmp_path / "out")]) == 1
