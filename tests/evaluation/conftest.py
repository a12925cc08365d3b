"""Fixtures of the evaluation tests."""

import shutil

import pytest
from fabricate import (
    drawn_logits,
    fabricated_columns,
    fabricated_pixels,
    write_scores,
    write_stamps,
    write_workspace,
)


@pytest.fixture(scope="session")
def scores_root(tmp_path_factory):
    """A scores dataset of 4,000 rows in 30 sky cells, in two files."""
    root = tmp_path_factory.mktemp("scores")
    for chunk in (0, 1):
        columns = fabricated_columns(2_000, seed=chunk)
        write_scores(root, columns, drawn_logits(columns, chunk), chunk)
    return str(root)


@pytest.fixture(scope="session")
def finder(tmp_path_factory):
    """Path of a checkpoint of a small untrained network."""
    import torch

    from darkhaloscope.experiment import Experiment
    from darkhaloscope.sections import Training
    from training import checkpoint
    from training.models import Finder
    from training.preprocess import Preprocessing

    torch.manual_seed(0)
    experiment = Experiment("t", "v", "id", training=Training(arch="small_resnet"))
    preprocessing = Preprocessing(norm_method="sky_asinh")
    path = tmp_path_factory.mktemp("finder") / "best.pt"
    content = {"model": Finder("small_resnet", preprocessing).state_dict(), "config": experiment.as_dict()}
    rest = {"preprocessing": preprocessing.as_dict(), "data": {}, "progress": {}, "metrics": {}}
    checkpoint.save(path, {**content, **rest, "training_state": {}})
    return str(path)


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """Packed shards of 18 rows in three files; one row has no stamp."""
    root = tmp_path_factory.mktemp("pack")
    columns = fabricated_columns(18)
    columns["cutout_ok"][7] = 0
    write_stamps(root / "split=test", columns, fabricated_pixels(columns), parts=3)
    return str(root)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of a whole workspace."""
    root = tmp_path_factory.mktemp("run")
    write_workspace(root, 120)
    return root


@pytest.fixture(scope="session")
def page(run):
    """Its report, as HTML."""
    from evaluation.report import main

    assert main([str(run)]) == 0
    return (run / "report" / "index.html").read_text()


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the workspace that a test may change."""
    return shutil.copytree(run, tmp_path / "run")
