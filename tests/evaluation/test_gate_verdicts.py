"""What a gate's figure says: areas within blocks, their errors, and when there are too few stamps to say."""

import numpy as np
import pytest

from evaluation.gates.classifiers import told_apart
from evaluation.gates.verdict import auc_verdict, block_auc, difference_gate


def test_few_stamps_are_unresolved_and_never_a_pass():
    rng = np.random.default_rng(0)
    small, large = (np.arange(n) % 2 == 0 for n in (40, 6_000))
    for label, expected in ((small, "unresolved"), (large, "pass")):
        values, block = rng.normal(size=len(label)), np.zeros(len(label))
        area, error = block_auc(values[:, None], label[:, None], block)
        assert auc_verdict(area[0], 0.5, error[0]) == expected
        gate = difference_gate("x", "data", "?", values, label, block)
        assert gate.verdict == expected and ("times as many stamps" in gate.note) == (
            expected == "unresolved"
        )
        assert difference_gate("x", "data", "?", values + 0.2 * label, label, block).verdict != "pass"
        own = difference_gate("x", "data", "?", np.where(label, 1.2, 1.3), label, block)
        assert (own.verdict, own.value) == ("fail", None), "one value for each class"
        assert difference_gate("x", "data", "?", np.full(len(label), 1.3), label, block).verdict == "pass"
    assert auc_verdict(0.55, 0.5, 0.01) == "fail"
    assert auc_verdict(0.5 + 2.3 * 0.01, 0.5, 0.01) == "unresolved", "one of seven may be there by chance"
    assert auc_verdict(float("nan"), 0.5, float("nan")) == "unresolved"


def test_the_area_within_blocks_is_scikit_learn_s_and_blocks_lend_it_nothing():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    label, score = rng.random(300) < 0.3, np.round(rng.normal(size=300), 1)
    area, error = block_auc(score[:, None], label[:, None], np.zeros(300))
    assert area[0] == pytest.approx(roc_auc_score(label, score))
    m, n = label.sum(), (~label).sum()
    assert error[0] == pytest.approx(np.sqrt((m + n + 1) / (12 * m * n)))
    block = rng.integers(0, 2, 4_000)
    label = rng.random(4_000) < np.where(block, 0.8, 0.2)
    told, _ = block_auc(block[:, None].astype(float), label[:, None], block)
    assert told[0] == 0.5, "a score that knows the split alone"


def test_the_error_of_a_cross_validated_area_is_that_of_clean_data_drawn_again():
    rng = np.random.default_rng(2)
    label, host, split = np.arange(240) % 2 == 0, np.arange(240), np.zeros(240, int)
    told = [told_apart(rng.normal(size=(240, 4)), label, host, split) for _ in range(40)]
    scatter = np.std([t.auc for t in told])
    assert np.mean([t.error for t in told]) == pytest.approx(scatter, rel=0.35)
    assert scatter > 1.15 * np.sqrt(241 / (12 * 120**2)), "more than that of independent rows"
