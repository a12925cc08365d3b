"""A search of the small sky: an area and a table of positions, interrupted, resumed, with unreadable bricks."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import experiment_like, write_model

from darkhaloscope.dataset import committed_chunks, committed_files, open_part, read_table
from darkhaloscope.results import CANDIDATES
from darkhaloscope.search.model import ModelError
from darkhaloscope.stage import OutputRefused
from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.errors import CatalogueError
from spark_jobs import search, search_chunks, search_rows
from spark_jobs.search_pipeline import area_of_args, main, parser

pytestmark = pytest.mark.xdist_group("spark")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "finder.onnx", experiment_like())


def arguments(model, sky, out, *more):
    flags = ["--model", model, "--survey-source", str(sky[0]), "--out", str(out), "--partitions", "2", *more]
    args = parser().parse_args(flags)
    args.area = area_of_args(args)
    return args


def run(spark, model, sky, out, *more):
    args = arguments(model, sky, out, *more)
    return search.run(spark, search.experiment_of(args), args)


@pytest.fixture(scope="module")
def area_search(spark, sky, model, tmp_path_factory):
    """An area search that was interrupted after its first chunk and started again: (out, record, chunks at the end)."""
    out = tmp_path_factory.mktemp("area") / "out"
    names = [n for group in sky[1].values() for n in group]
    area = ("--bricks", *names, "--candidates", "5", "--formats", "csv,parquet")
    commit = search_chunks._commit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_rows, "TASK_COST", 1.0)  # else all is one chunk

        def once(stage, root, number, *rest):  # fmt: skip
            commit(stage, root, number, *rest)
            raise KeyboardInterrupt

        patch.setattr(search_chunks, "_commit", once)
        with pytest.raises(KeyboardInterrupt):
            run(spark, model, sky, out, *area)
    first = committed_chunks(str(out / "scored"))
    assert len(first) == 1
    record = run(spark, model, sky, out, *area)
    whole = committed_chunks(str(out / "scored"))
    assert len(whole) > 2 and whole[0] == first[0], "the finished chunk was not made again"
    return str(out), record, area


def test_every_target_of_an_area_ends_scored_or_refused_and_bad_bricks_cost_their_own_alone(area_search, sky):
    out, record, _ = area_search
    rows = read_table(out + "/candidates").to_pylist()
    counts = record["counts"]
    assert len(rows) == counts["targets"] == counts["scored"] + sum(counts["refused"].values())
    bad = {n for kind in ("truncated", "lacks_z", "missing") for n in sky[1][kind]}
    for row in rows:
        assert (row["logit"] is None) == bool(row["refused"]) == (row["rank"] is None)
        if row["brickname"] in bad:
            assert row["brickname"] in row["refused"]
    assert {r["brickname"] for r in rows if not r["refused"]} <= set(sky[1]["good"])
    assert {r["unit"] for r in read_table(out + "/scored/quarantine").to_pylist()} <= bad


def test_refusals_are_counted_by_kind_however_many_bricks_they_are_in(area_search, sky):
    _, record, _ = area_search
    refused = record["counts"]["refused"]
    assert {"the brick has no coadds", "the brick lacks a band", "the brick's files cannot be read"} <= set(
        refused
    )
    bad = [n for names in sky[1].values() for n in names]
    assert not [reason for reason in refused if any(name in reason for name in bad)]


def test_pixels_are_kept_only_of_rows_that_may_end_among_the_best(area_search):
    out, record, _ = area_search
    chunks, tables = committed_chunks(out + "/scored"), []
    best = np.sort(np.concatenate([c["best"] for _, c in sorted(chunks.items())]))[-search.SPARE * 5 :]
    for url in committed_files(out + "/scored"):
        with open_part(url) as part:
            tables.append(part.read(columns=["logit", "stamp"]))
    rows = pa.concat_tables(tables).to_pylist()
    assert {r["logit"] for r in rows if r["logit"] and r["logit"] >= best[0]} <= {
        r["logit"] for r in rows if r["stamp"]
    }
    last = max(chunks)
    floor = np.sort(np.concatenate([c["best"] for n, c in chunks.items() if n < last]))[-search.SPARE * 5]
    assert all(value >= floor for value in chunks[last]["best"])
    assert sum(r["stamp"] is not None for r in rows) < record["counts"]["scored"]


def test_candidates_are_ranked_and_the_best_have_their_pixels(area_search):
    out, _, _ = area_search
    table = read_table(out + "/candidates")
    assert table.column_names == CANDIDATES.names and table.schema.metadata[b"stamp_shape"] == b"3,64,64"
    rows = table.to_pylist()
    scored = [r for r in rows if r["rank"]]
    assert (
        [r["rank"] for r in scored]
        == list(range(1, len(scored) + 1))
        == [r["rank"] for r in rows[: len(scored)]]
    )
    assert [r["logit"] for r in scored] == sorted((r["logit"] for r in scored), reverse=True)
    assert [i for i, r in enumerate(rows) if r["stamp"] is not None] == list(range(5))
    stamp = np.frombuffer(rows[0]["stamp"], "<f4").reshape(3, 64, 64)
    assert rows[0]["logit"] == pytest.approx(stamp[1].mean() / rows[0]["sky_sigma_r"], rel=1e-4)
    summary = json.loads(Path(out, "summary.json").read_text())
    assert summary["scored"] == len(scored) and summary["square_degrees"] > 0


def test_a_finished_search_is_not_repeated_and_another_one_does_not_overwrite_it(
    spark, sky, model, area_search
):
    out, record, area = area_search
    before = committed_chunks(out + "/candidates")
    assert run(spark, model, sky, out, *area)["counts"] == record["counts"]
    assert committed_chunks(out + "/candidates") == before
    with pytest.raises(OutputRefused, match="--overwrite"):
        run(spark, model, sky, out, *area, "--prevalence", "0.1")
    names = area[1 : area.index("--candidates")]
    with pytest.raises(OutputRefused, match="--overwrite"):  # another list, though its beginning is the same
        run(spark, model, sky, out, "--bricks", *names[:-1], *area[area.index("--candidates") :])


def positions(path, sky, **columns):
    """A CSV of two places in a good brick, one of them twice, one outside the footprint, and one that is nowhere."""
    ra, dec = (float(v[0]) for v in brick_centre(*parse_names(sky[1]["good"][1:2])))
    rows = [
        ("<b>a</b>", ra, dec), ("b", ra + 0.004, dec), ("again", ra + 0.004, dec + 0.1 / 3600),
        ("north", 200.0, 80.0), ("nowhere", "", 1.0),
    ]  # fmt: skip
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "ra", "dec", *columns])
        writer.writerows([*row, *columns.values()] for row in rows)
    return str(path)


def test_stamps_scored_on_a_gpu_host_join_the_positions_they_are_of(spark, sky, model, tmp_path, monkeypatch):
    from darkhaloscope.dataset import commit_chunk, write_part
    from darkhaloscope.results import SCORES
    from darkhaloscope.schema import to_batch

    monkeypatch.setattr(search_rows, "ROWS_PER_PART", 1)
    table = positions(tmp_path / "p.csv", sky)
    here = ("--positions", table, "--formats", "csv")
    cut = run(spark, model, sky, tmp_path / "out", *here, "--to", "shards")["counts"]
    assert cut["stamps"] == cut["targets"] == 2
    assert len(committed_files(str(tmp_path / "out/manifest"))) == 2, "positions are laid out in parts"
    rows = read_table(str(tmp_path / "out/stamps/split=test"))  # where evaluation.score looks for them
    unknown = pa.nulls(2, pa.float32())
    made = {"logit": [3.0, 1.0], "logit_spread": unknown, "probability": unknown}
    columns = {n: rows.column(n) for n in SCORES.names if n not in made} | made
    schema = SCORES.arrow()
    part = write_part(str(tmp_path / "gpu"), 0, 0, [to_batch(SCORES, columns)], schema)
    commit_chunk(str(tmp_path / "gpu"), 0, [part])
    counts = run(spark, model, sky, tmp_path / "out", *here, "--scores", str(tmp_path / "gpu"))["counts"]
    found = read_table(str(tmp_path / "out/candidates")).to_pylist()
    assert [r["logit"] for r in found] == [3.0, 1.0]
    assert [r["object_name"] for r in found] == rows.column("object_name").to_pylist()
    assert {r["object_name"]: r["merged"] for r in found} == {"<b>a</b>": 0, "b": 1}
    assert counts["targets"] == 5 and counts["scored"] == 2 and counts["merged"] == 1
    assert counts["refused"] == {"duplicate": 1, "outside the footprint": 1, "position not on the sky": 1}
    page = (tmp_path / "out/summary.html").read_text()
    assert "outside the footprint" in page and "<b>a</b>" not in page


def test_positions_of_another_release_are_asked_about(spark, sky, model, tmp_path):
    table = positions(tmp_path / "p.csv", sky, release=9010)
    with pytest.raises(CatalogueError, match=r"release 9.*dr10-south.*--force"):
        run(spark, model, sky, tmp_path / "out", "--positions", table)


def test_a_model_of_another_preprocessing_and_a_corrupt_one_end_a_search_with_one_line(sky, tmp_path, capsys):
    whole = write_model(tmp_path / "small.onnx", experiment_like(), size=48)
    (tmp_path / "cut.onnx").write_bytes(Path(whole).read_bytes()[:300])
    for name, why in (("small", "another preprocessing"), ("cut", "cut off"), ("none", "no such model")):
        flags = ["--model", str(tmp_path / f"{name}.onnx"), "--survey-source", str(sky[0])]
        assert main([*flags, "--out", str(tmp_path / "out"), "--cone", "10", "5", "1"]) == 1
        error = capsys.readouterr().err.strip()
        assert f"{name}.onnx" in error and why in error and len(error.splitlines()) == 1


def test_a_model_of_another_release_is_refused_unless_forced(sky, tmp_path):
    experiment = experiment_like(bricks_table="survey-bricks-dr9-north.fits.gz")
    other = write_model(tmp_path / "north.onnx", experiment)
    more = ("--positions", "p.csv", "--bricks-table", "survey-bricks-dr10-south.fits.gz")
    with pytest.raises(ModelError, match=r"dr9-north.*dr10-south"):
        search.experiment_of(arguments(other, sky, tmp_path / "out", *more))
    forced = search.experiment_of(arguments(other, sky, tmp_path / "out", *more, "--force"))
    assert forced.survey.bricks_table == "survey-bricks-dr10-south.fits.gz"


@pytest.mark.parametrize("area, why", [
    (("--cone", "200", "80", "1"), "outside the footprint"),
    (("--box", "10", "20", "5", "5"), "empty"),
    (("--bricks", "nonsense"), "neither a brick's name"),
    (("--positions", "HOURS"), "degrees or hours"),
    (("--positions", "SEXAGESIMAL"), "sexagesimal"),
])  # fmt: skip
def test_what_cannot_be_searched_ends_with_one_line(spark, sky, model, tmp_path, capsys, area, why):
    (tmp_path / "hours.csv").write_text("ra,dec\n12.5,3\n23.9,4\n")
    (tmp_path / "sexagesimal.csv").write_text("ra,dec\n12:30:00.1,+03:00:00\n")
    files = {"HOURS": str(tmp_path / "hours.csv"), "SEXAGESIMAL": str(tmp_path / "sexagesimal.csv")}
    flags = [files.get(word, word) for word in area]
    assert (
        main(["--model", model, "--survey-source", str(sky[0]), "--out", str(tmp_path / "out"), *flags]) == 1
    )
    error = capsys.readouterr().err.strip()
    assert why in error and len(error.splitlines()) == 1
