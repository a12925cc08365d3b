"""Stage 4a: rows from targets and from catalogues, resumed, limited, and short of hosts."""

import argparse
import csv
import dataclasses
from pathlib import Path

import fitsio
import numpy as np
import pytest
from survey_testing import SCALE

from darkhaloscope.dataset import DatasetError, committed_chunks, committed_parts, read_table
from darkhaloscope.experiment import from_dict
from darkhaloscope.injection.at_positions import stamps_at
from darkhaloscope.report.page import as_json, render_page
from darkhaloscope.stage import OutputRefused, place, read_record
from darkhaloscope.storage import join
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import read_positions
from darkhaloscope.validation.manifest import manifest_page
from spark_jobs import catalogue_manifest, coadd_cache, manifest, stamps, targets
from spark_jobs.phase4_pipeline import main

pytestmark = pytest.mark.xdist_group("spark")


def options(root, **more) -> argparse.Namespace:
    base = {
        "output_s3": str(root),
        "test_limit": None,
        "partitions": 2,
        "overwrite": False,
        "take_over": False,
    }
    return argparse.Namespace(**(base | {"catalogue_units": "", "catalogue_type": ""} | more))


def experiment_of(sky, name="e", splits=(0.5, 0.25, 0.25), **injection):
    return from_dict(
        {
            "name": "t", "variant": "t", "experiment_id": name, "seed": 3,
            "survey": {"source": str(sky[0])},
            "splits": dict(zip(("train", "val", "test"), splits, strict=True)),
            "injection": {"n_total_per_split": 1000} | injection,
            "limits": {"max_failed_fraction": 0.5},
        },
        "test",
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(spark, sky, tmp_path_factory):
    """A workspace with the targets of experiment "e"; other experiments borrow them."""
    root = tmp_path_factory.mktemp("manifests")
    targets.run(spark, experiment_of(sky), options(root))
    return root


def laid_out(spark, root, experiment, **more):
    borrowed = Path(place(str(root), "phase3", experiment))
    if not borrowed.exists():
        borrowed.symlink_to(borrowed.parent / "e")
    record = manifest.run(spark, experiment, options(root, **more))
    return record, read_table(place(str(root), "phase4a", experiment))


def test_rows_are_sorted_by_brick_and_id_each_once_and_counted(spark, root, sky):
    record, table = laid_out(spark, root, experiment_of(sky))
    keys = list(zip(table.column("brickname").to_pylist(), table.column("task_id").to_pylist(), strict=True))
    assert keys == sorted(keys) and len(set(table.column("task_id").to_pylist())) == table.num_rows
    counts = record["counts"]
    assert counts["rows"] == table.num_rows == sum(counts["rows_by_split"].values())
    assert counts["controls"] == sum(table.column("is_control").to_pylist())
    assert counts["bricks"] == len(set(table.column("brickname").to_pylist()))
    assert {r["quantity"] for r in record["balance"]} >= {
        "psfsize_r",
        "psfdepth_r",
        "mag_r",
        "ebv",
        "total_mag_r",
    }
    assert read_record(place(str(root), "phase4a", experiment_of(sky)))["balance"] == record["balance"]
    assert any("hosts ran out" in w for w in counts["warnings"])


def test_a_stopped_run_goes_on_with_the_chunks_that_are_missing(spark, root, sky, monkeypatch):
    monkeypatch.setattr(manifest, "RANGES_PER_CHUNK", 1)
    experiment = experiment_of(sky, "stopped")
    record, table = laid_out(spark, root, experiment)
    output = place(str(root), "phase4a", experiment)
    assert len(committed_chunks(output)) > 2
    before = {p.key for p in committed_parts(output)}
    Path(output, "chunk=00001", "_manifest.json").unlink()
    again, after = laid_out(spark, root, experiment, partitions=5)
    assert (
        after.equals(table) and again["counts"] == record["counts"] and again["balance"] == record["balance"]
    )
    changed = before ^ {p.key for p in committed_parts(output)}
    assert changed and {key.split("/")[0] for key in changed} == {"chunk=00001"}
    on_disk = {str(f.relative_to(output)) for f in Path(output).glob("chunk=*/part-*")}
    assert on_disk == {p.key for p in committed_parts(output)}


def test_a_limit_takes_the_first_targets_in_the_order_of_brick_and_host(spark, root, sky):
    experiment = experiment_of(sky, "limited")
    record, table = laid_out(spark, root, experiment, test_limit=20)
    found = read_table(place(str(root), "phase3", experiment)).sort_by(
        [("brickname", "ascending"), ("host_id", "ascending")]
    )
    assert record["counts"]["targets"] == 20
    assert set(table.column("host_id").to_pylist()) == set(found.column("host_id").to_pylist()[:20])


@pytest.mark.parametrize(("fraction", "controls"), [(0.0, {0}), (1.0, {1})])
def test_all_positives_and_all_controls(spark, root, sky, fraction, controls):
    record, table = laid_out(spark, root, experiment_of(sky, f"fraction{fraction:g}", control_frac=fraction))
    assert set(table.column("is_control").to_pylist()) == controls
    assert all(row["cohens_d"] is None for row in record["balance"])


def test_an_empty_split_is_named_with_what_to_do_and_the_rest_is_made(spark, sky, tmp_path):
    experiment = experiment_of(sky, splits=(1.0, 0.0, 0.0))
    targets.run(spark, experiment, options(tmp_path))
    record, table = laid_out(spark, tmp_path, experiment)
    assert set(table.column("region_split").to_pylist()) == {"train"}
    warned = [w for w in record["counts"]["warnings"] if "is empty" in w]
    assert len(warned) == 2 and "split val is empty" in warned[0] and "splits.val" in warned[0]


def test_a_host_that_is_twice_in_the_targets_is_refused(spark, root, sky, tmp_path):
    from darkhaloscope.dataset import commit_chunk, write_part
    from darkhaloscope.records import TARGETS
    from darkhaloscope.stage import StageRun

    experiment = experiment_of(sky)
    rows = read_table(place(str(root), "phase3", experiment)).cast(TARGETS.arrow())
    output = place(str(tmp_path), "phase3", experiment)
    with StageRun(output, "3", experiment, ("seed",), {}) as stage:
        parts = [
            write_part(output, 0, i, rows.slice(0, n).to_batches(), TARGETS.arrow())
            for i, n in enumerate((30, 1))
        ]
        commit_chunk(output, 0, parts)
        stage.finish()
    with pytest.raises(Exception, match=r"1 values of host_id occur more than once.*same stamp"):
        manifest.run(spark, experiment, options(tmp_path))


def write_catalogue(path: Path, rows: list[dict]) -> str:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture(scope="module")
def catalogue(sky, tmp_path_factory):
    """Two known lenses, a ring and an artefact on good bricks; what cannot be cut beside them."""
    bricks = fitsio.read(str(sky[0] / "survey-bricks-dr10-south.fits.gz"))
    at = {
        str(b["brickname"].decode() if isinstance(b["brickname"], bytes) else b["brickname"]): b
        for b in bricks
    }
    good = [at[n] for n in sky[1]["good"][1:5]]
    kinds = ("lens", "Lens", "ring", "artefact")
    rows = [
        {
            "name": f"object {i}",
            "RA_ICRS": b["ra"] + 20 * SCALE,
            "DE_ICRS": b["dec"],
            "kind": k,
            "theta_e": 1.1 if i == 0 else "",
        }
        for i, (b, k) in enumerate(zip(good, kinds, strict=True))
    ]
    rows.append(rows[0] | {"name": "again"})
    rows.append({"name": "north", "RA_ICRS": 200.0, "DE_ICRS": 80.0, "kind": "lens", "theta_e": ""})
    rows.append({"name": "nowhere", "RA_ICRS": "", "DE_ICRS": 5.0, "kind": "lens", "theta_e": ""})
    return write_catalogue(tmp_path_factory.mktemp("catalogue") / "known.csv", rows)


def test_a_catalogue_is_cut_by_the_same_stage_4c_as_injections(spark, sky, catalogue, tmp_path):
    experiment = experiment_of(sky, "known")
    record = catalogue_manifest.run(spark, experiment, options(tmp_path, catalogue=catalogue))
    counts = record["counts"]
    assert counts["catalogue_rows"] == counts["rows"] + sum(counts["left_out"].values()) == 7
    assert counts["left_out"]["duplicate"] == 1 and counts["left_out"]["position not on the sky"] == 1
    assert counts["left_out"]["outside the footprint"] == 1
    output = place(str(tmp_path), "phase4a", experiment)
    quarantine = read_table(output + "/quarantine").to_pylist()
    assert {"row 4 again", "row 5 north", "row 6 nowhere"} <= {r["unit"] for r in quarantine}
    for stage in (coadd_cache, stamps):
        stage.run(spark, experiment, options(tmp_path))
    made = {r["object_name"]: r for r in read_table(place(str(tmp_path), "phase4c", experiment)).to_pylist()}
    assert len(made) == counts["rows"] and all(r["cutout_ok"] == 1 for r in made.values())
    assert {n: (r["label"], r["sample"], r["object_type"]) for n, r in made.items()} == {
        "object 0": (1, "real_positive", "lens"),
        "object 1": (1, "real_positive", "lens"),
        "object 2": (0, "mimic", "ring"),
        "object 3": (0, "mimic", "artefact"),
    }
    for row in made.values():
        assert (row["is_control"], row["control_kind"], row["source_kind"]) == (1, "catalogue", "none")
        assert (row["metrics_ok"], row["metrics_reason"]) == (0, "no injection: a catalogue row")
        assert row["arc_snr"] is None and row["magnification"] is None and row["host_id"] < 0
        assert row["psfdepth_r"] == pytest.approx(24.5) and row["region_split"] in ("train", "val", "test")
    assert made["object 0"]["theta_over_psf"] == pytest.approx(1.1 / made["object 0"]["psfsize_r"])
    assert made["object 2"]["theta_over_psf"] is None
    without_spark = stamps_at(
        read_positions(catalogue),
        read_brick_table(join(experiment.survey.source, experiment.survey.bricks_table)),
        experiment.survey.source,
        experiment,
    )
    for row in without_spark.stamps.to_pylist():
        assert repr(row) == repr(made.pop(row["object_name"])), "the same stamps, without Spark"
    assert not made
    shown = as_json(manifest_page(output))
    assert [r["type"] for r in shown["sections"]["Rows"]["tables"]["Rows by class and split"]] == [
        "artefact",
        "ring",
        "lens",
    ]


def test_a_catalogue_in_hours_and_one_off_the_footprint_are_refused(spark, sky, tmp_path):
    experiment = experiment_of(sky, "bad")
    text = write_catalogue(tmp_path / "text.csv", [{"ra": "00:29:07.8", "dec": "-00:55:50", "type": "lens"}])
    with pytest.raises(CatalogueError, match="sexagesimal"):
        catalogue_manifest.run(spark, experiment, options(tmp_path, catalogue=text))
    off = write_catalogue(tmp_path / "off.csv", [{"ra": 200.0, "dec": 80.0, "type": "lens"}])
    with pytest.raises(DatasetError, match=r"none of its 1 rows can be cut.*outside the footprint"):
        catalogue_manifest.run(spark, experiment_of(sky, "off"), options(tmp_path, catalogue=off))


def test_a_catalogue_goes_with_stage_4a_only(capsys):
    with pytest.raises(SystemExit):
        main(["--stage", "4c", "--catalogue", "known.csv"])
    assert "--catalogue goes with --stage 4a" in capsys.readouterr().err


def test_the_page_counts_every_row_and_shows_the_balance(spark, root, sky):
    record, table = laid_out(spark, root, experiment_of(sky))
    page = manifest_page(place(str(root), "phase4a", experiment_of(sky)))
    shown = as_json(page)["sections"]
    assert sum(r["all"] for r in shown["Rows"]["tables"]["Rows by class and split"]) == table.num_rows
    assert shown["Rows"]["warnings"] == record["counts"]["warnings"]
    (quantiles,) = shown["Injections"]["tables"].values()
    theta = next(r for r in quantiles if r["quantity"] == "theta_e_arcsec" and r["rows"] == "positives")
    values = table.filter(np.array(table.column("label")) == 1).column("theta_e_arcsec").to_numpy()
    assert theta["N"] == len(values) and theta["50%"] == pytest.approx(np.median(values), abs=0.26)
    assert (theta["0%"], theta["100%"]) == (0.5, 2.5)
    per_brick = shown["Bricks, seeing and sky"]["tables"]["Rows per brick"][0]
    assert per_brick["bricks"] == record["counts"]["bricks"]
    assert "Cohen" in render_page(page)


def test_other_experiments_leave_a_manifest_alone(spark, root, sky):
    experiment = experiment_of(sky)
    _, before = laid_out(spark, root, experiment)
    with pytest.raises(OutputRefused, match="--overwrite"):
        manifest.run(spark, dataclasses.replace(experiment, seed=9), options(root))
    assert laid_out(spark, root, experiment)[1].equals(before)
