"""The classifiers of the gates: what they learn of a host in one fold is of no use in another."""

import numpy as np

from evaluation.gates import classifiers
from evaluation.gates.classifiers import told_by_cnn, told_by_line

HOSTS, ROWS = 40, 6
HOST = np.repeat(np.arange(HOSTS), ROWS)
LABEL = np.random.default_rng(0).random(HOSTS)[HOST] < 0.5  # all rows of a host are of one class
ONE_SPLIT = np.zeros(len(HOST), int)


def test_a_feature_that_names_the_host_tells_nothing():
    """With a host's rows on both sides of a fold it tells everything."""
    names = np.eye(HOSTS)[HOST]
    told = told_by_line(names, LABEL, HOST, ONE_SPLIT)
    assert abs(told.auc - 0.5) < 0.1
    by_row = told_by_line(names, LABEL, np.arange(len(HOST)), ONE_SPLIT)
    assert by_row.auc > 0.95


def test_the_network_never_sees_a_host_that_it_is_asked_about(monkeypatch):
    seen, asked = [], []
    monkeypatch.setattr(classifiers, "_fit_cnn", lambda pixels, label: seen.append(set(pixels.ravel())))
    monkeypatch.setattr(
        classifiers, "_apply", lambda net, pixels: asked.append(set(pixels.ravel())) or np.zeros(len(pixels))
    )
    told_by_cnn(HOST[:, None, None, None].astype(float), LABEL, HOST, ONE_SPLIT)
    assert len(seen) == classifiers.CNN_FOLDS and set.union(*asked) == set(range(HOSTS))
    assert not any(a & b for a, b in zip(seen, asked, strict=True))
