"""Which hosts are taken: exact, however the targets are divided, equal over cells, matched in magnitude."""

import itertools

import numpy as np
import pytest
from injection_cases import experiment, target_table

from darkhaloscope.injection.balance import auc_of
from darkhaloscope.injection.hosts import host_ranks, hosts_wanted, is_control_host
from darkhaloscope.injection.manifest_task import total_magnitude
from darkhaloscope.injection.selection import columns_of, fill_equally, group_of, select
from darkhaloscope.records import SPLITS


def targets(n, seed=3):
    rng = np.random.default_rng(seed)
    seeing, depth = rng.normal(1.25, 0.15, n), rng.normal(24.6, 0.4, n)
    return target_table(n, mag_r=rng.normal(19.5, 0.8, n), psfsize_r=seeing, psfdepth_r=depth)


def scan_of(table, pieces):
    edges = np.linspace(0, table.num_rows, pieces + 1).astype(int)
    return lambda function: [function(table.slice(a, b - a)) for a, b in itertools.pairwise(edges)]


def chosen(table, config, pieces=1):
    selection = select(scan_of(table, pieces), config, total_magnitude)
    return selection, selection.takes(columns_of(table))


@pytest.mark.parametrize("wanted", [0, 1, 17, 400, 10_000])
def test_the_hosts_of_lowest_rank_are_taken_of_each_split(wanted):
    table = targets(3_000)
    split = np.array(table.column("region_split").to_pylist())
    split[::10] = ""  # the guard
    table = table.set_column(table.schema.get_field_index("region_split"), "region_split", split)
    config = experiment(injection={"n_total_per_split": wanted})
    _, taken = chosen(table, config, pieces=7)
    rank = host_ranks(table.column("host_id").to_numpy(), config.seed)
    for name in SPLITS:
        lowest = np.sort(rank[split == name])[:wanted]
        np.testing.assert_array_equal(np.sort(rank[taken & (split == name)]), lowest)
    assert not taken[split == ""].any()


@pytest.mark.parametrize("injection", [{}, {"balance": "seeing_depth"}, {"match_total_magnitude": True}])
def test_the_choice_is_the_same_however_the_targets_are_divided_and_ordered(injection):
    table, config = targets(1_500), experiment(injection={"n_total_per_split": 150} | injection)
    first, taken = chosen(table, config)
    order = np.random.default_rng(0).permutation(1_500)
    second, other = chosen(table.take(order), config, pieces=5)
    np.testing.assert_array_equal(taken[order], other)
    assert first.report() == second.report()


def test_more_rows_keep_the_hosts_there_are():
    table = targets(2_000)
    few, many = (chosen(table, experiment(injection={"n_total_per_split": n}))[1] for n in (50, 90))
    assert many[few].all() and many.sum() == 3 * 90


def test_a_balanced_selection_fills_cells_of_seeing_and_depth_equally_as_far_as_they_go():
    table, config = (
        targets(9_000),
        experiment(injection={"n_total_per_split": 900, "balance": "seeing_depth"}),
    )
    selection, taken = chosen(table, config, pieces=4)
    assert [int(taken[group_of(columns_of(table), config) // 25 == s].sum()) for s in range(3)] == [900] * 3
    available, got = (selection.counts[n].reshape(3, 25) for n in ("available", "taken"))
    np.testing.assert_array_equal(
        np.bincount(group_of(columns_of(table), config)[taken], minlength=75), got.ravel()
    )
    for there, some in zip(available, got, strict=True):
        level = some.max()
        assert (some[there >= level] >= level - 1).all() and (
            some[there < level - 1] == there[there < level - 1]
        ).all()
    plain = np.bincount(
        group_of(columns_of(table), config)[
            chosen(table, experiment(injection={"n_total_per_split": 900}))[1]
        ],
        minlength=75,
    )
    assert got.reshape(3, 25).std() < 0.8 * plain.reshape(3, 25).std()


@pytest.mark.parametrize(
    ("available", "wanted", "expected"),
    [
        ([5, 1, 9], 9, [4, 1, 4]),
        ([5, 1, 9], 10, [5, 1, 4]),
        ([2, 2], 9, [2, 2]),
        ([0, 3], 0, [0, 0]),
        ([7, 0], 3, [3, 0]),
    ],
)
def test_cells_are_filled_equally(available, wanted, expected):
    assert fill_equally(np.array(available), wanted).tolist() == expected


def test_matched_controls_are_as_bright_as_host_and_arc():
    table = targets(6_000)
    plain, matched = (
        experiment(injection={"n_total_per_split": 300, "prior": "grid", "match_total_magnitude": m})
        for m in (False, True)
    )
    selection, taken = chosen(table, matched, pieces=3)
    _, unmatched = chosen(table, plain)
    control = is_control_host(table.column("host_id").to_numpy(), matched)
    np.testing.assert_array_equal(taken & ~control, unmatched & ~control)  # the positives stay
    _, total = total_magnitude(table.filter(taken & ~control), matched)
    magnitude = table.column("mag_r").to_numpy()
    edges = np.arange(14, 24.01, 0.1)
    auc = [
        auc_of(np.histogram(total, edges)[0], np.histogram(magnitude[some & control], edges)[0])
        for some in (unmatched, taken)
    ]
    assert auc[0] < 0.35 and abs(auc[1] - 0.5) < 0.03
    reported = selection.report()["total_magnitude_auc"]
    assert reported["unmatched"] == pytest.approx(auc[0], abs=0.01)
    assert reported["matched"] == pytest.approx(auc[1], abs=0.01)
    assert abs((taken & control).sum() / (unmatched & control).sum() - 1) < 0.05


def test_hosts_wanted_holds_at_the_ends_of_the_control_fraction():
    for fraction in (0.0, 1.0):
        config = experiment(injection={"n_total_per_split": 60, "control_frac": fraction, "replicates": 3})
        assert hosts_wanted(config) == (20 if fraction == 0 else 60)
        assert is_control_host(np.arange(500), config).mean() == fraction
