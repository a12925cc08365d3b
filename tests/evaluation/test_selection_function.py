"""The selection function: shares by cell with N and interval, empty cells empty, and a function for users."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricate import EXPERIMENT, drawn_logits, fabricated_columns, write_record, write_scores

from darkhaloscope.results import SELECTION
from darkhaloscope.stats.intervals import clustered, wilson
from evaluation.completeness import (
    AXES,
    CELLS,
    KEY,
    cell_of,
    cells_table,
    read_selection_function,
    shape_of,
)
from evaluation.section import read_all
from evaluation.selection_function import main

N = 6_000
THRESHOLDS = {"tpr@fpr1e-2": {"threshold": 1.5}, "tpr@fpr1e-3": {"threshold": 2.5}}
PROVENANCE = {"checkpoint": "c" * 16, "data": "d" * 16, "d4": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the run, columns and logits that were scored)."""
    root = tmp_path_factory.mktemp("selection")
    columns = fabricated_columns(N)
    columns["theta_e_arcsec"][:10] = np.nan  # catalogue rows have none
    columns["control_kind"][:10] = "catalogue"
    for name in ("host_id", "mag_r", "psfsize_r", "psfdepth_r"):  # 30 injections a host, and as many controls
        columns[name] = np.repeat(columns[name][::60], 60)
    unlike = (
        np.random.default_rng(1).normal(size=N // 60).astype(np.float32)
    )  # what injections of a host share
    logit = drawn_logits(columns) + np.repeat(unlike, 60)
    write_scores(root / "scores", columns, logit, provenance=PROVENANCE)
    write_record(root / "data", "4c", {}, {})
    write_record(root / "scores", "score", {}, {})
    record = json.loads((root / "scores" / "_stage_config.json").read_text())
    (root / "scores" / "_stage_config.json").write_text(json.dumps(record | {"data": str(root / "data")}))
    metrics = {"scored_with": PROVENANCE, "scores_hash": "ab", "figures": THRESHOLDS, "unresolved": []}
    (root / "metrics.json").write_text(json.dumps(metrics))
    assert run(root, root / "out") == 0
    return root, columns, logit


def run(root, out, metrics="metrics.json", scores="scores"):
    command = ["--scores", str(root / scores), "--metrics", str(root / metrics), "--out", str(out)]
    return main([*command, "--cells", "fine"])


def test_a_cell_holds_the_share_of_its_injections_that_pass_and_n_and_interval(made):
    root, c, logit = made
    table = pq.read_table(root / "out" / "selection_function.parquet")
    assert table.schema.equals(SELECTION.arrow()) and table.num_rows == 2 * np.prod(shape_of(CELLS["fine"]))
    rows = table.to_pylist()
    busy = max((r for r in rows if r["fpr"] == "fpr1e-3"), key=lambda r: r["n"])
    inside = c["control_kind"] == "none"
    for axis in AXES:
        inside &= (c[axis] >= busy[f"{axis}_low"]) & (c[axis] < busy[f"{axis}_high"])
    n, found = inside.sum(), (inside & (logit >= 2.5)).sum()
    assert busy["n"] == n >= 15 and busy["n_found"] == found and busy["threshold"] == 2.5
    hosts, host = np.unique(c["host_id"][inside], return_inverse=True)
    n_h, k_h = np.bincount(host), np.bincount(host[logit[inside] >= 2.5], minlength=len(hosts))
    low, high = map(float, clustered([n, found, len(hosts), n_h @ n_h, n_h @ k_h, k_h @ k_h]))
    assert busy["n_hosts"] == len(hosts) < n and low < wilson(found, n)[0]
    assert (busy["completeness"], busy["ci_low"], busy["ci_high"]) == pytest.approx((found / n, low, high))
    assert sum(r["n"] for r in rows if r["fpr"] == "fpr1e-2") == (c["control_kind"] == "none").sum()
    empty = [r for r in rows if r["n"] == 0]
    assert empty and all(r["completeness"] is None and r["ci_low"] is None for r in empty)


def test_users_get_the_cells_share_and_nan_where_nothing_was_injected(made):
    root, c, logit = made
    found = read_selection_function(str(root / "out" / "selection_function.parquet"), "fpr1e-2")
    value, low, high = found.completeness(
        [1.2, 1.2, 1.2, 9.0, np.nan], [22.5, 22.5, 25.5, 22.5, 22.5], 1.2, 24.5
    )
    assert np.isfinite(value).tolist() == [True, True, False, False, False]
    assert (low[:2] < value[:2]).all() and (value[:2] < high[:2]).all() and np.isnan(high[2:]).all()
    cell = (
        (c["theta_e_arcsec"] >= 1.1)
        & (c["theta_e_arcsec"] < 1.4)
        & (c["src_mag_r"] >= 22)
        & (c["src_mag_r"] < 23)
    )
    cell &= (
        (c["psfsize_r"] >= 1.1)
        & (c["psfsize_r"] < 1.3)
        & (c["psfdepth_r"] >= 24.25)
        & (c["psfdepth_r"] < 24.75)
    )
    cell &= c["control_kind"] == "none"
    assert value[0] == pytest.approx((logit[cell] >= 1.5).mean())
    host = np.unique(c["host_id"][cell], return_inverse=True)[1]
    n_h, k_h = np.bincount(host), np.bincount(host[logit[cell] >= 1.5], minlength=host.max() + 1)
    sums = [cell.sum(), k_h.sum(), len(n_h), n_h @ n_h, n_h @ k_h, k_h @ k_h]
    assert (low[0], high[0]) == pytest.approx(tuple(map(float, clustered(sums)))), (
        "all host magnitudes' cells together"
    )
    bright = cell & (c["mag_r"] < 19)
    by_host = found.completeness(1.2, 22.5, 1.2, 24.5, host_mag=18.5)[0]
    assert by_host.shape == () and by_host == pytest.approx((logit[bright] >= 1.5).mean())
    beyond = found.completeness([2.4, 2.6], 22.5, 1.2, 24.5)[
        0
    ]  # one cell, and nothing above 2.5 was injected
    assert np.isfinite(beyond[0]) and np.isnan(beyond[1]), "nothing is extrapolated"
    with pytest.raises(ValueError, match=r"no cells at 'fpr1e-4'; there are \['fpr1e-2', 'fpr1e-3'\]"):
        read_selection_function(str(root / "out" / "selection_function.parquet"), "fpr1e-4")


def test_four_lenses_counted_by_hand(tmp_path):
    values = {
        "theta_e_arcsec": np.array(
            [1.1, 1.2, 1.74, 1.75]
        ),  # the last one is in the next cell: edges belong to the upper
        "src_mag_r": np.full(4, 23.5),
        "psfsize_r": np.array([1.3, 1.4, 1.3, 1.3]),
        "psfdepth_r": np.array([24.0, 25.0, 24.5, 24.5]),
        "mag_r": np.array([18.0, 21.0, 19.0, 19.0]),
    }
    edges, facts = (
        CELLS["coarse"],
        {"prior": {}, "limits": {a: [float(v.min()), float(v.max())] for a, v in values.items()}},
    )
    logit = np.array([3.0, 1.0, 2.0, 3.0])
    table = cells_table(cell_of(values, edges), np.arange(4), logit, {"fpr1e-2": 2.0}, edges)
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(facts)}), tmp_path / "s.parquet")
    found = read_selection_function(str(tmp_path / "s.parquet"), "fpr1e-2")
    value, low, high = found.completeness(
        [1.1, 1.75, 1.3, 1.0, 1.8], [23.5, 23.5, 23.4, 23.5, 23.5], 1.3, 24.5
    )
    assert value[:2].tolist() == [2 / 3, 1.0], "two of three are at or above the threshold, one of one"
    assert (low[0], high[0]) == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson's interval of 2 in 3
    assert np.isnan(value[2:]).all(), (
        "a source brighter, and lenses smaller and larger, than any that was injected"
    )


def test_the_section_states_prior_threshold_and_counts_and_warns_of_a_partial_source_plane(made):
    section = read_all(str(made[0] / "out"))["selection_function"]
    figures = section["figures"]
    injection = EXPERIMENT.injection
    assert figures["prior"]["max_offset_over_theta_e"] == injection.max_offset_over_theta_e
    assert figures["thresholds"] == {"fpr1e-2": 1.5, "fpr1e-3": 2.5}
    assert figures["counts"]["injections"] == N // 2 - 5
    assert "not over the whole source plane" in section["lead"]
    drawn_from = dict(section["tables"][0]["rows"])
    assert drawn_from["max_offset_over_theta_e"] == injection.max_offset_over_theta_e
    assert len(section["tables"]) == 1 + 2 * len(AXES) and len(section["pictures"]) == 4
    assert all((made[0] / "out" / p["file"]).stat().st_size > 10_000 for p in section["pictures"])


def test_thresholds_of_another_checkpoint_or_averaging_are_refused(made, tmp_path, capsys):
    root = made[0]
    for name, theirs in (("checkpoint", "0" * 16), ("d4", True)):
        metrics = {"scored_with": PROVENANCE | {name: theirs}, "scores_hash": "ab", "figures": THRESHOLDS}
        (root / "other.json").write_text(json.dumps(metrics))
        assert run(root, tmp_path, "other.json") == 1
        assert f"differ in {{'{name}'" in capsys.readouterr().err


def test_scores_without_injections_are_refused(made, tmp_path, capsys):
    columns = fabricated_columns(20, seed=3)
    columns["control_kind"][:] = "unpaired"
    write_scores(tmp_path / "scores", columns, drawn_logits(columns), provenance=PROVENANCE)
    (tmp_path / "metrics.json").write_text((made[0] / "metrics.json").read_text())
    assert run(tmp_path, tmp_path / "out") == 1
    assert "none of the 20 scores is of an injection" in capsys.readouterr().err
