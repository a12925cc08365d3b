"""Shortcut gates: each kind of planted shortcut fails its gate, clean data pass, too few stamps are unresolved."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gate_cases import GATED, SIZE, make_pixels, make_rows, write_checkpoint, write_pack

from darkhaloscope.records import NO_SOURCE
from evaluation.gates import looks
from evaluation.gates import rows as rows_module
from evaluation.gates.__main__ import FAILED, exit_status, main
from evaluation.gates.classifiers import Told, told_apart, told_by_cnn
from evaluation.gates.data import (
    annulus_gates,
    conditions,
    data_gates,
    duplicate_gates,
    light_gates,
    normalisation_gates,
)  # fmt: skip
from evaluation.gates.measure import measure
from evaluation.gates.rows import read_rows
from evaluation.gates.verdict import Gate, auc_verdict
from evaluation.section import read_all
from training.checkpoint import load_finder_model
from training.selection import DataError

N = 900
torch.set_num_threads(1)  # two threads on a busy two-core machine wait for each other


@pytest.fixture(scope="module")
def finders(tmp_path_factory):
    """Untrained networks by their normalisation, with the path of their checkpoint."""
    folder = tmp_path_factory.mktemp("finders")
    paths = {m: write_checkpoint(folder / f"{m}.pt", m) for m in ("sky_asinh", "full", "outer")}
    return {m: (load_finder_model(path)[0], path) for m, path in paths.items()}


def same(columns):
    return columns


def measured(root, model, change=same, rows=same, **planted):
    """Rows and measurements of a data set whose columns were changed before the pixels were made, or after."""
    columns = rows(make_rows(N))
    pack = write_pack(root, columns, make_pixels(columns, **planted), change)
    found = read_rows(pack, GATED, 20_000)
    return found, measure(found, model, "test", 0, progress=False)


def verdicts(gates):
    return {g.name: g.verdict for g in gates}


@pytest.fixture(scope="module")
def clean(finders, tmp_path_factory):
    """Rows and measurements of data without a shortcut, and the data's place."""
    root = tmp_path_factory.mktemp("clean")
    return *measured(root, finders["sky_asinh"][0]), str(root)


def test_clean_data_pass_every_classifier_and_fail_no_gate(clean):
    gates = data_gates(*clean[:2])
    found = verdicts(gates)
    assert [n for n, v in found.items() if v == "fail"] == []
    without_arc = {n: v for n, v in found.items() if n.startswith("without arc")}
    assert len(without_arc) == 7
    assert set(without_arc.values()) == {"pass"}
    light = {g.name: g.value for g in gates if g.verdict == "reported"}
    assert light["with arc: core"] > 0.8, "the arc itself is light in the core"
    assert light["with arc: core, drawn on controls"] == pytest.approx(light["with arc: core"], abs=0.05)


def test_light_of_arcs_is_compared_with_the_prior_on_controls_and_with_real_lenses(clean):
    """Where something else makes positives brighter, or real lenses are brighter, the figures part."""
    rows, found, _ = clean
    brighter = {n: v * np.where(found.label, 1.3, 1.0)[:, None] for n, v in found.with_arc.items()}
    real = np.full((12, 3, SIZE, SIZE), 9.0, np.float32)
    host, split = rows.columns["host_id"][found.row], np.zeros(len(found.label), int)
    moved = replace(found, with_arc=brighter)
    light = {g.name: g for look in looks.WITH_ARC for g in light_gates(look, moved, host, split, real)}
    own, drawn = (light[f"with arc: total flux{end}"].value for end in ("", ", drawn on controls"))
    assert own > drawn + 0.05
    assert light["with arc: core, real lenses"].value > 0.99
    assert light["with arc: core, real lenses"].n["positives"] == 12


def test_a_real_lens_is_a_host_of_its_own_whatever_ids_the_controls_have(clean, monkeypatch):
    _, found, _ = clean
    host = -1 - np.arange(len(found.label)) // 2  # as rows of a catalogue: ids below 0; two rows share one
    asked = []

    def told(features, label, group, split):
        asked.append((label, group))
        return Told(0.5, 0.5, 0.1, np.zeros(len(label)))

    monkeypatch.setattr("evaluation.gates.data.told_apart", told)
    light_gates("core", found, host, 0 * host, np.ones((12, 3, SIZE, SIZE), np.float32))
    label, group = asked[-1]
    assert label.sum() == 12 == len(np.unique(group[label]))
    assert not np.isin(group[label], group[~label]).any()
    controls = host[~found.label]
    assert ((group[~label][:, None] == group[~label]) == (controls[:, None] == controls)).all()


@pytest.mark.parametrize("name", [c for names in looks.CONDITIONS.values() for c in names])
def test_a_condition_that_goes_with_the_class_fails_its_gate_alone(clean, name):
    _, found, _ = clean
    values = np.random.default_rng(0).normal(size=len(found.label)) + 0.5 * found.label
    moved = replace(found, condition=found.condition | {name: values})
    gates = conditions(moved, np.zeros(len(found.label), int))
    assert [g.name.split(": ")[1] for g in gates if g.verdict == "fail"] == [name]


@pytest.mark.parametrize("what", ["centre", "scale"])
def test_a_sky_that_goes_with_the_class_fails_its_gate(clean, what):
    _, found, _ = clean
    name = f"annulus {what} r"
    moved = found.level[name] + 0.5 * found.level[name].std() * found.label
    gates = annulus_gates(replace(found, level=found.level | {name: moved}), np.zeros(len(found.label), int))
    assert [g.name for g in gates if g.verdict == "fail"] == [name]


def brighter_seeing(columns):
    """Positives in better seeing, in the columns and in the pixels."""
    better = 0.12 * (columns["label"] == 1)
    return columns | {n: columns[n] - better for n in columns if n.startswith(("psfsize_", "fwhm_"))}


def leaking_null(columns):
    """A column that is null in every second positive."""
    hidden = (columns["label"] == 1) & (np.arange(N) % 4 == 0)
    return columns | {"padded_fraction": np.where(hidden, np.nan, columns["padded_fraction"])}


@pytest.mark.parametrize(
    ("plant", "caught_by"),
    [
        ({"core": 1.15}, {"without arc: core"}),
        (
            {"noise": 1.2},
            {f"without arc: {look}" for look in ("border", "annulus", "MAD", "moments")},
        ),
        ({"rows": brighter_seeing}, {"without arc: metadata", "seeing: psfsize_r"}),
        ({"change": leaking_null}, {"without arc: metadata"}),
    ],
    ids=["brighter cores", "class-dependent noise", "class-dependent seeing", "a null that leaks"],
)
def test_a_planted_shortcut_is_caught(plant, caught_by, finders, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.gates.classifiers.CNN_EPOCHS", 0)
    monkeypatch.setattr("evaluation.gates.classifiers.EXCHANGES", 60)
    found = verdicts(data_gates(*measured(tmp_path, finders["sky_asinh"][0], **plant)))
    assert {name for name in caught_by if found[name] != "fail"} == set()


def test_a_type_that_one_class_has_more_often_is_caught(clean):
    rows, found, _ = clean
    host, columns = rows.columns["host_id"][found.row], found.look["metadata"].copy()
    given = (columns == columns.astype(bool)).all(axis=0) & (columns.std(axis=0) > 0.2)  # 0 or 1, and both
    assert given.sum() >= 3
    columns[:, np.flatnonzero(given)[-1]] *= found.label | (np.arange(len(host)) % 2 == 0)
    told = told_apart(columns, found.label, host, np.zeros(len(host), int))
    assert auc_verdict(told.auc, told.null, told.error) == "fail"


def test_the_tiny_network_sees_a_pattern_that_no_number_of_the_others_does(clean):
    rows, found, _ = clean
    stripes = 0.7 * (-1.0) ** np.arange(SIZE // 2)
    pixels = (found.pixels + stripes * found.label[:, None, None, None]).astype(np.float16)
    told = told_by_cnn(
        pixels, found.label, rows.columns["host_id"][found.row], np.zeros(len(found.label), int)
    )
    assert told.auc > 0.5 + 2 * told.error


def test_hosts_positions_and_sources_in_two_splits_are_caught(finders, tmp_path):
    def twice(columns):
        for name in ("host_id", "ra", "dec", "source_id"):
            columns[name] = columns[name].copy()
        test, train = (np.flatnonzero(columns["region_split"] == s) for s in ("test", "train"))
        columns["host_id"][test[0]] = columns["host_id"][train[0]]
        columns["ra"][test[1]], columns["dec"][test[1]] = (
            columns["ra"][train[1]],
            columns["dec"][train[1]] + 1e-4,
        )
        columns["task_id"][test[2]] = columns["task_id"][train[2]]
        return columns

    columns = make_rows(60)
    rows = read_rows(write_pack(tmp_path, columns, make_pixels(columns), twice), GATED, 100)
    found = {g.name: (g.verdict, g.value) for g in duplicate_gates(rows)}
    assert found["duplicates: host_id"] == ("fail", 1)
    assert found["duplicates: position"] == ("fail", 1)
    assert found["duplicates: task_id"] == ("fail", 1)
    assert found["duplicates: source"] == ("unresolved", 0), "no image of a source was used"
    rows.columns["source_id"][:] = 7
    assert verdicts(duplicate_gates(rows))["duplicates: source"] == "fail"


def test_full_normalisation_fails_and_the_sky_s_own_noise_does_not(finders, tmp_path):
    def wide(columns):
        bright = {f"src_mag_{b}": columns[f"src_mag_{b}"] - 1 for b in "grz"}
        return columns | bright | {"theta_e_arcsec": columns["theta_e_arcsec"] * 2}

    columns = wide(make_rows(400))
    pack = write_pack(tmp_path, columns, make_pixels(columns))
    rows, found = read_rows(pack, GATED, 20_000), {}
    for method in ("full", "sky_asinh"):
        seen = measure(rows, finders[method][0], "test", 0, progress=False)
        found[method] = verdicts(normalisation_gates(rows, seen, method))
    assert "fail" in found["full"].values()
    assert "fail" not in found["sky_asinh"].values()


@pytest.mark.parametrize(("plant", "what"), [({"pedestal": 0.5}, "centre"), ({"noise": 1.15}, "scale")])
def test_a_normalisation_whose_centre_or_scale_gives_the_class_away_fails_its_gate(
    plant, what, finders, tmp_path
):
    columns = make_rows(400)
    rows = read_rows(write_pack(tmp_path, columns, make_pixels(columns, **plant)), GATED, 400)
    seen = measure(rows, finders["outer"][0], "test", 0, progress=False)
    found = verdicts(normalisation_gates(rows, seen, "outer"))
    failed = {name for name, verdict in found.items() if verdict == "fail"}
    # In stamps of 24 pixels the annulus holds host light, which scatters more than that of the sky but in z.
    assert failed == {f"normalisation {what} z"}


def test_replicates_count_once_and_pairs_stay_together(finders, tmp_path):
    def repeats(columns):
        host = columns["host_id"].copy()
        host[::4], host[1::4] = host[2::4], host[2::4]  # two positives and a control of one galaxy
        for name in ("region_split", "ra", "dec"):
            columns[name] = columns[name].copy()
            columns[name][::4], columns[name][1::4] = columns[name][2::4], columns[name][2::4]
        return columns | {"host_id": host}

    columns = make_rows(400)
    rows = read_rows(write_pack(tmp_path, columns, make_pixels(columns), repeats), GATED, 1_000)
    host, positive = rows.columns["host_id"][rows.chosen], rows.columns["label"][rows.chosen] == 1
    assert len(host) == 300
    assert len(np.unique(host[positive])) == positive.sum()
    assert len(np.unique(host[~positive])) == (~positive).sum()
    assert len(np.intersect1d(host[positive], host[~positive])) == 100


def test_rows_that_the_network_is_not_trained_on_and_rows_of_a_catalogue_take_no_part(tmp_path):
    def some(columns):
        kind = np.where(np.arange(400) % 10 < 2, NO_SOURCE, columns["source_kind"]).astype(object)
        return columns | {"source_kind": kind, "cutout_ok": (np.arange(400) % 10 < 8).astype(np.int8)}

    columns = make_rows(400)
    pack = write_pack(tmp_path, columns, make_pixels(columns), some)
    every = read_rows(pack, GATED, 1_000)
    assert every.chosen.sum() == 240
    bounded = read_rows(pack, replace(GATED, training=replace(GATED.training, min_arc_snr=20.0)), 1_000)
    bright = bounded.columns["task_id"][bounded.chosen]
    snr = dict(zip(columns["task_id"], columns["arc_snr"], strict=True))
    assert 60 < len(bright) < 200 and min(snr[i] for i in bright) >= 20
    assert "as the network was trained on" in bounded.how[0]


def test_controls_matched_in_total_magnitude_are_compared_at_equal_host_magnitude(tmp_path):
    rng = np.random.default_rng(0)
    positive = np.arange(4_000) % 2 == 0
    columns = {
        "label": positive.astype(int), "mag_r": np.where(positive, 19.3, 19.0) + rng.normal(0, 0.4, 4_000),
        "kept": np.ones(4_000, bool), "source_kind": np.full(4_000, "sersic"), "host_id": np.arange(4_000),
        "split": np.full(4_000, "test"), "task_id": np.array([f"{i:04d}" for i in rng.permutation(4_000)]),
    }  # fmt: skip
    made_by = replace(GATED, injection=replace(GATED.injection, match_total_magnitude=True))
    chosen, how = rows_module._choose(columns, made_by, 10_000)
    means = [columns["mag_r"][chosen & c].mean() for c in (positive, ~positive)]
    assert abs(means[0] - means[1]) < 0.01
    assert "equal host magnitude" in " ".join(how)
    assert chosen.sum() > 2_000


def test_arcs_that_are_not_those_that_were_added_are_refused(finders, tmp_path):
    columns = make_rows(60)
    wrong = lambda c: c | {"arc_flux_r": 1.2 * c["arc_flux_r"]}  # noqa: E731
    rows = read_rows(write_pack(tmp_path, columns, make_pixels(columns), wrong), GATED, 100)
    with pytest.raises(DataError, match="made with another experiment"):
        measure(rows, finders["sky_asinh"][0], "test", 0, progress=False)


def test_one_command_writes_a_section_with_pictures_and_its_status_says_what_failed(
    clean, finders, tmp_path, capsys
):
    arguments = ["--data", clean[2], "--checkpoint", finders["sky_asinh"][1], "--out", str(tmp_path)]
    arguments += ["--variants", "20", "--device", "cpu"]
    assert main([*arguments, "--fail-on", "data"]) == 0
    section = read_all(str(tmp_path))["gates"]
    gates = section["figures"]["gates"]
    for gate in gates.values():
        assert set(gate) >= {"value", "low", "high", "n", "threshold", "verdict", "pictures"}
    assert gates["without arc: core"]["pictures"] == ["gates-auc.png", "gates-difference.png"]
    for picture in section["pictures"]:
        assert (tmp_path / picture["file"]).read_bytes().startswith(b"\x89PNG")
    assert len(section["pictures"]) == 5
    failed = [n for n, g in gates.items() if g["verdict"] == "fail"]
    shown = [row[:2] for row in section["tables"][1]["rows"]]
    assert shown[0][1] == "fail", "what failed comes first"
    assert failed, "an untrained network keeps no order"
    assert all(gates[n]["about"] == "model" for n in failed)
    assert section["verdict"] == "fail"
    assert "fail" in capsys.readouterr().out
    assert section["made_from"]["data"]
    made = [Gate(**g) for g in gates.values()]
    assert [exit_status(made, what) for what in ("all", "data", "nothing")] == [FAILED, 0, 0]


def test_data_of_one_class_and_no_data_are_refused(finders, tmp_path, capsys):
    arguments = ["--checkpoint", finders["sky_asinh"][1], "--out", str(tmp_path / "out"), "--data"]
    assert main([*arguments, str(tmp_path)]) == 1
    columns = make_rows(60)
    one_class = lambda c: c | {"label": np.ones(60), "is_control": np.zeros(60)}  # noqa: E731
    assert main([*arguments, write_pack(tmp_path / "one", columns, make_pixels(columns), one_class)]) == 1
    assert "0 controls take part in the gates; they need both" in capsys.readouterr().err
