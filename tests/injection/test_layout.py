import numpy as np
import pyarrow as pa
import pytest
from injection_cases import experiment, rows, target_table

from darkhaloscope.injection.grids import AXES, configurations
from darkhaloscope.injection.hosts import injections_per_host
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.records import MANIFEST, TARGETS
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.sections import Injection

PAIRED = {"controls": "paired"}


def sorted_rows(*batches) -> pa.Table:
    return pa.Table.from_batches(batches).sort_by("task_id")


@pytest.mark.parametrize(
    "injection",
    [
        {},
        PAIRED,
        {"replicates": 3},
        {"tier": "grid", "grid": "grid_small"},
        {"tier": "debug", "grid": "grid_small"},
    ],
)
def test_rows_do_not_depend_on_partition_or_order(injection):
    config = experiment(injection=injection)
    targets = target_table(12)
    whole = sorted_rows(lay_out_injections(targets, config))
    backwards = targets.take(pa.array(np.arange(12)[::-1]))
    parts = [lay_out_injections(backwards.slice(a, b), config) for a, b in [(0, 1), (1, 4), (5, 7)]]
    assert sorted_rows(*parts).equals(whole)
    check_schema(MANIFEST, whole.schema, "test")
    control, host = whole["is_control"].to_numpy() == 1, whole["host_id"].to_numpy()
    assert set(host) == set(targets["host_id"].to_pylist())
    each = injections_per_host(config)
    assert all(np.count_nonzero(host[~control] == h) == each for h in set(host[~control]))
    assert all(np.count_nonzero(host[control] == h) == 1 for h in set(host[control]))
    assert len(set(whole["task_id"].to_pylist())) == whole.num_rows


def test_unpaired_controls_and_positives_share_no_host():
    found = rows(
        lay_out_injections(target_table(400), experiment(injection={"replicates": 2, "control_frac": 0.3}))
    )
    control = found["is_control"] == 1
    assert not set(found["host_id"][control]) & set(found["host_id"][~control])
    assert len(set(found["host_id"][control])) == control.sum(), "a control's second row is the same pixels"
    assert 0.22 < control.mean() < 0.38, "the fraction is one of rows"
    assert set(found["control_kind"][control]) == {"unpaired"} and set(found["control_kind"][~control]) == {
        "none"
    }
    assert set(found["partner_task_id"]) == {""}


def test_paired_controls_have_the_host_and_the_virtual_arc_of_their_partner():
    found = rows(lay_out_injections(target_table(50), experiment(injection=PAIRED)))
    index = {t: i for i, t in enumerate(found["task_id"])}
    partner = np.array([index[p] for p in found["partner_task_id"]])
    assert (partner[partner] == np.arange(len(partner))).all()
    assert (found["is_control"] + found["is_control"][partner] == 1).all()
    same = set(MANIFEST.names) - {
        "task_id",
        "partner_task_id",
        "is_control",
        "control_kind",
        "label",
        "sample",
    }
    for name in same:
        np.testing.assert_array_equal(found[name], found[name][partner], name)
    assert (found["is_control"] == (found["control_kind"] == "paired")).all()


@pytest.mark.parametrize("injection", [{}, PAIRED])
def test_controls_carry_a_virtual_injection_with_the_distribution_of_positives(injection):
    config = experiment(injection=injection)
    found = rows(lay_out_injections(target_table(3000), config))
    control = found["is_control"] == 1
    for name in (*AXES, "lens_q", "src_mag_r"):
        assert np.isfinite(found[name]).all()
        if name not in ("src_e", "shear"):
            assert (found[name] > 0).all()
        a, b = found[name][control], found[name][~control]
        error = np.hypot(a.std() / len(a) ** 0.5, b.std() / len(b) ** 0.5)
        assert abs(a.mean() - b.mean()) < 4 * error, name


def test_replicates_of_a_host_differ():
    config = experiment(injection={"replicates": 3, "control_frac": 0.0})
    found = rows(lay_out_injections(target_table(30), config))
    for host in np.unique(found["host_id"]):
        mine = found["host_id"] == host
        assert sorted(found["replicate"][mine]) == [0, 1, 2]
        for name in ("src_x_arcsec", "lens_q", "lens_phi_rad", "src_mag_g"):
            assert len(set(found[name][mine])) == 3


def test_replicates_and_hosts_can_grow_without_changing_earlier_injections():
    few, many = (
        rows(
            lay_out_injections(target_table(n), experiment(injection={"replicates": r, "control_frac": 0.0}))
        )
        for n, r in ((20, 1), (30, 2))
    )
    assert set(few["task_id"]) <= set(many["task_id"])


@pytest.mark.parametrize("tier", ["grid", "debug"])
def test_the_grid_tiers_give_every_host_every_configuration(tier):
    found = rows(
        lay_out_injections(
            target_table(3), experiment(injection={"tier": tier, "grid": "grid_small", "control_frac": 0.0})
        )
    )
    for host in (1, 2, 3):
        assert sorted(found["config_id"][found["host_id"] == host]) == list(range(48))
    grid = configurations(Injection(grid="grid_small"))
    for axis in set(AXES) - {"shear"}:
        np.testing.assert_array_equal(found[axis], grid[axis][found["config_id"]])


def test_the_debug_tier_makes_rings():
    found = rows(
        lay_out_injections(target_table(2), experiment(injection={"tier": "debug", "grid": "grid_small"}))
    )
    assert (found["lens_q"] == 1).all()
    assert not found["src_x_arcsec"].any() and not found["src_y_arcsec"].any() and not found["shear"].any()


def test_the_train_tier_draws_all_configurations_evenly():
    found = rows(lay_out_injections(target_table(4800), experiment(injection={"grid": "grid_small"})))
    counts = np.bincount(found["config_id"], minlength=48)
    assert counts.min() > 60 and counts.max() < 145  # expected 100 each


def test_source_positions_are_uniform_in_area_within_their_circle():
    found = rows(
        lay_out_injections(target_table(4000), experiment(injection={"max_offset_over_theta_e": 0.8}))
    )
    offset = np.hypot(found["src_x_arcsec"], found["src_y_arcsec"]) / found["theta_e_arcsec"]
    assert offset.max() <= 0.8 + 1e-5
    share = np.searchsorted(np.sort(offset), [0.2, 0.4, 0.6]) / len(offset)
    np.testing.assert_allclose(share, np.square([0.25, 0.5, 0.75]), atol=0.03)
    assert abs(found["src_x_arcsec"].mean()) < 0.03 and abs(found["src_y_arcsec"].mean()) < 0.03


def test_source_magnitudes_are_relative_to_the_host_outside_the_galaxy():
    targets = target_table(2000)
    found = rows(lay_out_injections(targets, experiment()))
    host = targets.column("mag_dered_r").to_numpy().astype(float)
    np.testing.assert_allclose(found["src_mag_r"] - found["src_dmag"], host[found["host_id"] - 1], atol=1e-6)
    g_r, r_z = found["src_mag_g"] - found["src_mag_r"], found["src_mag_r"] - found["src_mag_z"]
    assert abs(np.median(g_r) - 0.26) < 0.03 and abs(np.median(r_z) - 0.73) < 0.05
    assert abs(np.corrcoef(g_r, r_z)[0, 1] - 0.29) < 0.07


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 43},
        {"psf": {"moffat_beta": 3.5}},
        {"stamps": {"size": 96}},
        {"stamps": {"poisson_noise": False}},
        {"injection": {"src_n": 2.0}},
        {"injection": {"grid": "grid_small"}},
        {"injection": {"tier": "debug"}},
        {"injection": {"prior": "natural"}},
        {"injection": {"max_offset_over_theta_e": 0.5}},
        {"injection": PAIRED},
    ],
)
def test_task_ids_differ_where_the_stamps_would(other):
    first = rows(lay_out_injections(target_table(6), experiment()))
    second = rows(lay_out_injections(target_table(6), experiment(**other)))
    shared = set(first["task_id"]) & set(second["task_id"])
    if other == {"injection": PAIRED}:  # the injections themselves are the same stamps
        assert shared == set(first["task_id"][first["is_control"] == 0])
    else:
        assert not shared


def test_experiments_that_differ_only_in_the_psf_have_the_same_arcs():
    first = rows(lay_out_injections(target_table(6), experiment()))
    second = rows(lay_out_injections(target_table(6), experiment(psf={"model": "gaussian"})))
    for name in (*AXES, "src_x_arcsec", "src_mag_g", "lens_phi_rad", "is_control"):
        np.testing.assert_array_equal(first[name], second[name])


def test_golden_rows():
    """The draws are frozen: a change of these values changes every published manifest."""
    found = rows(lay_out_injections(target_table(2, first=77), experiment()))
    assert found["config_id"].tolist() == [668, 46]
    assert found["is_control"].tolist() == [1, 0]
    assert found["src_x_arcsec"].tolist() == [-0.469133, 0.06965]
    np.testing.assert_allclose(found["lens_q"], [0.6245621682842947, 0.5471781914020529], rtol=1e-15)
    assert found["task_id"][0] == "7230250a7608626cd101d8c0e46cf2bb"


def test_a_host_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match=r"host_id \[5\]"):
        lay_out_injections(target_table(3, host_id=[5, 6, 5]), experiment())


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="mag_dered_z"):
        lay_out_injections(target_table(3).drop_columns(["mag_dered_z"]), experiment())


def test_an_empty_target_table_gives_an_empty_manifest():
    assert lay_out_injections(target_table(4).slice(0, 0), experiment()).num_rows == 0


def test_a_host_without_a_shape_is_laid_out_like_any_other():
    columns = {n: target_table(6).column(n) for n in TARGETS.names}
    nothing = {n: pa.nulls(6, pa.float32()) for n in ("shape_r", "shape_e1", "shape_e2")}
    bare = to_batch(TARGETS, columns | nothing)
    for prior in ("grid", "natural"):
        assert lay_out_injections(bare, experiment(injection={"prior": prior})).num_rows == 6
