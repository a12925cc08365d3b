"""The candidate page in a browser: graded by real key presses, kept, exported, imported; inert and fluid.

Needs Chromium (`apt-get install chromium`); skips, saying so, where there is none.
"""

import csv
import json
import time

import numpy as np
import pytest
from chromium import chromium, installed
from fabricate_candidates import candidate_columns, galaxies, write_candidates
from PIL import Image

from evaluation.candidate_page import build
from evaluation.candidate_page.pictures import jpeg, sprite
from evaluation.candidates import main
from evaluation.grades import main as grades

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(installed() is None, reason="no Chromium on the PATH: apt-get install chromium"),
]

N = 40
HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    columns = candidate_columns(N, 1)
    columns["object_name"][0] = columns["known_name"][0] = HOSTILE
    columns["viewer_url"][0] = "javascript:document.title='run'"
    columns["bands"][0] = "gr"
    return write_candidates(tmp_path_factory.mktemp("search") / "candidates", columns)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        page.folder = next(tmp_path_factory.getbasetemp().glob("chromium*"))
        yield page


@pytest.fixture
def page(browser, root, tmp_path):
    """A fresh page of the catalogue, without grades."""
    assert main([root, "--out", str(tmp_path / "page")]) == 0
    browser.go(tmp_path / "page.html")
    browser.value("localStorage.clear()")
    browser.call("Page.reload")
    browser.wait("document.readyState === 'complete' && document.querySelectorAll('.card').length > 0")
    browser.faults.clear()
    yield browser
    browser.value("1")  # collects what was complained of last
    assert browser.faults == []


def text(page, selector):
    return page.value(f"document.querySelector({json.dumps(selector)})?.textContent")


def kept(page):
    """Item number -> grade, as the browser keeps them."""
    return page.value(
        "Object.fromEntries(Object.entries(localStorage).filter(([k]) => k.includes('/grader/'))"
        ".flatMap(([, v]) => Object.entries(JSON.parse(v))).map(([k, v]) => [k, v.grade]))"
    )


def choose(page, select, value):
    page.value(
        f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')); }})"
        f"(document.getElementById({json.dumps(select)}))"
    )


def exported(page):
    before = set(page.folder.glob("grades-*.csv"))
    page.click("#export")
    end = time.monotonic() + 20
    while not (new := set(page.folder.glob("grades-*.csv")) - before):
        assert time.monotonic() < end, "nothing was exported"
        time.sleep(0.1)
    return new.pop()


def name(page):
    page.click("#grader")
    page.type("ann")
    page.press("Enter", "Escape")


def test_a_page_is_graded_by_keyboard_exported_and_merged(page, root, tmp_path):
    name(page)
    page.press("a", "ArrowRight", "r", "Enter")
    assert text(page, "#viewer h2") == "DHS J010003.00-300000.0"
    page.press("b", "n")
    page.type('=blue, "ring"')
    page.press("Escape", "]", "c", "c", "u", "u", "Escape")
    assert text(page, "#done") == "3 of 40 graded"
    assert [v for v in kept(page).values() if v] == ["A", "reject", "B"]
    page.call("Page.reload")
    page.wait("document.querySelector('#done')?.textContent === '3 of 40 graded'")  # kept in the browser
    file = exported(page)
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    graded = {r["item"].removeprefix("DHS J01").removesuffix("-300000.0"): r["grade"] for r in rows}
    assert graded == {"0000.00": "A", "0002.00": "reject", "0003.00": "B", "0004.00": ""}
    noted = next(r for r in rows if r["notes"])
    assert (noted["item"], noted["notes"], noted["theta_e_arcsec"]) == (
        "DHS J010004.00-300000.0",
        '\'=blue, "ring"',
        "1.6",
    )
    assert (
        grades(["merge", str(file), "--key", str(tmp_path / "page.key.csv"), "--out", str(tmp_path / "m")])
        == 0
    )
    with (tmp_path / "m.csv").open() as stream:
        assert next(csv.DictReader(stream))["grade_ann"] == "A"

    page.value("localStorage.clear()")
    page.call("Page.reload")
    page.wait("document.querySelector('#done')?.textContent === '0 of 40 graded'")
    page.choose_file("#file", file)
    page.wait("!document.querySelector('#message').hidden")
    assert "type that name as grader first" in text(page, "#message")
    name(page)
    page.choose_file("#file", file)
    page.wait("document.querySelector('#done').textContent === '3 of 40 graded'")
    page.press("u")  # an import is one step
    assert text(page, "#done") == "0 of 40 graded"
    foreign = tmp_path / "foreign.csv"
    foreign.write_text(file.read_text().replace(rows[0]["page"], "0" * 16))
    page.choose_file("#file", foreign)
    page.wait(
        "document.querySelector('#message').textContent.includes('was not imported: row 2 is of page 0000')"
    )


def test_hostile_strings_are_inert(page):
    page.press("Enter")
    assert page.value("[...document.querySelectorAll('dd')].map(d => d.textContent)").count(HOSTILE) == 2
    assert page.value("document.querySelectorAll('img').length") == 0
    assert "run" not in page.value("document.title")
    assert page.value("[...document.links].map(a => a.protocol)") == [
        "https:",
        "https:",
    ]  # no javascript: link
    assert (
        page.value(
            "(e => { try { e.innerHTML = '<b>x</b>'; return 'written' } catch { return 'refused' } })(document.body)"
        )
        == "refused"
    )
    page.faults.clear()  # the refusal
    assert text(page, ".absent") == "no z"


def test_lists_are_sorted_filtered_and_searched(page):
    columns = candidate_columns(N, 1)
    for turned in (False, True):
        choose(page, "sort", "mag_r")
        page.press("Home")
        first = page.value("Number(document.querySelector('.card.selected').dataset.i)")
        assert first == (np.argmax if turned else np.argmin)(columns["mag_r"])
        page.click("#turn")
    choose(page, "sort", "page")
    choose(page, "filter", "known")
    assert text(page, "#count") == f"{sum(map(bool, columns['known_name'])) + 1} shown"  # and the hostile one
    choose(page, "filter", "ungraded")
    page.press("Home", "a", "b")  # a graded one leaves the list, and the next one is graded
    assert text(page, "#count") == "38 shown"
    assert kept(page) == {columns["name"][0]: "A", columns["name"][1]: "B"}
    choose(page, "filter", "all")
    page.press("/")
    page.type("J010007")
    assert text(page, "#count") == "1 shown"
    page.value(
        "(f => { f.value = '10.07 -30.0'; f.dispatchEvent(new Event('input')) })(document.getElementById('find'))"
    )
    assert text(page, "#count") == "3 shown"
    page.value(
        "(f => { f.value = 'nothing such'; f.dispatchEvent(new Event('input')) })(document.getElementById('find'))"
    )
    page.press("Escape", "a", "Enter", "u", "o", "ArrowDown")  # an empty list takes every key
    assert text(page, "#count").endswith("shown")


def test_the_circle_is_around_the_galaxy(page):
    page.press("Enter", "o")
    ring = page.value(
        "(r => [r.width, r.height])(document.querySelector('#viewer .circle').getBoundingClientRect())"
    )
    box = page.value("document.querySelector('#viewer .picture').getBoundingClientRect().width")
    wanted = 2 * 1.5 / (64 * 0.262) * box
    assert ring == pytest.approx([wanted, wanted], rel=0.02)
    page.press("ArrowRight", "ArrowLeft", "o")
    assert page.value("document.querySelectorAll('#viewer .circle').length") == 0


def test_each_card_shows_its_own_candidate_in_the_chosen_band(browser, tmp_path):
    stamps = np.zeros((N, 3, 64, 64), np.float32)
    stamps[21, 2, 32:] = 100  # z, the northern half
    root = write_candidates(tmp_path / "one", candidate_columns(N, 7, stamps=stamps))
    assert main([root]) == 0
    browser.go(f"{root}-page.html")
    browser.press("p", "p", "p", "p", "p")  # colour, faint, residual, g, r, z
    for i, north in ((20, False), (21, True), (22, False)):
        browser.press("Home", *["ArrowRight"] * i)
        selector = json.dumps(f".card[data-i='{i}'] .picture")
        corner = f"(b => [b.x, b.y, b.width])(document.querySelector({selector}).getBoundingClientRect())"
        box = browser.value(corner)
        browser.picture(tmp_path / "seen.png")
        seen = np.asarray(Image.open(tmp_path / "seen.png").convert("L"))
        x, top, bottom = (int(v) for v in (box[0] + box[2] / 2, box[1] + box[2] * 0.4, box[1] + box[2] * 0.6))
        assert (seen[top, x] > 200) == north and seen[bottom, x] < 100, i


def test_a_blinded_page_is_graded_without_names(browser, root, tmp_path):
    assert main([root, "--blind", "--repeats", "5", "--out", str(tmp_path / "blind")]) == 0
    browser.go(tmp_path / "blind.html")
    browser.press("Enter")
    shown = browser.value("document.body.innerText")
    assert "No. 1" in shown and "DHS J" not in shown and "logit" not in shown
    assert browser.value("document.links.length") == 0
    browser.press("a", "r")
    assert text(browser, "#done") == "2 of 45 graded"


def test_ten_thousand_candidates_stay_fluid(browser, tmp_path, monkeypatch):
    n = 10_000
    one = jpeg(sprite(galaxies(build.PER_SPRITE), np.full((build.PER_SPRITE, 2), 31.5), "grz"))
    monkeypatch.setattr(build, "sprites_of", lambda items: (one for _ in range(n // build.PER_SPRITE)))
    columns = candidate_columns(n, 4, stamps=np.zeros((n, 3, 64, 64), np.float32))
    assert main([write_candidates(tmp_path / "many", columns), "--out", str(tmp_path / "page")]) == 0
    browser.go(tmp_path / "page" / "index.html")
    browser.wait("document.querySelectorAll('.card').length > 0")
    most = browser.value(
        """new Promise(done => {
          const scroller = document.getElementById('gallery');
          let most = 0, frame = 0;
          const step = () => {
            scroller.scrollTop = scroller.scrollHeight * frame / 60;
            most = Math.max(most, document.querySelectorAll('.card').length);
            if (frame++ < 60) requestAnimationFrame(step); else done(most);
          };
          step();
        })"""
    )
    assert most < 120
    browser.press("End", "a")
    assert browser.value("[...document.querySelectorAll('.card.selected')].length") == 1
    assert text(browser, "#done") == "1 of 10,000 graded"
    loaded = """new Promise(done => {
      const image = new Image();
      image.onload = () => done(image.height);
      image.onerror = () => done(0);
      image.src = 'sprites/0624.jpg';
    })"""
    assert browser.value(loaded) == 16 * 64
    assert browser.faults == []
