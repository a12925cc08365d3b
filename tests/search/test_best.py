"""Rows that may end among the best are never missed, and few others are kept."""

import numpy as np
import pytest

from darkhaloscope.search.best import Best


def kept(logits, most, chunk):
    """Which rows keep their pixels, (n,) bool, where a chunk of two tasks learns from the chunks before."""
    best, found = Best(most), []
    for first in range(0, len(logits), chunk):
        own = []
        for task in np.array_split(logits[first : first + chunk], 2):
            mine = Best(most, best.floor).with_rows(task)
            found.append(task >= mine.floor)
            own.append(mine.logits)
        best = best.with_rows(np.concatenate(own))
    return np.concatenate(found), best


@pytest.mark.parametrize("chunk", [3, 50, 10_000])
def test_the_best_rows_of_the_whole_are_kept_whatever_its_chunks(chunk):
    logits = np.random.default_rng(1).normal(size=10_000).astype(np.float32)
    logits[::7] = np.nan
    keep, best = kept(logits, 20, chunk)
    wanted = np.sort(logits[np.isfinite(logits)])[-20:]
    np.testing.assert_array_equal(best.logits, wanted)
    assert keep[np.isin(logits, wanted)].all() and not keep[np.isnan(logits)].any()


def test_of_many_rows_few_are_kept_and_of_fewer_than_wanted_all():
    logits = np.random.default_rng(2).normal(size=100_000).astype(np.float32)
    keep, _ = kept(logits, 20, 100)
    assert keep.sum() < 20 * (1 + np.log(len(logits) / 20)) * 1.5 + 100
    keep, _ = kept(np.sort(logits[:15])[::-1], 20, 5)  # each lower than those before
    assert keep.all()
