"""The networks of one scoring: eight orientations, calibrations, ensembles, and what does not belong together."""

import numpy as np
import pytest
import torch

from darkhaloscope.dataset import committed_files, open_part, read_table
from darkhaloscope.stats.calibration import Temperature
from evaluation.calibrate import Calibration, CalibrationError, write_calibration
from evaluation.calibration import Isotonic
from evaluation.committee import averaged_logits, d4_views, load_committee
from evaluation.score import main, score
from evaluation.scores import read_scores
from evaluation.sources import stamp_files
from training import checkpoint
from training.data import make_batch
from training.models import Finder
from training.predict import predict
from training.preprocess import Preprocessing

STAMPS = 17  # with pixels, of the 18 rows of `packed`
torch.set_num_threads(1)  # two threads on a busy two-core machine wait for each other: 30 times slower


def scored(finder, packed, out):
    score(load_committee([finder]), stamp_files(packed, "test"), "test", str(out), progress=False)


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


@pytest.fixture(scope="module")
def second(finder, tmp_path_factory):
    """Path of a checkpoint of a network with other weights."""
    content = checkpoint.load(finder)
    torch.manual_seed(1)
    content["model"] = Finder("small_resnet", Preprocessing(norm_method="sky_asinh")).state_dict()
    path = tmp_path_factory.mktemp("second") / "best.pt"
    checkpoint.save(path, {k: v for k, v in content.items() if k != "format"})
    return str(path)


def calibrated(folder, path, temperature, bias, d4=False):
    """Store a calibration of a checkpoint (or of the committee of several); return its URL."""
    hash_ = path if isinstance(path, str) and len(path) == 16 else load_committee([path]).hash
    made = Calibration(Temperature(temperature, bias), Isotonic((0.0, 1.0), (0.0, 1.0)), 0.5, 10, 10,
                       {"checkpoint": hash_, "d4": d4, "split": "val"}, "s" * 16)  # fmt: skip
    url = str(folder / f"{hash_}-{temperature}.json")
    write_calibration(url, made)
    return url


def test_a_calibration_fills_the_probability_and_leaves_the_logit(finder, packed, tmp_path):
    scored(finder, packed, tmp_path / "raw")
    committee = load_committee([finder], [calibrated(tmp_path, finder, 0.5, -1.0)])
    score(committee, stamp_files(packed, "test"), "test", str(tmp_path / "fit"), progress=False)
    raw, fit = (read_table(str(tmp_path / name)) for name in ("raw", "fit"))
    assert raw.column("probability").null_count == raw.column("logit_spread").null_count == STAMPS
    logit = fit.column("logit").to_numpy()
    np.testing.assert_array_equal(logit, raw.column("logit").to_numpy())
    np.testing.assert_allclose(
        fit.column("probability").to_numpy(), 1 / (1 + np.exp(1 - logit / 0.5)), rtol=1e-6
    )


def test_an_ensemble_is_the_mean_of_calibrated_logits_with_its_spread(finder, second, packed, tmp_path):
    fits = [calibrated(tmp_path, finder, 0.5, -1.0), calibrated(tmp_path, second, 2.0, 3.0)]
    single = []
    for i, path in enumerate((finder, second)):
        scored(path, packed, tmp_path / f"{i}")
        single.append(read_table(str(tmp_path / f"{i}")).column("logit").to_numpy().astype(float))
    committee = load_committee([finder, second], fits[::-1])
    score(committee, stamp_files(packed, "test"), "test", str(tmp_path / "both"), progress=False)
    both = read_table(str(tmp_path / "both"))
    a, b = single[0] / 0.5 - 1, single[1] / 2 + 3
    np.testing.assert_allclose(both.column("logit").to_numpy(), (a + b) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both.column("logit_spread").to_numpy(), np.abs(a - b) / np.sqrt(2), rtol=1e-4)
    np.testing.assert_allclose(
        both.column("probability").to_numpy(), 1 / (1 + np.exp(-(a + b) / 2)), rtol=1e-5
    )
    assert committee.hash == load_committee([second, finder], fits).hash
    assert committee.hash not in (m.hash for m in committee.members)
    assert read_scores(str(tmp_path / "both")).provenance["members"] == [m.hash for m in committee.members]
    again = load_committee([finder, second], [*fits, calibrated(tmp_path, committee.hash, 3.0, 0.0)])
    assert again.calibration.temperature == Temperature(3.0, 0.0)  # fitted to the ensemble's own logits


def test_calibrations_that_do_not_belong_to_the_networks_are_refused(
    finder, second, packed, tmp_path, capsys
):
    own, other = calibrated(tmp_path, finder, 0.5, 0.0), calibrated(tmp_path, second, 2.0, 0.0)
    with pytest.raises(CalibrationError, match="no calibration of it was given"):
        load_committee([finder, second], [own])
    with pytest.raises(CalibrationError, match="of one model's logits only"):
        load_committee([finder], [other])
    with pytest.raises(CalibrationError, match="with d4 True"):
        load_committee([finder], [own], d4=True)
    arguments = [
        "--checkpoint",
        finder,
        second,
        "--data",
        packed,
        "--out",
        str(tmp_path / "o"),
        "--device",
        "cpu",
    ]
    assert main(arguments) == 1
    assert "an ensemble averages calibrated logits" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
