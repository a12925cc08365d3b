"""Validation reports say what the tables hold, warn of what is wrong, and fail only for an error."""

import json

import numpy as np
import pytest

from darkhaloscope.dataset import DatasetError, commit_chunk, write_part
from darkhaloscope.experiment import from_dict, load
from darkhaloscope.records import ASSETS, STAMPS, stamp_metadata
from darkhaloscope.report.page import Page
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, place
from darkhaloscope.survey.bricks import names_at
from darkhaloscope.validation.__main__ import main
from darkhaloscope.validation.cache import cache_page
from darkhaloscope.validation.pages import FOLDER
from darkhaloscope.validation.records import counted, kind_of, quantile_table, record_section
from darkhaloscope.validation.stamps import read_stamps, stamps_page

TOML = 'name = "t"\nvariant = "v"\nexperiment_id = "e"\n'
BRICKS = names_at(
    np.array([59.1, 59.4, 121.6, 200.1, 300.1]), np.array([-30.5, -30.5, 19.0, 0.2, 5.7])
).tolist()


def write_cache(root):
    n = len(BRICKS)
    rows = {
        "brickname": BRICKS,
        "status": ["cached", "cached", "missing", "failed", "failed"],
        "cause": ["", "not found", "not found", "HTTP 503", "stalled"],
        "reason": ["", "x", "x", "<b>503</b>", "x"],
        "bands": ["grz", "gr", "", "", ""],
        "files": [10, 7, 0, 2, 0],
        "bytes": [80_000_000, 60_000_000, 0, 5, 0],
        "by_checksum": [10, 0, 0, 0, 0],
        "seconds": [1.0] * n,
        "tried": [1e9] * n,
    }
    commit_chunk(root, 0, [write_part(root, 0, 0, [to_batch(ASSETS, rows)], ASSETS.arrow())])


def stamp_columns(n=40, size=8):
    """Rows of `STAMPS`: half controls, in worse seeing; the first four failed."""
    rng = np.random.default_rng(2)
    columns = {}
    for column in STAMPS.columns:
        kind = str(column.type)
        columns[column.name] = (
            ["x"] * n if kind == "string" else np.ones(n) if kind in ("float", "double") else [0] * n
        )
    control = np.arange(n) % 2
    ok = (np.arange(n) >= 4).astype(int)
    failed = [f"{b}: image-r has 1,234 bytes; file is truncated" for b in BRICKS[:4]]
    columns |= {
        "task_id": [f"{i:032x}" for i in range(n)],
        "is_control": control,
        "label": 1 - control,
        "cutout_ok": ok,
        "metrics_ok": ok,
        "region_split": ["train"] * 30 + ["test"] * 10,
        "failure_reason": failed + [""] * (n - 4),
        "metrics_reason": [""] * n,
        "psfsize_r": 1.3 + 0.4 * control + rng.normal(0, 0.1, n),
        "arc_snr": rng.uniform(1, 100, n),
        "stamp": [
            rng.normal(0, 0.01, (3, size, size)).astype("<f4").tobytes() if good else None for good in ok
        ],
    }
    return columns


def write_stamps(root):
    metadata = stamp_metadata(size=8)
    batch = to_batch(STAMPS, stamp_columns(), metadata)
    commit_chunk(root, 0, [write_part(root, 0, 0, [batch], STAMPS.arrow(metadata), rows_per_group=10)])


@pytest.fixture
def workspace(tmp_path):
    """A workspace in which 4b and 4c have finished, and its experiment file."""
    toml = tmp_path / "t.toml"
    toml.write_text(TOML)
    experiment = load(toml)
    for stage, folder, write in (("4b", "phase4b", write_cache), ("4c", "phase4c", write_stamps)):
        root = place(str(tmp_path), folder, experiment)
        with StageRun(root, stage, experiment, (), {"manifest": "abc"}) as run:
            write(root)
            run.finish(rows=5, reasons={"HTTP 503": 1})
    return tmp_path, str(toml), experiment


def table(page, section, caption):
    (found,) = [t for s in page.sections if s.title == section for t in s.tables if t.title == caption]
    return {row[0]: row[1:] for row in found.rows}


def warnings(page):
    return " ".join(w for s in page.sections for w in s.warnings)


def test_the_cache_page_counts_bricks_by_status_bands_cause_and_size(workspace):
    root, _, experiment = workspace
    page = cache_page(place(str(root), "phase4b", experiment))
    counts = {name: row[0] for name, row in table(page, "Bricks", "").items()}
    assert counts == {"cached": 2, "missing": 1, "failed": 2}
    assert "2 bricks failed" in warnings(page) and "1 cached bricks lack a band" in warnings(page)
    causes = table(page, "What is wrong", "Causes")
    assert causes["failed: HTTP 503"] == (1,) and causes["missing: not found"] == (1,)
    assert table(page, "Bricks", "How files were verified")["by size and structure"] == (9,)
    sizes = table(page, "Sizes and times", "Cached bricks")["MB a brick"]
    assert (sizes[0], sizes[5]) == (2, 70.0)
    assert sum(len(s.charts) for s in page.sections) == 2


def test_the_stamps_page_counts_rows_by_split_class_and_reason(workspace):
    root, _, experiment = workspace
    output = place(str(root), "phase4c", experiment)
    page = stamps_page(output)
    rows = next(t.rows for s in page.sections if s.title == "Rows" for t in s.tables)
    assert ("train", "injections", 15, 13, 2, "13.3 %") in rows and (
        "test",
        "controls",
        5,
        5,
        0,
        "0.0 %",
    ) in rows
    assert table(page, "What is wrong", "No stamp") == {
        "<brick>: image-r has # bytes; file is truncated": (4,)
    }
    measured = table(page, "What was measured", "Arcs of injections")["arc_snr"]
    assert measured[0] == 18
    stamps = read_stamps(output)
    assert np.isclose(measured[5], np.median(stamps.columns["arc_snr"][~stamps.control]))
    assert [s.title for s in page.sections if len(s.charts) > 1] == ["Class balance", "Some stamps"]


def test_a_condition_that_tells_the_classes_apart_is_a_warning_and_one_that_does_not_is_none(workspace):
    root, _, experiment = workspace
    page = stamps_page(place(str(root), "phase4c", experiment))
    assert "psfsize_r differs" in warnings(page) and "ebv" not in warnings(page)
    assert table(page, "Class balance", "Injections beside controls")["psfsize_r"][2] < -2


def test_stamps_are_counted_without_reading_pixels(workspace, monkeypatch):
    root, _, experiment = workspace
    from pyarrow.parquet import ParquetFile

    read, whole = [], ParquetFile.iter_batches
    monkeypatch.setattr(
        ParquetFile,
        "iter_batches",
        lambda self, n, columns: read.append(columns) or whole(self, n, columns=columns),
    )
    read_stamps(place(str(root), "phase4c", experiment))
    assert read and all("stamp" not in columns for columns in read)


def test_the_command_writes_pages_and_numbers_beside_the_stages_and_one_that_leads_to_them(workspace, capsys):
    root, toml, _ = workspace
    assert main(["--root", str(root), "--experiment", toml]) == 0
    said = capsys.readouterr().out
    for folder in ("phase4b", "phase4c"):
        output = root / folder / "v" / "e" / FOLDER
        html, numbers = (
            (output / "index.html").read_text(),
            json.loads((output / "validation.json").read_text()),
        )
        assert str(output / "index.html") in said
        assert "<b>503" not in html and ("&lt;b&gt;503" in html) == (folder == "phase4b")
        assert numbers["facts"]["config hash"] and numbers["sections"]
    assert "warning: 2 bricks failed" in said
    assert "4d    has not run" in said and "pack  has not run" in said
    index = root / FOLDER / "v" / "e"
    page = (index / "index.html").read_text()
    assert "psfsize_r differs" in page and "has not run" in page
    assert (index / "../../../phase4b/v/e/validation/index.html").resolve().exists()
    assert 'href="../../../phase4b/v/e/validation/index.html"' in page


def test_a_stage_that_did_not_finish_is_said_and_a_table_that_cannot_be_read_is_an_error(workspace, capsys):
    root, toml, experiment = workspace
    output = place(str(root), "phase4d", experiment)
    with StageRun(output, "4d", experiment, (), {}):
        pass
    assert main(["--root", str(root), "--experiment", toml, "--stage", "4d"]) == 0
    assert "is running, not done" in capsys.readouterr().out
    (part,) = (root / "phase4b" / "v" / "e").glob("chunk=*/*.parquet")
    part.write_bytes(b"no parquet")
    assert main(["--root", str(root), "--experiment", toml, "--stage", "4b"]) == 1
    assert "not a readable Parquet file" in capsys.readouterr().err


def test_a_workspace_in_which_nothing_has_run_is_an_error(workspace, tmp_path, capsys):
    assert main(["--root", str(tmp_path / "nowhere"), "--experiment", workspace[1]]) == 1
    assert "no stage of v/e has run there" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_cache_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="run stage 4b first"):
        cache_page(str(tmp_path))


def test_the_record_of_a_run_is_shown_whole(tmp_path):
    experiment = from_dict({"name": "x", "variant": "v", "experiment_id": "e"}, "test")
    with StageRun(str(tmp_path), "4d", experiment, (), {"stamps": "abc"}) as run:
        record = run.finish(injections=7, by={"split": 3})
    page = Page("Stage", "", {}, [record_section(record)])
    counts = table(page, "Record of the run", "What the stage counted")
    assert (counts["injections"], counts["by: split"]) == ((7,), (3,))


def test_reasons_are_counted_by_kind_and_quantiles_leave_out_what_is_no_number():
    reason = "0591m305: https://x.org/a/b.fits: HTTP 503, 12,345.6 bytes in /tmp/x"
    assert kind_of(reason) == "<brick>: <path> HTTP #, # bytes in <path>"
    assert counted({"a": 1, "b": 3, "c": 2}, most=2) == [("b", 3), ("c", 2), ("1 further kinds", 1)]
    made = quantile_table({"x": np.array([1.0, np.nan, 3.0]), "none": np.array([np.nan])}, "q").rows
    assert made[0][:3] == ("x", 2, 1) and made[0][6] == 2.0 and made[1][3] is None
