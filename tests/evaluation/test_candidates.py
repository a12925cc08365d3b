"""The candidate page shows what the catalogue holds, gives nothing away when blinded, and runs nothing it was given."""

import base64
import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricate_candidates import candidate_columns, galaxies, write_candidates

from darkhaloscope.dataset import DatasetError, committed_files
from darkhaloscope.schema import SchemaError
from evaluation.candidate_page import build, order, pictures
from evaluation.candidate_page.catalogue import CatalogueError, read_catalogue
from evaluation.candidates import main
from evaluation.gradebook import CANDIDATE, LENS, NONLENS, REPEAT

N = 24
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><b>\u2028&amp;',
    "=HYPERLINK(1)",
]


class Parsed(HTMLParser):
    """Elements of a page, and the text of its scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.texts.append((*self.elements[-1], data))

    def data(self):
        return json.loads(next(t for tag, a, t in self.texts if a.get("id") == "data"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    columns = candidate_columns(N, 1)
    columns["object_name"][:4] = HOSTILE
    columns["viewer_url"][0] = "javascript:alert(1)"
    worst_first = {name: cells[::-1] for name, cells in columns.items()}
    return write_candidates(tmp_path_factory.mktemp("search") / "candidates", worst_first)


@pytest.fixture(scope="module")
def catalogue(root):
    return read_catalogue(root)


@pytest.fixture(scope="module")
def page(root):
    assert main([root, "--title", "<b>&"]) == 0
    return Path(f"{root}-page.html").read_text()


def key_rows(out):
    with Path(f"{out}.key.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_candidate_with_pixels_is_on_the_page_best_first(page, root):
    data = Parsed(page).data()
    assert data["values"]["rank"] == list(range(1, N + 1))
    assert data["n_rows"] == N + 2  # the refused ones are counted, not shown
    assert [r["name"] for r in key_rows(f"{root}-page")] == data["items"]
    assert data["values"]["maskbits_any"][:2] == ["BRIGHT MEDIUM", "none"]
    assert len(data["sprites"]) == -(-N // build.PER_SPRITE)


def test_hostile_strings_are_data_and_nothing_else(page):
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.elements].count("script") == 2
    assert not any(name.startswith("on") for _, attrs in parsed.elements for name in attrs)
    assert parsed.data()["values"]["object_name"][:4] == HOSTILE
    written = page.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&") & set(written)
    assert "<title>&lt;b&gt;&amp;" in page


def test_the_policy_allows_this_script_and_style_and_no_other_source(page):
    parsed = Parsed(page)
    policy = next(
        a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    for wanted in ("script", "style"):
        text = next(t for tag, a, t in parsed.texts if tag == wanted and a.get("id") != "data")
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    assert not any(a.get("src") or a.get("href") for _, a in parsed.elements)


def test_no_script_of_the_page_writes_markup():
    for name in build.SCRIPTS:
        text = files("evaluation.candidate_page").joinpath(name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text
        ), name
        assert "</script" not in text


def test_beyond_one_file_the_pictures_lie_beside_the_page(root, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ONE_FILE", 10)
    stale = tmp_path / "page" / "sprites" / "0099.jpg"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert main([root, "--out", str(tmp_path / "page"), "--top", "20"]) == 0
    data = Parsed((tmp_path / "page" / "index.html").read_text()).data()
    assert data["sprites"] == ["sprites/0000.jpg", "sprites/0001.jpg"] and len(data["items"]) == 20
    assert all((tmp_path / "page" / s).read_bytes()[:2] == b"\xff\xd8" for s in data["sprites"])
    assert not stale.exists()


def test_a_blinded_page_does_not_hold_the_answer(root, catalogue, tmp_path):
    lenses = write_candidates(tmp_path / "lenses", candidate_columns(6, 2))
    nonlenses = write_candidates(tmp_path / "nonlenses", candidate_columns(6, 3))
    out = str(tmp_path / "blind")
    options = ["--blind", "--repeats", "3", "--planted", "4", "--out", out]
    assert main([root, *options, "--planted-lenses", lenses, "--planted-nonlenses", nonlenses]) == 0
    text, key = Path(f"{out}.html").read_text(), key_rows(out)
    data = Parsed(text).data()
    said = json.dumps(data)
    assert data["items"] == [r["item"] for r in key]
    kinds = [r["kind"] for r in key]
    assert {k: kinds.count(k) for k in (CANDIDATE, REPEAT, LENS)} == {CANDIDATE: N, REPEAT: 3, LENS: 4}
    assert kinds.count(NONLENS) == 4
    for secret in (
        *(r["name"] for r in key),
        "known lens",
        "legacysurvey",
        '"ra"',
        '"logit"',
        LENS + '"',
        REPEAT + '"',
    ):
        assert secret not in said
    assert set(data["values"]) <= {f["name"] for f in data["facts"]} and "rank" not in data["values"]


def test_a_blinded_order_is_drawn_by_the_seed_and_repeats_come_late(catalogue):
    first, same, other = (order.blinded(catalogue, seed, repeats=4) for seed in (1, 1, 2))
    assert [i.item for i in first] == [i.item for i in same]
    assert [i.name for i in first] != [i.name for i in other] != [i.name for i in order.by_rank(catalogue)]
    assert order.page_id(first) == order.page_id(same) != order.page_id(other)
    assert len({i.item for i in first}) == len(first)
    names = [i.name for i in first]
    for at, item in enumerate(first):
        if item.kind == REPEAT:
            assert at - names.index(item.name) >= N // 3


def test_what_is_a_candidate_or_a_known_lens_is_not_planted_as_something_else(catalogue, tmp_path):
    columns = candidate_columns(8, 2, known_name=["a lens", *[""] * 7])
    columns["ra"][1] = catalogue.table.column("ra")[5].as_py()  # a candidate of the page
    plants = read_catalogue(write_candidates(tmp_path / "plants", columns))
    shown = order.blinded(catalogue, 0, lenses=plants)
    assert [i.row for i in shown if i.kind == LENS].count(1) == 0 and sum(i.kind == LENS for i in shown) == 7
    shown = order.blinded(catalogue, 0, nonlenses=plants)
    assert {i.row for i in shown if i.kind == NONLENS} == set(range(2, 8))


def test_refusals_say_what_is_wrong(root, tmp_path, capsys):
    def refusal(change=None, n=4):
        place = tmp_path / f"c{len(list(tmp_path.iterdir()))}"
        columns = candidate_columns(n, 5)
        if change:
            change(columns)
        write_candidates(place, columns)
        return place

    with pytest.raises(CatalogueError, match="none of its 2 rows has a score and a stamp"):
        read_catalogue(str(refusal(n=0)))
    damaged = refusal(lambda c: c["stamp"].__setitem__(2, c["stamp"][2][:-4]))
    with pytest.raises(
        CatalogueError, match=r"stamp of 'DHS J050002.00-300000.0' \(and 0 more\) is not 3,64,64"
    ):
        read_catalogue(str(damaged))
    with pytest.raises(CatalogueError, match="'twin' names two rows"):
        read_catalogue(str(refusal(lambda c: c["name"].__setitem__(slice(0, 2), ["twin", "twin"]))))
    cut = refusal()
    file = Path(committed_files(str(cut))[0])
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DatasetError, match="not a readable Parquet file"):
        read_catalogue(str(cut))
    other = refusal()
    file = Path(committed_files(str(other))[0])
    pq.write_table(pq.read_table(file).drop_columns(["logit"]), file)
    with pytest.raises(SchemaError, match="missing column 'logit'"):
        read_catalogue(str(other))
    with pytest.raises(CatalogueError, match="repeats asked for, but only 8"):
        order.blinded(read_catalogue(root), 0, repeats=20)
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no committed chunk" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([root, "--repeats", "3"])
    assert "--repeats: only with --blind" in capsys.readouterr().err


def test_a_damaged_page_of_a_file_is_named(root, tmp_path):
    columns = candidate_columns(4, 6)
    place = write_candidates(tmp_path / "flipped", columns)
    file = Path(committed_files(place)[0])
    content = bytearray(file.read_bytes())
    content[200:4000] = bytes(3800)
    file.write_bytes(bytes(content))
    with pytest.raises(DatasetError, match="run the search again"):
        read_catalogue(place)


@pytest.mark.parametrize("shift", [0.0, 0.3, -1.45])
def test_the_turn_about_the_galaxy_takes_all_that_is_symmetric(shift):
    centre = 31.5 + shift
    y, x = np.mgrid[:64, :64] - centre
    bulge = np.exp(-(x**2 + 2 * y**2 + x * y) / (2 * 2.0**2))
    arc = 0.2 * np.exp(-((x - 6) ** 2 + (y + 1) ** 2) / (2 * 2.0**2))
    at = np.array([[centre, centre]])
    residual = bulge - pictures.turned(bulge[None, None], at)[0, 0]
    assert np.nanmax(np.abs(residual)) < 0.01
    with_arc = bulge + arc - pictures.turned((bulge + arc)[None, None], at)[0, 0]
    row, column = round(centre - 1), round(centre + 6)
    assert with_arc[row, column] == pytest.approx(arc[row, column], abs=0.01)
    assert np.isnan(residual).any() == (shift != 0)


def test_north_is_up_and_each_picture_is_its_own_candidates():
    stamps, centres = galaxies(3), np.full((3, 2), 31.5)
    stamps[0, :, 60, 5] = 50.0  # north, +x
    stamps[1, 1, 10, 10] = np.nan
    together = pictures.sprite(stamps, centres, "grz")
    assert together.shape == (3 * 64, 6 * 64, 3)
    for i in range(3):
        alone = pictures.sprite(stamps[i : i + 1], centres[i : i + 1], "grz")
        np.testing.assert_array_equal(together[64 * i : 64 * (i + 1)], alone)
    assert together[63 - 60, 5].max() == 255
    assert [name for name, _ in pictures.panels("grz")][-3:] == ["band_g", "band_r", "band_z"]
