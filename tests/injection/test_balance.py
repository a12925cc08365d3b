"""How classes differ: against known answers, and the same however the rows are counted."""

import numpy as np
import pyarrow as pa
import pytest
from injection_cases import experiment, target_table
from scipy import stats
from sklearn.metrics import roc_auc_score

from darkhaloscope.injection.balance import AXES, Tally, add_tallies, balance_table
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.manifest_task import tallies_of
from darkhaloscope.injection.total_light import total_magnitude_r


def drawn(n=4_000, shift=0.1):
    rng = np.random.default_rng(5)
    positive = rng.integers(0, 2, n)
    return rng.normal(1.3, 0.15, n) + shift * positive, rng.integers(0, 3, n), positive


def test_effect_sizes_agree_with_their_definitions():
    values, split, positive = drawn()
    row = balance_table({"psfsize_r": Tally.of("psfsize_r", values, split, positive)})[0]
    a, b = values[positive == 1], values[positive == 0]
    pooled = np.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2))
    assert (row["positives"], row["controls"], row["split"]) == (len(a), len(b), "all")
    assert row["cohens_d"] == pytest.approx((a.mean() - b.mean()) / pooled, rel=1e-3)
    assert row["auc"] == pytest.approx(roc_auc_score(positive, values), abs=2e-3)
    assert row["ks"] == pytest.approx(stats.ks_2samp(a, b).statistic, abs=0.02)


def test_standard_errors_are_those_of_repeated_draws():
    found = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        positive = np.repeat([0, 1], 150)
        values = rng.normal(1.3, 0.15, 300) + 0.05 * positive
        found.append(balance_table({"psfsize_r": Tally.of("psfsize_r", values, positive * 0, positive)})[0])
    for name in ("cohens_d", "auc"):
        spread = np.std([row[name] for row in found])
        assert np.mean([row[f"{name}_se"] for row in found]) == pytest.approx(spread, rel=0.15)


def test_parts_add_up_and_survive_json():
    values, split, positive = drawn()
    whole = {"psfsize_r": Tally.of("psfsize_r", values, split, positive)}
    parts = []
    for part in np.array_split(np.arange(len(values)), 5):
        tally = Tally.of("psfsize_r", values[part], split[part], positive[part])
        parts.append({"psfsize_r": Tally.from_json(tally.as_json())})
    first, second = balance_table(whole), balance_table(add_tallies(parts))
    for a, b in zip(first, second, strict=True):
        assert a == pytest.approx(b, abs=2e-6)


def test_an_empty_class_has_no_effect_and_a_constant_none():
    values, split, positive = drawn()
    row = balance_table({"ebv": Tally.of("ebv", values * 0 + 0.05, split, positive)})[0]
    assert (row["cohens_d"], row["auc"], row["ks"]) == (0.0, 0.5, 0.0)
    none = balance_table({"ebv": Tally.of("ebv", values, split, positive * 0)})[0]
    assert none["positives"] == 0 and none["cohens_d"] is None and none["auc"] is None


def test_a_host_counts_once_a_class_whatever_its_rows():
    once, often = (
        tallies_of(pa.Table.from_batches([lay_out_injections(target_table(80), config)]), config.seed, 1.0)
        for config in (
            experiment(injection={"control_frac": 0.0}),
            experiment(injection={"control_frac": 0.0, "replicates": 4}),
        )
    )
    for axis in set(AXES) - {"total_mag_r"}:
        np.testing.assert_array_equal(once[axis].counts, often[axis].counts)


def test_paired_classes_do_not_differ_in_anything_but_the_arcs_light():
    config = experiment(injection={"controls": "paired"})
    table = pa.Table.from_batches([lay_out_injections(target_table(300), config)])
    found = {r["quantity"]: r for r in balance_table(tallies_of(table, 1, 1.0)) if r["split"] == "all"}
    assert all(
        found[a]["auc"] == pytest.approx(0.5) and found[a]["cohens_d"] == 0
        for a in set(AXES) - {"total_mag_r"}
    )
    assert found["total_mag_r"]["auc"] < 0.4


def test_arcs_only_add_light():
    table = lay_out_injections(target_table(200), experiment())
    columns = {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.schema.names}
    brighter = columns["mag_r"] - total_magnitude_r(columns)
    assert (brighter > 0).all()
    faint = total_magnitude_r(columns | {"src_mag_r": columns["src_mag_r"] + 10})
    np.testing.assert_allclose(faint, columns["mag_r"], atol=5e-3)
