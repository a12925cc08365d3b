"""Gates on stamps that stages 4a and 4c make, of every kind: clean ones pass, each planted shortcut is caught."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from gate_cases import write_checkpoint
from gates_sky import ARCS, SIZE, an_experiment, stage_stamps, write_stamps

from darkhaloscope.injection.arcs import arc_of, scene_of
from darkhaloscope.lensing.psf import psf_profile
from darkhaloscope.records import STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch
from evaluation.gates import looks
from evaluation.gates.classifiers import told_apart
from evaluation.gates.data import data_gates, normalisation_gates
from evaluation.gates.measure import measure
from evaluation.gates.rows import read_rows
from training.checkpoint import load_finder_model

pytestmark = pytest.mark.slow
torch.set_num_threads(1)
KINDS = {
    "Sersic sources": {},
    "image sources": {"source": "image"},
    "paired controls": {"controls": "paired"},
    "kernel PSF": {"psf": "kernel"},
}


@pytest.fixture(scope="module")
def finders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finders")
    return {m: load_finder_model(write_checkpoint(folder / f"{m}.pt", m, size=SIZE))[0]
            for m in ("outer", "full", "sky_asinh")}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """An experiment, columns and pixels of its stamps."""
    kernels = tmp_path_factory.mktemp("kernels")
    y, x = np.mgrid[:41, :41] - 20
    for band, width in zip("grz", (1.0, 0.9, 0.85), strict=True):
        kernel = psf_profile(0.262 * np.hypot(x, y), width, "moffat", 2.7)
        np.save(kernels / f"psf_{band}.npy", kernel / kernel.sum())
    place = {"kernel": f"{kernels}/psf_{{band}}.npy"} if request.param == "kernel PSF" else {}
    config = an_experiment(**KINDS[request.param], **place)
    return config, *stage_stamps(config)


def judged(folder, made, finder):
    config, columns, pixels = made
    rows = read_rows(write_stamps(folder, columns, pixels, config), config, 20_000)
    found = measure(rows, finder, "test", 0, progress=False)
    gates = data_gates(rows, found) + normalisation_gates(rows, found, finder.preprocessing.norm_method)
    return {g.name: g for g in gates}


def failed(gates):
    return sorted(n for n, g in gates.items() if g.verdict == "fail")


@pytest.mark.parametrize("method", ["outer", "sky_asinh"])
def test_clean_stamps_fail_no_gate_and_their_light_goes_as_far_as_the_prior_s(
    made, finders, method, tmp_path
):
    gates = judged(tmp_path, made, finders[method])
    assert failed(gates) == []
    for name in ("core", "total flux"):
        own, drawn = gates[f"with arc: {name}"], gates[f"with arc: {name}, drawn on controls"]
        assert own.verdict == drawn.verdict == "reported"
        assert own.value == pytest.approx(drawn.value, abs=0.03)


def test_an_oracle_draws_the_light_that_the_gates_compare_with(made):
    """Core and total flux of controls with arcs by adaptive quadrature, as far as the renderer's own take them."""
    config, columns, pixels = made
    if config.injection.source != "sersic" or config.psf.model != "moffat":
        pytest.skip("the oracle is asked about Sersic sources under a Moffat PSF")
    some = np.flatnonzero(columns["label"] == 0)[:160]
    columns, bare = {n: v[some] for n, v in columns.items()}, pixels[some]
    scene = scene_of(columns)
    names = [f.name for f in dataclasses.fields(scene) if f.name != "flux"]
    truth = []
    for i in range(len(some)):
        profiles = [oracle.moffat(columns[f"fwhm_{b}"][i], config.psf.moffat_beta) for b in "grz"]
        row = {n: np.broadcast_to(getattr(scene, n), len(some))[i] for n in names}
        image, _ = oracle.truth(row, profiles, (SIZE, SIZE), tolerance=1e-6)
        truth.append(image * scene.flux[i][:, None, None])
    given, zeros = np.arange(len(some)) % 2 == 0, np.zeros(len(some), int)
    house = arc_of(to_batch(STAMPS, columns, stamp_metadata("float32", SIZE)), config)
    for look in looks.WITH_ARC.values():
        own, drawn = (
            told_apart(
                look((bare + arcs * given[:, None, None, None]).astype("f4")),
                given,
                columns["host_id"],
                zeros,
            )
            for arcs in (house, np.array(truth))
        )
        assert 0.7 < own.auc == pytest.approx(drawn.auc, abs=0.01)


def test_full_normalisation_fails_where_arcs_are_bright(finders, tmp_path):
    config = an_experiment(grid=dataclasses.replace(ARCS, theta_e_arcsec=(1.5, 2.0), src_dmag=(0.5, 1.0)))
    gates = judged(tmp_path, (config, *stage_stamps(config)), finders["full"])
    assert "normalisation scale g" in failed(gates)


def brighter_cores(columns, pixels):
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = 0.262 * np.hypot(x - columns["host_x"][:, None, None], y - columns["host_y"][:, None, None])
    inside = (radius < 0.6) & (columns["label"] == 1)[:, None, None]
    return columns, pixels * np.where(inside, 1.25, 1.0)[:, None]


def more_noise(columns, pixels):
    extra = 0.7 * columns["sky_sigma_r"][:, None, None, None] * (columns["label"] == 1)[:, None, None, None]
    return columns, pixels + extra * np.random.default_rng(0).normal(size=pixels.shape)


def a_sky_left_behind(columns, pixels):
    return columns, pixels + 0.3 * (columns["sky_sigma_r"] * (columns["label"] == 1))[:, None, None, None]


def a_null(columns, pixels):
    hidden = (columns["label"] == 1) & (np.arange(len(pixels)) % 3 == 0)
    return columns | {"padded_fraction": np.where(hidden, np.nan, columns["padded_fraction"])}, pixels


def one_host_in_two_splits(columns, pixels):
    split = columns["region_split"].copy()
    other = np.flatnonzero(split == "train")[0]
    host = columns["host_id"].copy()
    host[np.flatnonzero(split == "test")[0]] = host[other]
    return columns | {"host_id": host}, pixels


@pytest.mark.parametrize(
    ("plant", "caught_by"),
    [
        (brighter_cores, {"without arc: core"}),
        (more_noise, {"without arc: border", "without arc: annulus", "without arc: MAD", "annulus scale g"}),
        (a_sky_left_behind, {"without arc: annulus", "annulus centre r"}),
        (a_null, {"without arc: metadata"}),
        (one_host_in_two_splits, {"duplicates: host_id"}),
    ],
)
def test_each_planted_shortcut_is_caught(made, finders, plant, caught_by, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.gates.classifiers.CNN_EPOCHS", 0)
    config, columns, pixels = made
    found = failed(judged(tmp_path, (config, *plant(columns, pixels)), finders["outer"]))
    assert caught_by <= set(found), found


def test_seeing_that_goes_with_the_class_is_caught(made, finders, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.gates.classifiers.CNN_EPOCHS", 0)
    config, columns, pixels = made
    if config.psf.model == "kernel":
        pytest.skip("a kernel is one seeing for all")
    sharp, sharp_pixels = stage_stamps(config, sizes=(1.3, 1.15, 1.1))
    positive = columns["label"] == 1
    mixed = {n: np.where(positive, sharp[n], v) for n, v in columns.items()}
    made = config, mixed, np.where(positive[:, None, None, None], sharp_pixels, pixels)
    assert {"seeing: psfsize_r", "without arc: metadata"} <= set(
        failed(judged(tmp_path, made, finders["outer"]))
    )
