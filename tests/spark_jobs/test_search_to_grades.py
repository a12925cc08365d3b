"""From lenses planted in a sky to a graded catalogue: the page that a search left is graded by real key presses.

Needs Chromium (`apt-get install chromium`) and lenstronomy; skips, saying so, where one is missing.
"""

import csv
import json
import time
from pathlib import Path

import fitsio
import numpy as np
import pytest
from chromium import chromium, installed
from tiny_model import experiment_like, write_model

from darkhaloscope.dataset import read_table
from evaluation.candidates import main as make_page
from evaluation.grades import main as grades
from local_spark.planted import draw_lenses, plant
from spark_jobs.search_pipeline import main as search

pytest.importorskip("lenstronomy", reason="lenstronomy is not installed: pip install 'darkhaloscope[sim]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("spark"),
    pytest.mark.skipif(installed() is None, reason="no Chromium on the PATH: apt-get install chromium"),
]

LOCAL = Path(__file__).resolve().parents[2] / "search-out"  # of make search-local


@pytest.fixture(scope="module")
def small(spark, sky, tmp_path_factory):
    """(candidates, page, names of planted lenses) of a search of a brick of the small sky with four planted lenses."""
    base = tmp_path_factory.mktemp("planted")
    brick = sky[1]["good"][2]
    rows = fitsio.read(str(sky[0] / "sweep/10.1/sweep-000m090-360p090.fits"))
    rows = rows[(rows["BRICKNAME"].astype(str) == brick) & (rows["TYPE"].astype(str) == "DEV")]
    hosts = {"ra": rows["RA"], "dec": rows["DEC"], "mag_r": 22.5 - 2.5 * np.log10(rows["FLUX_R"])}
    planted = plant(sky[0], base / "sky", brick, draw_lenses(hosts, 4, 2), 1)
    assert len(planted) > 1
    flags = ["--model", write_model(base / "finder.onnx", experiment_like()), "--bricks", brick]
    flags += ["--survey-source", str(base / "sky"), "--known", str(base / "sky/planted.csv")]
    assert search([*flags, "--out", str(base / "found"), "--partitions", "2"]) == 0
    candidates = str(base / "found/candidates")
    assert make_page([candidates, "--out", str(base / "page")]) == 0
    return candidates, base / "page.html", {lens.name for lens in planted}


@pytest.fixture(scope="module")
def local():
    """The same of `make search-local`."""
    if not (LOCAL / "page.html").exists():
        pytest.skip(f"no page at {LOCAL}: make search-local first")
    with (LOCAL / "sky/planted.csv").open() as stream:
        names = {row["name"] for row in csv.DictReader(stream)}
    return str(LOCAL / "found/candidates"), LOCAL / "page.html", names


@pytest.mark.parametrize("which", ["small", "local"])
def test_the_page_of_a_search_is_graded_by_keyboard_and_the_grades_are_of_its_candidates(
    which, request, tmp_path
):
    candidates, page, planted = request.getfixturevalue(which)
    rows = [r for r in read_table(candidates).to_pylist() if r["rank"] and r["stamp"]]
    rows = sorted(rows, key=lambda r: r["rank"])
    with chromium(tmp_path) as browser:
        browser.go(page)
        browser.wait("document.querySelectorAll('.card').length > 0")
        browser.click("#grader")
        browser.type("ann")
        browser.press("Enter", "Escape", "Home", "Enter")  # looks at the first, large
        shown = browser.value("document.querySelector('#viewer h2').textContent")
        assert shown == rows[0]["name"]
        browser.press("Escape", *("a" if r["known_name"] else "r" for r in rows))
        done = browser.value("document.querySelector('#done').textContent")
        assert done == f"{len(rows)} of {len(rows)} graded"
        browser.click("#export")
        end = time.monotonic() + 20
        while not (files := list(tmp_path.glob("grades-*.csv"))):
            assert time.monotonic() < end, "nothing was exported"
            time.sleep(0.1)
        assert browser.faults == []
    key = page.with_name(page.stem + ".key.csv")
    out = tmp_path / "merged"
    assert grades(["merge", str(files[0]), "--key", str(key), "--out", str(out)]) == 0
    with out.with_suffix(".csv").open(newline="") as stream:
        merged = {r["name"]: r for r in csv.DictReader(stream)}
    assert merged.keys() == {r["name"] for r in rows}
    for row in rows:
        found = merged[row["name"]]
        assert found["consensus"] == ("A" if row["known_name"] else "reject")
        assert float(found["ra"]) == row["ra"] and int(found["rank"]) == row["rank"]
    assert {r["known_name"] for r in rows if r["known_name"]} == planted
    counts = json.loads(out.with_suffix(".json").read_text())["graders"]["ann"]["candidates"]
    assert counts["A"] == len(planted) and counts["reject"] == len(rows) - len(planted)
