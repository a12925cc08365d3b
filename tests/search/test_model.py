"""A model is what it was exported as, or is refused by name."""

from pathlib import Path

import numpy as np
import pytest
from tiny_model import expected_logit, experiment_like, write_model

from darkhaloscope.search.model import ModelError, load_model, refuse_disagreement, worker_model


def test_a_model_tells_its_stamps_and_training_and_scores_any_number_of_them(tmp_path):
    model = load_model(write_model(tmp_path / "a.onnx", experiment_like(source="sky"), weight=2.0))
    assert (model.bands, model.size, model.experiment.survey.source) == ("grz", 64, "sky")
    stamps = np.random.default_rng(0).normal(size=(130, 3, 64, 64)).astype(np.float32)
    sky = np.full((130, 3), 0.5, np.float32)
    np.testing.assert_allclose(
        model.logits(stamps, sky), expected_logit(stamps, sky, 2.0), rtol=1e-4, atol=1e-6
    )
    assert model.logits(stamps[:0], sky[:0]).shape == (0,)


def test_a_corrupt_model_another_file_and_none_are_refused_by_name(tmp_path):
    whole = write_model(tmp_path / "a.onnx")
    (tmp_path / "cut.onnx").write_bytes(Path(whole).read_bytes()[:300])
    (tmp_path / "text.onnx").write_text("not a model")
    write_model(tmp_path / "bare.onnx", metadata={})
    write_model(tmp_path / "old.onnx", metadata={"preprocessing": "{}", "config": "{}", "checkpoint": ""})
    for name, why in {
        "cut": "not an ONNX model", "text": "not an ONNX model", "none": "no such model", "bare": "metadata lacks",
        "old": "another version",
    }.items():  # fmt: skip
        with pytest.raises(ModelError, match=rf"{name}\.onnx: .*{why}"):
            load_model(str(tmp_path / f"{name}.onnx"))


def test_stamps_of_another_preprocessing_are_refused(tmp_path):
    model = load_model(write_model(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match=r"shape \(2, 3, 48, 48\)"):
        model.logits(np.zeros((2, 3, 48, 48)), np.ones((2, 3)))
    with pytest.raises(ModelError, match="sky_sigma"):
        model.logits(np.zeros((2, 3, 64, 64)))


def test_models_that_look_at_other_stamps_or_are_the_same_are_not_averaged(tmp_path):
    a, b, small = (
        load_model(write_model(tmp_path / f"{n}.onnx", weight=w, size=s))
        for n, w, s in (("a", 1.0, 64), ("b", 2.0, 64), ("small", 3.0, 48))
    )
    refuse_disagreement([a, b])
    with pytest.raises(ModelError, match="48"):
        refuse_disagreement([a, small])
    with pytest.raises(ModelError, match="twice"):
        refuse_disagreement([a, a])


def test_a_worker_reads_a_model_once_and_notices_another_in_its_place(tmp_path):
    url = write_model(tmp_path / "a.onnx")
    first = load_model(url)
    assert worker_model(url, first.hash) is worker_model(url, first.hash)
    write_model(tmp_path / "a.onnx", weight=5.0)
    worker_model.cache_clear()
    with pytest.raises(ModelError, match="changed while"):
        worker_model(url, first.hash)
