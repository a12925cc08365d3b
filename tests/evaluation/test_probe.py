"""Realism probe: what it finds in features of known kind, and on real cutouts."""

import json

import numpy as np
import pytest
import torch
from gate_cases import SIZE, make_pixels, make_rows, write_checkpoint, write_pack

from darkhaloscope.dataset import committed_files, open_part
from evaluation.gates.classifiers import Told
from evaluation.probe import main, matched, probe
from evaluation.section import read_all
from evaluation.seen import Seen
from training.batch import make_batch
from training.checkpoint import load_finder_model
from training.predict import predict

torch.set_num_threads(1)


def test_a_probe_tells_features_that_differ_and_none_that_do_not():
    rng = np.random.default_rng(0)
    real, injected = rng.normal(size=(2, 100, 24))
    told, null = probe(Seen(real, real[:, :4]), Seen(injected, injected[:, :4]))
    assert abs(told.auc - 0.5) < 2.5 * told.error
    assert abs(null.null - 0.5) < 0.03
    injected = injected + 0.5
    told, null = probe(Seen(real, real[:, :4]), Seen(injected, injected[:, :4]))
    assert told.auc > 0.8
    assert told.auc > null.null + 5 * null.error


def test_a_real_lens_and_its_match_are_on_one_side_of_every_fold_and_no_two_lenses_are_tied(monkeypatch):
    asked = []

    def told(features, label, group, split):
        asked.append((label, group))
        return Told(0.5, 0.5, 0.1, np.zeros(len(label)))

    monkeypatch.setattr("evaluation.probe.told_by_line", told)
    real, injected = np.random.default_rng(0).normal(size=(2, 30, 24))
    probe(Seen(real, real[:, :4]), Seen(injected, injected[:, :4]))
    (label, group), (_, alone) = asked
    np.testing.assert_array_equal(group[label], group[~label])
    assert len(np.unique(group[label])) == len(np.unique(alone)) == 30


def test_each_real_lens_gets_the_most_alike_host_and_none_is_used_twice():
    injected = np.array([[0.0, 0], [1, 0], [2, 0], [9, 9]])
    assert matched(np.array([[1.9, 0.0], [2.1, 0], [0.1, 0]]), injected).tolist() == [2, 1, 0]
    with pytest.raises(RuntimeError, match="4 injections for 5 real lenses"):
        matched(np.zeros((5, 2)), injected)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pack of 60 rows and a checkpoint of a small untrained network."""
    root, columns = tmp_path_factory.mktemp("probe"), make_rows(120)
    write_pack(root / "pack", columns, make_pixels(columns))
    write_checkpoint(root / "c.pt")
    return root


def run(place, real, out):
    return main(["--data", str(place / "pack"), "--checkpoint", str(place / "c.pt"), "--real", str(real), "--out",
                 str(out), "--split", "train", "--device", "cpu"])  # fmt: skip


def test_features_are_what_the_last_layer_sees(place):
    model, preprocessing, _ = load_finder_model(place / "c.pt")
    url = committed_files(str(place / "pack/split=test"))[0]
    with open_part(url) as part:
        batch = make_batch(part.read(), preprocessing, url)
    with torch.inference_mode():
        features = model.features(batch.stamps, batch.sky_sigma, batch.meta)
        np.testing.assert_allclose(model.head(features)[:, 0], predict(model, batch), atol=1e-5)


def test_a_folder_of_cutouts_gives_a_section_that_says_it_is_too_few(place, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        np.savez(tmp_path / f"{i}.npz", cutout=rng.normal(0.1, 0.01, (SIZE + 7, SIZE + 7, 3)))
    assert run(place, tmp_path, tmp_path / "out") == 0
    section = read_all(str(tmp_path / "out"))["probe"]
    figures = section["figures"]
    assert (figures["verdict"], figures["n_real"]) == ("unresolved", 12)
    assert "Unresolved: that takes 50 real lenses" in section["lead"]
    assert figures["auc"] > 0.8, "squares of noise are no injections"
    assert figures["null"] == pytest.approx(0.5, abs=0.15)
    assert section["made_from"]["real"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "neither .npz files nor a committed dataset"),
        ({"cutout": np.zeros((SIZE - 2, SIZE, 3))}, "at least 24 pixels"),
        ({"cutout": np.full((SIZE, SIZE, 3), np.nan)}, "NaN"),
        ({"image": np.zeros(3)}, "expected 'cutout'"),
    ],
)
def test_cutouts_that_are_none_are_refused_by_name(content, said, place, tmp_path, capsys):
    if content:
        np.savez(tmp_path / "a.npz", **content)
    assert run(place, tmp_path, tmp_path / "out") == 1
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two packs of the same kind of injections, one of which says that they are real lenses; one, noisier."""
    root = tmp_path_factory.mktemp("real")

    def real(columns):
        return columns | {
            "sample": np.where(columns["label"] == 1, "real_positive", columns["sample"]).astype(object)
        }

    for name, seed, change, noise in (("pack", 0, dict, 1), ("alike", 1, real, 1), ("noisier", 1, real, 4)):
        columns = make_rows(480 if name == "pack" else 160, seed)
        write_pack(root / name, columns, make_pixels(columns, seed, noise=noise), change)
    write_checkpoint(root / "c.pt")
    return root


@pytest.mark.parametrize(("real", "told"), [("alike", False), ("noisier", True)])
def test_real_lenses_come_as_rows_of_a_stamps_dataset(datasets, tmp_path, real, told):
    """All splits of theirs, and none of its controls."""
    assert run(datasets, datasets / real, tmp_path) == 0
    figures = read_all(str(tmp_path))["probe"]["figures"]
    assert (figures["n_real"], figures["verdict"]) == (80, "reported")
    assert figures["null"] == pytest.approx(0.5, abs=0.05)
    assert (figures["auc"] > 0.5 + 3 * figures["error"]) == told, figures


def test_a_dataset_without_real_lenses_is_refused(datasets, tmp_path, capsys):
    assert run(datasets, datasets / "pack", tmp_path) == 1
    assert "no row of the sample real_positive" in capsys.readouterr().err


@pytest.mark.real
def test_three_real_candidates_are_unresolved(place, real_data, tmp_path):
    assert run(place, real_data / "real" / "dr10_lens_candidates", tmp_path) == 0
    figures = json.loads((tmp_path / "probe.json").read_text())["figures"]
    assert figures == {"n_real": 3, "auc": None, "error": None, "null": None, "null_error": None,
                       "verdict": "unresolved"}  # fmt: skip
