"""Anchors end to end, against a local server with planted lenses: what is scored, what is refused, and why."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from anchor_sky import BRICKS, NO_COADD, OBJECTS, THETA_E, at, place, write_cutout, write_positions, write_sky
from survey_testing import Server

from darkhaloscope.experiment import Experiment
from darkhaloscope.results import ANCHORS
from darkhaloscope.sections import Fetch, Survey, Training
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.errors import BrickUnreadable
from darkhaloscope.survey.transfer import Client
from evaluation.anchors import sets
from evaluation.anchors.__main__ import main, parser
from evaluation.anchors.cutout_service import ServiceFailed, fetch_cutout
from evaluation.anchors.galaxies import galaxies_near
from evaluation.anchors.lenscat import ADMITTED
from evaluation.anchors.pixels import Source, from_service
from evaluation.section import read_all
from training import checkpoint
from training.models import Finder
from training.preprocess import Preprocessing

LENSES = [
    at("lens one", theta_e_arcsec=THETA_E, src_mag_r=21.0),
    at("lens two", theta_e_arcsec=0.8),
    at("lens one", 0.5, name="the same again"),
    at("lens one", 32, name="empty sky"),
    at("lens two", 4.7, name="beside its galaxy"),
    at("star"),
    at("faint"),
    {"name": "north", "ra": 150.2, "dec": 80.0},
    at("misnamed", name="SDSSJ1200+0200"),
    at("merger", name="a lens to some"),
    at("alone", theta_e_arcsec=1.5),
]
GATES = {
    "lens one": "", "lens two": "", "the same again": "table", "empty sky": "catalogue",
    "beside its galaxy": "centroid",
    "star": "catalogue", "faint": "catalogue", "north": "footprint", "SDSSJ1200+0200": "name", "alone": "pixels",
    "a lens to some": "table", "merger": "table",
}  # fmt: skip
REASONS = {
    "the same again": "duplicate", "empty sky": "8.4 arcsec away", "beside its galaxy": "arcsec off",
    "star": "type PSF", "faint": "z = 21.5", "north": "outside the footprint", "SDSSJ1200+0200": "digits allow",
    "alone": "no image or invvar", "a lens to some": "disagree", "merger": "disagree",
}  # fmt: skip


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    base = write_sky(tmp_path_factory.mktemp("anchors") / "sky")
    for name, blank in (("alone", False), ("blank", True)):
        write_cutout(base / "service" / f"{name}.fits", "alone", blank)
    return base


@pytest.fixture(scope="module")
def web(sky):
    server = Server(sky)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def run_of(sky, tmp_path_factory):
    """Return a function (out, source, *flags) -> exit status, table, section."""
    root = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    experiment = Experiment(
        "t", "v", "id", training=Training(arch="small_resnet"), fetch=Fetch(attempts=1, timeout_s=5.0),
        survey=Survey(source="nowhere"),
    )  # fmt: skip
    preprocessing = Preprocessing(norm_method="sky_asinh")
    finder = root / "best.pt"
    content = {"model": Finder("small_resnet", preprocessing).state_dict(), "config": experiment.as_dict()}
    rest = {"preprocessing": preprocessing.as_dict(), "data": {}, "progress": {}, "metrics": {}}
    checkpoint.save(finder, {**content, **rest, "training_state": {}})
    metrics = {
        "scored_with": {"checkpoint": hashlib.sha256(finder.read_bytes()).hexdigest()[:16], "d4": False},
        "scores_hash": "ab", "unresolved": ["tpr@fpr1e-3"],
        "figures": {"auroc": {"value": 0.9}, "tpr@fpr1e-2": {"threshold": -1e9}, "tpr@fpr1e-3": {"threshold": 1e9},
                    "tpr@fpr1e-4": {"threshold": None}},
    }  # fmt: skip
    (root / "metrics.json").write_text(json.dumps(metrics))
    lenses = write_positions(root / "lenses.csv", LENSES)
    others = write_positions(root / "others.csv", [at("ring", type="ring"), at("merger", type="merger")])

    def run(out, source, *flags, lenses=lenses):
        command = ["--checkpoint", str(finder), "--metrics", str(root / "metrics.json"), "--out", str(out),
                   "--source", source, "--without-slacs-bells", "--device", "cpu", "--lenses", f"planted={lenses}",
                   "--contaminants", others, *flags]  # fmt: skip
        status = main(command)
        table = pq.read_table(out / "anchors.parquet") if status == 0 else None
        return status, table, read_all(str(out)).get("anchors")

    return run


@pytest.fixture(scope="module")
def done(run_of, web, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return (*run_of(out, web.url, "--cache", str(out / "cache")), out)


def test_each_anchor_is_scored_or_refused_by_the_gate_that_saw_it(done):
    _, table, _, _ = done
    assert table.schema.equals(ANCHORS.arrow())
    rows = {r["object_name"]: r for r in table.to_pylist()}
    assert len(rows) == len(LENSES) + 2
    for name, gate in GATES.items():
        row = rows[name]
        assert row["gate"] == gate, (name, row["refused"])
        assert REASONS.get(name, "") in row["refused"] and bool(row["refused"]) == bool(gate)
        assert (row["logit"] is None) == bool(gate) and row["pixels"] == ("" if gate else "coadd")
    assert rows["ring"]["logit"] is not None and rows["ring"]["label"] == 0
    one, two = rows["lens one"], rows["lens two"]
    assert (one["passes_target_cuts"], two["passes_target_cuts"]) == (1, 0)
    assert (one["type"], two["type"]) == ("SER", "DEV") and one["mag_z"] == pytest.approx(18.5, abs=1e-3)
    assert one["match_arcsec"] < 0.1 and one["brickname"] == BRICKS[0]
    assert one["visibility"] == "resolved, bright" and two["visibility"] == "blended"


def test_recall_is_stated_by_set_domain_and_visibility_with_n_and_interval(done):
    _, _, section, _ = done
    recall = {(r["stratum"], r["fpr"]): r for r in section["figures"]["recall"]}
    everything = recall["all", "fpr1e-2"]
    assert (everything["set"], everything["n"], everything["found"]) == ("planted", 2, 2)
    assert everything["low95"] == pytest.approx(0.342, abs=1e-3) and everything["high95"] == 1.0
    assert recall["all", "fpr1e-3"]["found"] == 0 and ("all", "fpr1e-4") not in recall
    for stratum in (
        "passes the target cuts",
        "outside the target cuts",
        "arc resolved, bright",
        "arc blended",
    ):
        assert recall[stratum, "fpr1e-2"]["n"] == 1
    assert {r["type"]: r["n"] for r in section["figures"]["contamination"]} == {"ring": 1}
    assert section["figures"]["counts"][0]["refused"]["catalogue"] == 3
    assert "Unresolved" in section["lead"] and section["made_from"]["thresholds"] == "ab"


def test_every_refusal_and_every_stamp_can_be_looked_at(done):
    _, _, section, out = done
    refused = next(t for t in section["tables"] if t["title"] == "Refused anchors")
    assert {row[0] for row in refused["rows"]} >= set(REASONS)
    assert [p["title"].split(":")[0] for p in section["pictures"]] == ["planted", "contaminants"]
    for picture in section["pictures"]:
        assert (out / picture["file"]).read_bytes().startswith(b"\x89PNG")


def test_a_second_run_needs_no_network(run_of, web, done, tmp_path):
    _, table, _, out = done
    asked = len(web.requests)
    status, again, _ = run_of(tmp_path, "unused", "--cache", str(out / "cache"), "--offline")
    assert status == 0 and len(web.requests) == asked
    names = ["object_name", "gate", "logit"]
    assert again.select(names).equals(table.select(names))


def test_a_cutout_service_is_a_fallback_whose_scores_are_not_counted(run_of, web, tmp_path):
    found = run_of(tmp_path, web.url, "--cutout-service", f"{web.url}/service/alone.fits?layer=x")
    row = next(r for r in found[1].to_pylist() if r["object_name"] == "alone")
    assert (row["pixels"], row["gate"], row["psfsize_r"]) == ("cutout_service", "", pytest.approx(1.3))
    assert row["logit"] is not None
    everything = next(r for r in found[2]["figures"]["recall"] if r["stratum"] == "all")
    assert everything["n"] == 2, "only coadds count"
    assert any("size=66&pixscale=0.262&bands=grz" in r for r in web.requests)


def test_what_a_service_answers_is_looked_at_before_it_is_believed(web):
    ra, dec = place(*OBJECTS["alone"][:3])
    client = Client(Fetch(attempts=1))

    def ask(file, ra=ra, fault=None):
        web.faults["bands=grz"] = [fault] if fault else []
        return fetch_cutout(f"{web.url}/service/{file}", ra, dec, NO_COADD, 64, client)

    assert ask("alone.fits").cut(1, 1, 64).image.shape == (3, 64, 64)
    for file, more, kind, reason in (
        ("blank.fits", {}, BrickUnreadable, "blank: band g is 0 everywhere"),
        ("none.fits", {}, ServiceFailed, "HTTP 404"),
        ("alone.fits", {"fault": "html"}, ServiceFailed, "not a FITS file"),
        ("alone.fits", {"fault": "endless"}, ServiceFailed, "the limit is"),
        ("alone.fits", {"fault": 503}, ServiceFailed, "HTTP 503"),
        ("alone.fits", {"ra": ra + 0.01}, BrickUnreadable, "expected 0.262 arcsec around it"),
    ):
        with pytest.raises(BrickUnreadable, match=reason) as error:
            ask(file, **more)
        assert isinstance(error.value, ServiceFailed) == (kind is ServiceFailed)


def test_a_server_that_is_down_is_an_error_that_says_so(run_of, sky, tmp_path, capsys):
    server = Server(sky)
    server.stop()
    assert run_of(tmp_path, server.url, "--cache", str(tmp_path / "cache"))[0] == 1
    assert "anchors: " in (told := capsys.readouterr().err) and "survey-bricks" in told and "refused" in told


@pytest.fixture
def down(sky, tmp_path):
    """An experiment and a source whose server is down, and the places of the three bricks."""
    server = Server(sky)
    server.stop()
    experiment = Experiment("t", "v", "id", survey=Survey(source=server.url))
    bricks = read_brick_table(str(sky / "survey-bricks-dr10-south.fits.gz"))
    ra, dec = (np.array(v) for v in zip(*map(place, BRICKS), strict=True))
    client = Client(Fetch(attempts=1, timeout_s=5.0))
    return experiment, Source(bricks, str(tmp_path), client, server.url), ra, dec


def test_catalogues_of_a_server_that_is_down_are_asked_for_twice_and_no_more(down, monkeypatch):
    monkeypatch.setattr("evaluation.anchors.galaxies.GIVE_UP_AFTER", 2)
    experiment, source, ra, dec = down
    found, problem = galaxies_near(ra, dec, source.bricks, experiment, source.cache, source.client)
    assert not len(found["ra"]) and all("refused" in p for p in problem[:2])
    assert problem[2] == "not asked for, since 2 catalogues in a row failed"


def test_a_cutout_service_that_is_down_is_asked_once_and_no_more(down, monkeypatch, tmp_path):
    monkeypatch.setattr("evaluation.anchors.pixels.GIVE_UP_AFTER", 1)
    experiment, source, ra, dec = down
    rows = [{"name": r, "ra": r, "dec": d} for r, d in zip(ra, dec, strict=True)]
    lenses = write_positions(tmp_path / "lenses.csv", rows)
    stamps, _, why = from_service(sets.from_file(lenses, "mine"), np.ones(3, bool), experiment, source)
    assert stamps.num_rows == 0 and "refused" in why[0]
    assert all("not asked, since 1 requests in a row failed" in w for w in why[1:])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"name": "a", "ra": "10:00:41.2", "dec": "02:03:00"}], "sexagesimal"),
        ([{"name": "a", "ra": 10.1, "dec": 2.0}], "degrees or hours"),
    ],
)
def test_sexagesimal_text_and_hours_are_refused(run_of, web, tmp_path, capsys, rows, message):
    lenses = write_positions(tmp_path / "bad.csv", rows)
    assert run_of(tmp_path, web.url, lenses=lenses)[0] == 1
    assert message in capsys.readouterr().err


def test_thresholds_of_another_checkpoint_are_refused(run_of, web, tmp_path, capsys):
    other = tmp_path / "metrics.json"
    figures = {"tpr@fpr1e-2": {"threshold": 0.0}}
    other.write_text(json.dumps({"scored_with": {"checkpoint": "0" * 16}, "figures": figures}))
    assert run_of(tmp_path, web.url, "--metrics", str(other))[0] == 1
    assert "differ in {'checkpoint': ('0000" in capsys.readouterr().err


def test_the_help_reads_like_a_guide_and_names_every_set():
    text = parser().format_help()
    for word in (
        "Which lenses.",
        "Which gates.",
        "Which pixels.",
        "What comes out",
        "1.5 arcsec",
        "79 MB",
        *ADMITTED,
    ):
        assert word in text
