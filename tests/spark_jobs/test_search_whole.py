"""Whole searches of the small sky by the pipeline itself: every kind of area and table, several models, a GPU host."""

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy_healpix import HEALPix
from small_sky import SIDE
from survey_testing import SCALE
from tiny_model import experiment_like, write_model

from darkhaloscope.dataset import read_table
from darkhaloscope.survey.bricks import brick_centre, parse_names
from spark_jobs.search_pipeline import main

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark")]
N_LISTED = 320


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write_model(folder / f"{w}.onnx", experiment_like(), weight=w) for w in (1.0, 3.0)]


@pytest.fixture(scope="module")
def search(spark, sky, models, tmp_path_factory):
    """Search with these flags, by the first model unless others are given: (candidates by rank, output folder)."""

    def run(*flags, model=(models[0],), out=None, status=0):
        out = out or tmp_path_factory.mktemp("search") / "out"
        given = [word for m in model for word in ("--model", m)]
        flags = [
            *given,
            "--survey-source",
            str(sky[0]),
            "--out",
            str(out),
            "--partitions",
            "2",
            *map(str, flags),
        ]
        assert main(flags) == status
        return read_table(str(out / "candidates")) if status == 0 and "--to" not in flags else None, out

    return run


@pytest.fixture(scope="module")
def everything(search, sky):
    """Candidates of all good bricks, as columns by name."""
    found, _ = search("--bricks", *sky[1]["good"], "--formats", "csv")
    return {n: np.array(found.column(n).to_pylist()) for n in ("host_id", "ra", "dec", "brickname", "logit")}


def areas(names):
    """Flags of an area and which positions lie in it, told by astropy; each cuts through two bricks' targets."""
    ra, dec = brick_centre(*parse_names(names))
    size = SIDE * SCALE
    first = SkyCoord(ra[0] * u.deg, dec[0] * u.deg)
    grid = HEALPix(4096, order="nested")
    cells = [int(grid.lonlat_to_healpix(ra[i] * u.deg, dec[i] * u.deg)) for i in (0, 1)]
    return {
        "bricks": (names[:2], lambda a, d, brick: np.isin(brick, names[:2])),
        "box": (
            (ra[0] - size, ra[0] + 0.1 * size, dec[0] - size, dec[0] + size),
            lambda a, d, brick: (abs(d - dec[0]) <= size) & (a >= ra[0] - size) & (a <= ra[0] + 0.1 * size),
        ),
        "cone": (
            (ra[0], dec[0], 0.3 * size),
            lambda a, d, brick: first.separation(SkyCoord(a * u.deg, d * u.deg)).deg <= 0.3 * size,
        ),
        "healpix": (
            (4096, *cells),
            lambda a, d, brick: np.isin(grid.lonlat_to_healpix(a * u.deg, d * u.deg), cells),
        ),
    }


@pytest.mark.parametrize("kind", ["bricks", "box", "cone", "healpix"])
def test_an_area_of_every_kind_holds_the_targets_inside_with_the_same_scores(search, sky, everything, kind):
    values, inside = areas(sky[1]["good"][1:])[kind]
    flags = (f"--{kind}", *values)
    found, _ = search(*flags, "--formats", "csv")
    wanted = inside(everything["ra"], everything["dec"], everything["brickname"])
    assert 1 < wanted.sum() < len(wanted)
    assert set(found.column("host_id").to_pylist()) == set(everything["host_id"][wanted].tolist())
    score = dict(zip(everything["host_id"].tolist(), everything["logit"].tolist(), strict=True))
    for row in found.select(["host_id", "logit"]).to_pylist():
        assert row["logit"] == pytest.approx(score[row["host_id"]], rel=1e-6)


def test_an_area_without_a_galaxy_ends_with_what_to_do(search, sky, everything, capsys):
    here = everything["brickname"] == sky[1]["good"][1]
    ra, dec = everything["ra"][here], everything["dec"][here]
    search("--cone", ra.max() + 0.002, dec.max() + 0.002, 1e-4, status=1)
    assert "no galaxy there passes the cuts" in capsys.readouterr().err


def listed(sky):
    """Names and positions of several hundred places, most in good bricks, one where a brick cannot be read."""
    rng = np.random.default_rng(5)
    names = np.array(sky[1]["good"])[rng.integers(1, len(sky[1]["good"]), N_LISTED)]
    names[7] = sky[1]["truncated"][0]
    ra, dec = brick_centre(*parse_names(names))
    offset = rng.uniform(-0.35 * SIDE, 0.35 * SIDE, (2, N_LISTED)) * SCALE
    return {
        "name": [f"galaxy {i}" for i in range(N_LISTED)],
        "RA": ra + offset[0] / np.cos(np.radians(dec)),
        "DEC": dec + offset[1],
    }


@pytest.fixture(scope="module")
def of_csv(search, sky, tmp_path_factory):
    """Candidates of several hundred listed positions, and the table."""
    path = tmp_path_factory.mktemp("table") / "galaxies.csv"
    Table(listed(sky)).write(path)
    return search("--positions", path)


def test_of_several_hundred_positions_each_ends_scored_or_refused_and_the_catalogue_opens(of_csv):
    table, out = of_csv
    rows = table.to_pylist()
    assert len(rows) + sum(r["merged"] for r in rows) == N_LISTED
    refused = [r for r in rows if r["refused"]]
    assert [r["object_name"] for r in refused] == ["galaxy 7"] and "image-r" in refused[0]["refused"]
    scored = [r for r in rows if not r["refused"]]
    assert [r["rank"] for r in scored] == list(range(1, len(rows)))
    lsdb = pytest.importorskip("lsdb", reason="needs: pip install 'darkhaloscope[hats]'")
    opened = lsdb.open_catalog(out / "hats").compute()
    assert set(opened["name"]) == {r["name"] for r in scored}


@pytest.mark.parametrize("kind", ["fits", "vot", "parquet"])
def test_a_table_gives_the_same_candidates_in_every_format(search, sky, of_csv, tmp_path, kind):
    table = Table(listed(sky))
    table["RA"].unit = table["DEC"].unit = "deg"
    path = tmp_path / f"galaxies.{kind}"
    if kind == "parquet":
        pq.write_table(of_columns(table), path)
    else:
        table.write(path, format="votable" if kind == "vot" else "fits")
    found, _ = search("--positions", path, "--formats", "csv")
    columns = ["name", "object_name", "rank", "logit", "refused"]
    assert found.select(columns).to_pylist() == of_csv[0].select(columns).to_pylist()


def of_columns(table):
    import pyarrow as pa

    return pa.table({n: table[n].tolist() for n in table.colnames})


def test_several_models_give_mean_and_spread_of_their_logits(search, sky, models, everything):
    found, _ = search("--bricks", *sky[1]["good"], "--formats", "csv", model=models)
    score = dict(zip(everything["host_id"].tolist(), everything["logit"].tolist(), strict=True))
    rows = found.select(["host_id", "logit", "logit_spread", "n_models"]).to_pylist()
    assert len(rows) == len(score)
    for row in rows:
        assert row["n_models"] == 2
        if row["logit"] is None:
            assert score[row["host_id"]] is None and row["logit_spread"] is None
            continue
        assert row["logit"] == pytest.approx(2 * score[row["host_id"]], rel=1e-5)
        assert row["logit_spread"] == pytest.approx(np.sqrt(2) * abs(score[row["host_id"]]), rel=1e-4)


def test_shards_scored_by_a_gpu_hosts_command_give_the_ranks_that_executors_give(search, sky, tmp_path):
    from evaluation.score import main as score
    from training import checkpoint
    from training.export import export
    from training.models import Finder
    from training.preprocess import Preprocessing

    how = Preprocessing()
    content = {"model": Finder("small_resnet", how).state_dict(), "preprocessing": how.as_dict()}
    config = experiment_like().as_dict()
    content |= {"config": config | {"training": config["training"] | {"arch": "small_resnet"}}}
    content |= {name: {} for name in ("data", "progress", "metrics", "training_state")}
    checkpoint.save(tmp_path / "best.pt", content)
    export(tmp_path / "best.pt", tmp_path / "model")
    model, area = (
        (str(tmp_path / "model/finder.onnx"),),
        ("--bricks", *sky[1]["good"][:3], "--formats", "csv"),
    )

    in_executors, _ = search(*area, model=model)
    _, out = search(*area, "--to", "shards", model=model)
    flags = ["--checkpoint", tmp_path / "best.pt", "--data", out / "stamps", "--out", tmp_path / "scores"]
    assert score([*map(str, flags), "--split", "test", "--device", "cpu"]) == 0
    joined, _ = search(*area, "--scores", tmp_path / "scores", model=model, out=out)
    first, second = ({r["name"]: r for r in t.to_pylist()} for t in (in_executors, joined))
    assert first.keys() == second.keys() and len(first) > 20
    for name, row in first.items():
        other = second[name]
        assert row["refused"] == other["refused"] and row["stamp"] == other["stamp"]
        assert (row["logit"] is None) == (other["logit"] is None)
        if row["logit"] is not None:
            assert other["logit"] == pytest.approx(row["logit"], abs=1e-4)
