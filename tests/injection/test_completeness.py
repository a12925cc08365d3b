import itertools

import numpy as np
import pyarrow as pa
import pytest

from darkhaloscope.injection.completeness import (
    AXES,
    N_BINS,
    N_CELLS,
    NEEDED,
    PAIRS,
    cells_table,
    completeness_table,
    count,
)
from darkhaloscope.records import COMPLETENESS, COMPLETENESS_CELLS, STAMPS
from darkhaloscope.schema import SchemaError

TYPES = {c.name: c.type for c in STAMPS.columns}


def stamps(n=200, seed=0, **replace) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {
        "host_id": rng.integers(0, max(n // 3, 1), n) << 40,
        "is_control": rng.integers(0, 2, n),
        "metrics_ok": rng.integers(0, 2, n),
        "arc_snr": rng.uniform(0, 30, n),
        "theta_e_arcsec": rng.uniform(0.3, 2.5, n),
        "theta_over_fwhm": rng.uniform(0.2, 3, n),
        "src_mag_r": rng.uniform(19, 25, n),
        "psfsize_r": rng.uniform(0.9, 1.7, n),
        "psfdepth_r": rng.uniform(23.5, 25.5, n),
    } | replace
    order = np.argsort(columns["host_id"], kind="stable")  # a host's rows are in one part
    return pa.table({k: pa.array(columns[k]).take(order).cast(TYPES[k]) for k in NEEDED})


def table(rows, threshold=10.0):
    return completeness_table(count(rows, threshold), threshold).to_pylist()


def test_counts_are_those_of_a_plain_loop():
    rows = stamps()
    expected = {}
    for row in rows.to_pylist():
        for axis, edges in AXES.items():
            for low, high in itertools.pairwise(edges):
                for kind in ("all", "clean"):
                    key = (axis, low, high, kind)
                    n, found, hosts = expected.get(key, (0, 0, set()))
                    if (
                        not row["is_control"]
                        and low <= row[axis] < high
                        and (kind == "all" or row["metrics_ok"])
                    ):
                        n, found, hosts = n + 1, found + (row["arc_snr"] >= 10), hosts | {row["host_id"]}
                    expected[key] = (n, found, hosts)
    counts = ("n", "n_detectable", "n_hosts")
    found = {
        tuple(r[k] for k in ("axis", "low", "high", "rows")): tuple(r[k] for k in counts) for r in table(rows)
    }
    assert found == {key: (n, k, len(hosts)) for key, (n, k, hosts) in expected.items()}


def test_counts_of_parts_add_up_to_the_whole():
    rows = stamps(500)
    host = rows.column("host_id").to_numpy()
    ends = [0, *(int(np.searchsorted(host, host[i])) for i in (10, 300)), 500, 500]
    parts = sum(count(rows.slice(a, b - a), 10.0) for a, b in itertools.pairwise(ends))
    np.testing.assert_array_equal(parts, count(rows, 10.0))


@pytest.mark.parametrize("axis", AXES)
def test_every_injection_is_in_one_bin_of_every_axis_whatever_its_value(axis):
    values = np.concatenate([np.array(AXES[axis], float), [-1.0, 1e3, 0.0]])
    rows = stamps(len(values), **{axis: values, "is_control": np.zeros(len(values), int)})
    assert sum(r["n"] for r in table(rows) if r["axis"] == axis and r["rows"] == "all") == len(values)


def test_a_value_on_an_edge_belongs_to_the_upper_bin():
    rows = table(stamps(1, is_control=[0], theta_e_arcsec=[1.1]))
    assert [r["low"] for r in rows if r["axis"] == "theta_e_arcsec" and r["n"] and r["rows"] == "all"] == [
        1.1
    ]


def test_failed_and_masked_injections_count_against_completeness_unless_rows_are_clean():
    rows = stamps(
        4,
        is_control=[0] * 4,
        metrics_ok=[1, 1, 0, 0],
        arc_snr=[20.0, 10.0, None, 0.1],
        theta_e_arcsec=[1.0] * 4,
        host_id=range(4),
    )
    one = {r["rows"]: r for r in table(rows) if r["axis"] == "theta_e_arcsec" and r["low"] == 0.85}
    assert (one["all"]["n"], one["all"]["n_detectable"], one["all"]["completeness"]) == (4, 2, 0.5)
    assert (one["clean"]["n"], one["clean"]["n_detectable"], one["clean"]["completeness"]) == (2, 2, 1.0)
    # Wilson's interval for 2 of 4 (e.g. Brown, Cai & DasGupta 2001)
    np.testing.assert_allclose([one["all"]["ci_low"], one["all"]["ci_high"]], [0.1500, 0.8500], atol=1e-4)


def test_injections_of_one_host_are_not_counted_as_independent():
    facts = {"is_control": [0] * 40, "theta_e_arcsec": [1.0] * 40, "arc_snr": [20.0, 1.0] * 20}
    alone, shared = (
        next(r for r in table(stamps(40, host_id=hosts, **facts)) if r["n"] == 40)
        for hosts in (np.arange(40), np.arange(40) % 4)
    )
    assert (alone["n_hosts"], shared["n_hosts"]) == (40, 4)
    # Wilson's interval of 20 in 40; then hosts on which all or none stands out: 2 in 4.
    np.testing.assert_allclose([alone["ci_low"], alone["ci_high"]], [0.3520, 0.6480], atol=1e-4)
    np.testing.assert_allclose([shared["ci_low"], shared["ci_high"]], [0.1500, 0.8500], atol=1e-4)


def test_empty_bins_are_there_and_say_nothing():
    found = table(stamps(0))
    assert len(found) == 2 * N_BINS == 2 * sum(len(e) - 1 for e in AXES.values())
    assert all(r["n"] == 0 and r["completeness"] is r["ci_low"] is r["ci_high"] is None for r in found)
    assert completeness_table(count(stamps(), 5), 5).schema.equals(COMPLETENESS.arrow())


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_cells_of_two_quantities_are_those_of_a_plain_loop_and_add_up_to_the_bins_of_each(first, second):
    rows = stamps(400)
    found = [r for r in cells_table(count(rows, 10.0), 10.0).to_pylist() if r["axis"] == first]
    assert all(r["axis_2"] == second for r in found)
    for cell in found:
        inside = [
            r
            for r in rows.to_pylist()
            if not r["is_control"] and cell["low"] <= r[first] < cell["high"]
            and cell["low_2"] <= r[second] < cell["high_2"] and (cell["rows"] == "all" or r["metrics_ok"])
        ]  # fmt: skip
        assert cell["n"] == len(inside)
        assert cell["n_detectable"] == sum(r["arc_snr"] >= 10 for r in inside)
    for one in (r for r in table(rows) if r["axis"] == first):
        mine = [r for r in found if r["low"] == one["low"] and r["rows"] == one["rows"]]
        assert sum(r["n"] for r in mine) == one["n"]


def test_empty_cells_are_there_and_say_nothing():
    made = cells_table(count(stamps(0), 5), 5)
    assert made.num_rows == 2 * N_CELLS and made.schema.equals(COMPLETENESS_CELLS.arrow())
    assert all(r["n"] == 0 and r["completeness"] is r["ci_low"] is None for r in made.to_pylist())


def test_a_galaxy_of_a_catalogue_is_no_injection():
    rows = stamps(3, is_control=[0, 0, 1], theta_e_arcsec=[np.nan, 1.0, np.nan])
    assert {
        a: sum(r["n"] for r in table(rows) if r["axis"] == a and r["rows"] == "all") for a in AXES
    } == dict.fromkeys(AXES, 1)


def test_a_missing_column_is_named():
    with pytest.raises(SchemaError, match="arc_snr"):
        count(stamps().drop_columns(["arc_snr"]), 10.0)
