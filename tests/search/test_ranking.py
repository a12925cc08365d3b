"""Each galaxy is there once, in the order of its score, with the rates of its own score."""

import numpy as np
import pytest
from fabricated import candidates

from darkhaloscope.search.ranking import merge, rank
from darkhaloscope.search.reference import Member, Reference, thinned
from darkhaloscope.stats.calibration import Temperature

ARCSEC = 1 / 3600


def test_rows_of_one_galaxy_become_one_with_the_best_score_and_are_counted():
    ra, dec = [10.0, 10.0, 20.0, 0.0, 360 - 0.3 * ARCSEC], [0.0, 0.8 * ARCSEC, 5.0, 0.0, 0.0]
    merged = merge(candidates(ra, dec, [1.0, 2.0, np.nan, 0.5, np.nan]), {2: 3})
    assert merged.column("host_id").to_pylist() == [1, 2, 3]
    assert merged.column("merged").to_pylist() == [1, 3, 1]


def test_ranks_follow_the_score_and_refused_rows_come_last_without_one():
    ranked = rank(candidates([1, 2, 3, 4], [0] * 4, [0.5, np.nan, 2.0, 0.5]), None, 1e-3, 0.0, None)
    assert ranked.column("host_id").to_pylist() == [2, 0, 3, 1]
    assert ranked.column("rank").to_pylist() == [1, 2, 3, None]
    assert ranked.column("refused").to_pylist()[-1] == "no data"
    for name in ("fpr", "probability", "false_per_sqdeg", "known_arcsec"):
        assert ranked.column(name).null_count == 4


def test_expected_false_positives_are_the_rate_times_the_density_of_targets():
    logit, above = thinned(np.arange(100.0))
    reference = Reference((Member("a" * 16),), "s", logit, above, 100, 5, Temperature(1.0, 0.0))
    ranked = rank(candidates([1, 2, 3], [0] * 3, [95.0, 50.0, np.nan]), reference, 0.01, 0.5, None)
    assert ranked.column("fpr").to_pylist() == [0.05, 0.5, None]
    assert ranked.column("false_per_sqdeg").to_pylist() == [
        pytest.approx(0.05 * 4),
        pytest.approx(0.5 * 4),
        None,
    ]
    high = ranked.column("fpr_high").to_pylist()
    assert high[0] > 0.05 and ranked.column("false_per_sqdeg_high").to_pylist()[0] == pytest.approx(
        4 * high[0]
    )
    assert ranked.column("prevalence").to_pylist() == [0.01, 0.01, None]
    # a list of positions has no area
    assert (
        rank(candidates([1], [0], [9.0]), reference, 0.01, 0.0, None).column("false_per_sqdeg").null_count
        == 1
    )
