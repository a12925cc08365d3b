"""Live injection: what it draws is what stage 4c would have drawn, other lenses in every epoch, and repeatable."""

import dataclasses
import os
import signal
import unittest.mock
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from field_cases import experiment, field
from scipy.stats import ks_2samp

import training.painter
import training.train
from darkhaloscope.dataset import commit_chunk, read_table, write_part
from darkhaloscope.injection.arcs import ARC_COLUMNS, arc_of
from darkhaloscope.injection.hosts import is_control_host
from darkhaloscope.injection.keys import draw_ids
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.records import BANDS, SAMPLES, STAMPS, TARGETS, stamp_metadata
from darkhaloscope.schema import to_batch
from darkhaloscope.sources.draw import mirrored
from darkhaloscope.survey.targets import select_targets
from training import checkpoint
from training.batch import LEFT_OUT, make_batch
from training.data import StampStream, World
from training.live import HOST_COLUMNS, LiveBatch, LiveInjection
from training.make_shards import stamps_of
from training.noise_torch import normals
from training.painter import Painter, arc_snr
from training.preprocess import Preprocessing
from training.render_torch import draw
from training.runlog import read_log
from training.selection import bounds_of
from training.shards import DataError, open_split
from training.train import main

PAIRED = {"controls": "paired", "control_frac": 0.5}
PREPROCESSING, CPU = Preprocessing(), torch.device("cpu")
PARITY_RMS = 1e-3  # of an arc; the renderers themselves agree to 1e-4


@cache
def paired(file, noise=False, **sections):
    """The field's injections, each followed by its control, as stage 4c makes them."""
    one = experiment(file, injection=PAIRED, stamps={"poisson_noise": noise}, **sections)
    made = stamps_of(field(), one, "train", bare=False)
    made = made.filter(pc.not_equal(made.column("sample"), "mimic"))
    return made.filter(pc.equal(made.column("is_control"), 0)), made, one


def partners(injections, made):
    """The control of each injection, in the order of the injections."""
    where = {t: i for i, t in enumerate(made.column("task_id").to_pylist())}
    return made.take(pa.array([where[t] for t in injections.column("partner_task_id").to_pylist()]))


def batch_of(rows, kind="synthetic_positive", live=None, epoch=0):
    batch = make_batch(rows, PREPROCESSING, "test", HOST_COLUMNS)
    return batch if live is None else live.classed(batch, np.full(rows.num_rows, SAMPLES.index(kind)), epoch)


@pytest.mark.parametrize("file", ["gen2", "gen3", "gen5", "modern"])
def test_an_arc_drawn_in_training_is_that_of_stage_4c_with_the_same_parameters(file):
    injections, made, one = paired(file)
    live = LiveInjection(one, 64)
    bare = batch_of(partners(injections, made), live=live)
    columns = {n: injections.column(n).to_numpy(zero_copy_only=False) for n in ARC_COLUMNS}
    flip = mirrored(draw_ids(*(columns[n] for n in ("host_id", "replicate", "config_id")), one))
    arcs = dataclasses.replace(live.arcs(bare, np.arange(len(flip)), 0), layers=live.prepare(columns, flip))
    drawn = Painter(without_bounds(live), CPU).paint(LiveBatch(bare, arcs, 0))
    want = batch_of(injections)
    arc = arc_of(injections, one)
    scale = np.sqrt((arc**2).mean(axis=(2, 3)))
    rms = np.sqrt(((drawn.stamps.numpy() - want.stamps.numpy()) ** 2).mean(axis=(2, 3))) / scale
    assert injections.num_rows > 3
    assert np.percentile(rms, 95) < PARITY_RMS
    assert drawn.label.tolist() == want.label.tolist()


def test_an_arc_gets_the_psf_the_reddening_and_the_place_that_4c_gives_to_its_host():
    for file in ("gen2", "gen3", "modern"):
        injections, made, one = paired(file)
        bare = batch_of(partners(injections, made))
        host = dict(zip(HOST_COLUMNS, bare.extra.numpy().T, strict=False))
        columns, _ = LiveInjection(one, 64).draw(host, bare.task_id.numpy(), 0, 0)
        for name in ("fwhm_g", "fwhm_r", "fwhm_z", "ebv", "host_x", "host_y"):
            np.testing.assert_array_equal(columns[name], injections.column(name).to_numpy(), f"{file} {name}")


def test_the_snr_that_a_bound_is_held_against_is_that_of_4c():
    for file in ("gen2", "modern"):
        injections, made, one = paired(file)
        training = dataclasses.replace(one.training, min_arc_snr=1e-9)
        live = LiveInjection(dataclasses.replace(one, training=training), 64)
        bare = batch_of(partners(injections, made), live=live)
        columns = {n: injections.column(n).to_numpy(zero_copy_only=False) for n in ARC_COLUMNS}
        flip = mirrored(draw_ids(*(columns[n] for n in ("host_id", "replicate", "config_id")), one))
        arcs = dataclasses.replace(
            live.arcs(bare, np.arange(len(flip)), 0), layers=live.prepare(columns, flip)
        )
        with unittest.mock.patch("training.painter.arc_snr", side_effect=arc_snr) as asked:
            Painter(live, CPU).paint(LiveBatch(bare, arcs, 0))
        snr = arc_snr(*asked.call_args_list[0].args).numpy()
        np.testing.assert_allclose(snr, injections.column("arc_snr").to_numpy(), rtol=0.05)


def as_drawn(live, columns, flip, host):
    """What a network could tell two sets of arcs apart by: parameters, and flux and SNR in the stamp."""
    light = draw(live.prepare(columns, flip)[0]).image
    sigma = torch.from_numpy(np.stack([host[f"sky_sigma_{b}"] for b in BANDS], 1))[:, :, None, None]
    seen = {"flux": light[:, 1].sum((1, 2)), "snr": arc_snr(light, sigma**2, 1.0)}
    seen = {n: np.log(v.numpy() + 1e-9) for n, v in seen.items()}
    offset = np.hypot(columns["src_x_arcsec"], columns["src_y_arcsec"]) / columns["theta_e_arcsec"]
    names = ("theta_e_arcsec", "lens_q", "shear", "src_reff_arcsec", "src_mag_r")
    colour = columns["src_mag_g"] - columns["src_mag_r"]
    return {n: np.asarray(columns[n], float) for n in names} | seen | {"offset": offset, "colour": colour}


@pytest.mark.parametrize("file", ["gen2", "modern"])
def test_arcs_drawn_live_are_distributed_as_those_of_the_manifest(file):
    """Other lenses of the same hosts: 12 epochs against the manifests of 9 seeds, by Kolmogorov and Smirnov."""
    one = experiment(file, injection={**PAIRED, "source": "sersic"}, training={"min_theta_over_psf": 0.0})
    live = LiveInjection(one, 64)
    catalogue = field().catalogue
    found = to_batch(TARGETS, select_targets(catalogue, one.targets, one.splits, one.seed).columns)
    rows = stamps_of(field(), one, "train", bare=True)
    host = {n: rows.column(n).to_numpy() for n in HOST_COLUMNS}
    task_id = np.array([list(bytes.fromhex(t)) for t in rows.column("task_id").to_pylist()], np.uint8)
    place = {h: i for i, h in enumerate(rows.column("host_id").to_pylist())}
    sets = {"live": [], "manifest": []}
    for epoch in range(12):
        columns, keys = live.draw(host, task_id, epoch, 0)
        sets["live"].append(as_drawn(live, columns, np.zeros(len(keys), bool), host))
    for seed in range(9):
        made = lay_out_injections(found, dataclasses.replace(one, seed=seed))
        made = made.filter(pc.equal(made.column("is_control"), 0))
        made = made.filter(pc.is_in(made.column("host_id"), pa.array(list(place))))
        at = [place[h] for h in made.column("host_id").to_pylist()]
        columns = {
            n: made.column(n).to_numpy(zero_copy_only=False) for n in ARC_COLUMNS if n in made.schema.names
        }
        own = {n: v[at] for n, v in host.items()}
        columns |= {n: own[n] for n in ("host_x", "host_y", "ebv")} | live._fwhm(own)
        sets["manifest"].append(as_drawn(live, columns, np.zeros(len(at), bool), own))
    live_set, manifest = (
        {n: np.concatenate([s[n] for s in some]) for n in some[0]} for some in sets.values()
    )
    assert len(manifest["flux"]) > 100
    odds = {n: ks_2samp(live_set[n], manifest[n]).pvalue for n in manifest}
    assert min(odds.values()) > 0.01 / len(odds), odds
    assert ks_2samp(live_set["flux"] + 0.5, manifest["flux"]).pvalue < 0.01, "half a magnitude would be seen"


def test_bounds_choose_hosts_by_the_same_rule_in_both_classes(shards):
    """By the injection each host would have had in 4c, whether it is to get an arc now or not."""
    rows = read_table(f"{shards}/split=train")
    least = float(np.median(rows["arc_snr"].to_numpy()))
    one = experiment(training={"min_arc_snr": least})
    kept = open_split(shards, "train", bounds_of(one.training), live=one)
    mimic = np.array(rows["control_kind"].to_pylist()) == "catalogue"
    assert len(kept.kind) == int(((rows["arc_snr"].to_numpy() >= least) | mimic).sum())
    assert kept.kind_rows[SAMPLES.index("synthetic_positive")] > 0


def without_bounds(live):
    """The same without the bound on the SNR, which would replace faint arcs."""
    training = dataclasses.replace(live.experiment.training, min_arc_snr=0.0)
    return LiveInjection(dataclasses.replace(live.experiment, training=training), live.size)


def test_photon_noise_has_the_variance_of_the_arc_over_the_gain_and_a_dark_stamp_stays_as_it_is():
    injections, made, one = paired("gen2", noise=True)
    live, quiet = LiveInjection(one, 64), LiveInjection(paired("gen2")[2], 64)
    bare = batch_of(partners(injections, made), live=live)
    planned = live.plan(bare, 0)
    noisy, plain = (Painter(x, CPU).paint(planned).stamps.double() for x in (live, quiet))
    light = plain - bare.stamps
    variance = light.clamp(min=0) / planned.arcs.gain[:, :, None, None]
    bright = variance > 0.01 * planned.arcs.sigma[:, :, None, None] ** 2
    pull = ((noisy - plain) / variance.sqrt())[bright]
    assert bright.sum() > 300
    assert abs(float(pull.mean())) < 0.1
    assert float(pull.std()) == pytest.approx(1, abs=0.1)
    dark = dataclasses.replace(planned, bare=bare._replace(stamps=torch.zeros_like(bare.stamps)))
    assert not Painter(live, CPU).paint(dark).stamps.any(), "pixels without data get no light"


def test_normals_are_standard_and_depend_on_key_and_place_alone():
    keys = torch.arange(-500, 500) * 7919
    made = normals(keys, (3, 11, 13))
    assert made.std().item() == pytest.approx(1, abs=0.01)
    assert abs(made.mean().item()) < 0.01
    assert (made.abs() > 3).float().mean().item() == pytest.approx(0.0027, abs=0.0005)
    assert torch.equal(normals(keys[7:9], (3, 11, 13)), made[7:9])
    correlation = np.corrcoef(made.reshape(1000, -1)[:, :50].T.numpy())
    assert np.abs(correlation - np.eye(50)).max() < 0.2


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Bare stamps of the field, all as training rows, in groups of four."""
    root = str(tmp_path_factory.mktemp("bare"))
    rows = stamps_of(field(), experiment(), "train", bare=True)
    columns = {n: rows.column(n) for n in STAMPS.names}
    how = {"schema": STAMPS.arrow(stamp_metadata()), "codec": "none", "rows_per_group": 4}
    part = write_part(f"{root}/split=train", 0, 0, [to_batch(STAMPS, columns, stamp_metadata())], **how)
    commit_chunk(f"{root}/split=train", 0, [part])
    rendered = paired("gen2")[1]
    columns = {n: rendered.column(n) for n in STAMPS.names}
    part = write_part(f"{root}/split=val", 0, 0, [to_batch(STAMPS, columns, stamp_metadata())], **how)
    commit_chunk(f"{root}/split=val", 0, [part])
    return root


def epoch_of(root, one, epoch, workers=0, batch_size=5, ranks=1):
    """Every row's stamp and label in an epoch, by task_id."""
    opened = open_split(root, "train", live=one)
    live = LiveInjection(one, 64)
    painter, seen = Painter(live, CPU), {}
    for rank in range(ranks):
        stream = StampStream(
            opened,
            PREPROCESSING,
            batch_size,
            1,
            epochs=(epoch, epoch + 1),
            live=live,
            world=World(rank, ranks),
        )
        for planned in stream:
            batch = painter.paint(planned)
            assert torch.equal(planned.task_id, batch.task_id)
            seen |= dict(
                zip(batch.task_ids(), zip(batch.stamps, batch.label.tolist(), strict=True), strict=True)
            )
    return seen


def test_a_row_has_the_same_lens_in_any_batch_and_rank_and_another_in_the_next_epoch(shards):
    one = experiment()
    first, other, following = (
        epoch_of(shards, one, 0), epoch_of(shards, one, 0, batch_size=3, ranks=2), epoch_of(shards, one, 1)
    )  # fmt: skip
    assert first.keys() == other.keys() == following.keys()
    lit = [t for t, (_, label) in first.items() if label]
    assert 2 < len(lit) < len(first)
    assert all(first[t][1] == other[t][1] for t in first)
    for task, (stamp, _) in first.items():  # sums of another number of rows differ in their last bits
        torch.testing.assert_close(other[task][0], stamp, rtol=1e-5, atol=1e-6)
    for task, (stamp, label) in first.items():
        assert following[task][1] == label, "unpaired: a host has one class"
        assert torch.equal(stamp, following[task][0]) == (not label)


def test_classes_are_the_manifests_and_mimics_stay_bare(shards):
    one = experiment()
    rows = stamps_of(field(), one, "train", bare=True)
    control = is_control_host(rows.column("host_id").to_numpy(), one)
    mimic = np.array(rows.column("sample").to_pylist()) == "mimic"
    want = dict(zip(rows.column("task_id").to_pylist(), (~control & ~mimic).astype(float), strict=True))
    got = {task: label for task, (_, label) in epoch_of(shards, one, 0).items()}
    assert mimic.any()
    assert got == want


def test_paired_hosts_take_turns(shards):
    one = experiment(injection=PAIRED)
    even, odd, again = (epoch_of(shards, one, e) for e in (0, 1, 2))
    hosts = [t for t in even if even[t][1] + odd[t][1]]
    assert all(even[t][1] + odd[t][1] == 1 for t in hosts)
    assert len(hosts) > 8
    assert all(even[t][1] == again[t][1] for t in even)


def test_bounds_hold_for_what_is_drawn(shards):
    bounds = {"min_theta_over_psf": 1.2, "min_arc_snr": 60.0}
    one = experiment(training=bounds)
    live = LiveInjection(one, 64)
    rows = stamps_of(field(), experiment(), "train", bare=True)
    bare = batch_of(rows, live=live)
    host = dict(zip(HOST_COLUMNS, bare.extra.numpy().T, strict=False))
    columns, _ = live.draw(host, bare.task_id.numpy(), 0, 0)
    assert (columns["theta_e_arcsec"] >= 1.2 * host["psfsize_r"]).all()
    painted = Painter(live, CPU).paint(live.plan(bare, 0))
    free = Painter(without_bounds(live), CPU).paint(live.plan(bare, 0))
    light = [(b.stamps - bare.stamps).abs().sum((1, 2, 3)) for b in (painted, free)]
    assert (light[0] != light[1]).any(), "faint arcs were replaced"


def test_a_row_whose_arcs_were_all_too_faint_is_left_out_bare_rather_than_called_a_negative():
    one = experiment(training={"min_arc_snr": 190.0})
    live = LiveInjection(one, 64)
    bare = batch_of(stamps_of(field(), experiment(), "train", bare=True), live=live)
    planned = live.plan(bare, 0)
    painted = Painter(live, CPU).paint(planned)
    out = painted.label == LEFT_OUT
    assert 0 < out.sum() < len(out)
    assert set(painted.label[planned.label == 1].tolist()) == {1.0, LEFT_OUT}, "none has become a negative"
    assert torch.equal(painted.stamps[out], bare.stamps[out])
    assert ((painted.stamps != bare.stamps).any(3).any(2).any(1) == (painted.label == 1)).all()


def test_unpaired_controls_alone_cannot_be_injected_and_bare_stamps_need_the_flag(shards):
    with pytest.raises(DataError, match="need --live_injection"):
        open_split(shards, "train")
    with pytest.raises(DataError, match="never gets an arc"):
        open_split(shards, "train", live=experiment(injection={"control_frac": 1.0}))


def test_the_trainer_draws_live_and_goes_on_to_the_same_bits(shards, tmp_path, capsys, monkeypatch):
    bare = read_table(f"{shards}/split=train")["task_id"]
    monkeypatch.setattr(training.painter, "ROUNDS", 1)
    monkeypatch.setattr(
        training.painter, "arc_snr", lambda light, *_: torch.where(light.sum((1, 2, 3)) > 5.0, 99.0, 0.0)
    )
    flags = ["--experiment", "experiments/gen2.toml", "--data", shards, "--live-injection", "--min_arc_snr", "1e-9",
             "--arch", "small_resnet", "--batch_size", "5", "--precision", "fp32", "--num_workers", "0",
             "--device", "cpu", "--epochs", "2", "--norm_method", "sky_asinh"]  # fmt: skip
    assert main([*flags, "--out_dir", str(tmp_path / "whole")]) == 0
    assert "bare, for live injection" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        original, taken = training.train.take_step, []

        def step(*given):
            taken.append(1)
            if len(taken) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(*given)

        patch.setattr(training.train, "take_step", step)
        assert main([*flags, "--out_dir", str(tmp_path / "parts")]) == 128 + signal.SIGTERM
    capsys.readouterr()
    assert main([*flags, "--out_dir", str(tmp_path / "parts"), "--resume"]) == 0
    whole, parts = (checkpoint.load(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert all(torch.equal(v, parts["model"][k]) for k, v in whole["model"].items())
    assert "bare" not in whole["data"]["val"]["selection"], "validation rows stay as they are"
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "parts")]
    counts = [[(r["left_out_rows"], r["train_rows"]) for r in log if r["event"] == "epoch"] for log in logs]
    assert counts[0] == counts[1], "rows left out are counted across a stop"
    assert sum(out for out, _ in counts[0]) > 0
    assert all(out + shown == len(bare) for out, shown in counts[0])
    assert "rows left out: no arc that stands out" in capsys.readouterr().out
