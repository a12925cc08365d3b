"""The page of a run: self-contained, escaped, true to the files, and open about what is missing."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from fabricate import EXPERIMENT, HOSTILE, SVG, write_record, write_sections, write_workspace
from matplotlib.image import imread

from darkhaloscope.page import duration, number, percent
from darkhaloscope.pictures import lupton_rgb
from darkhaloscope.validation.examples import CHOICE, choose, read_choice
from evaluation.gallery import pictures
from evaluation.report import as_json, extremes, galleries, main, render
from evaluation.scores import Scores, read_scores
from evaluation.workspace import Missing, WorkspaceError, hash_faults, read_workspace

PARTS = f"{EXPERIMENT.variant}/{EXPERIMENT.experiment_id}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    write_workspace(root, 120)
    return root


@pytest.fixture(scope="module")
def page(run):
    assert main([str(run)]) == 0
    return (run / "report" / "index.html").read_text()


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_the_page_needs_nothing_but_itself(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    kinds = {"data:image/png;base64,": b"\x89PNG", "data:image/svg+xml;base64,": b"<svg"}
    pictures = {s: magic for s in sources for kind, magic in kinds.items() if s.startswith(kind)}
    assert len(pictures) > 60
    assert all(base64.b64decode(s.split(",")[1]).startswith(magic) for s, magic in pictures.items())
    assert all(s.startswith("#") for s in sources if s not in pictures)
    assert not re.search(r"<script|<link|<iframe|@import|url\(", page)
    assert "default-src 'none'; img-src data:" in page
    anchors = {s[1:] for s in sources if s.startswith("#")}
    assert anchors <= set(re.findall(r'id="(\w+)"', page))


def test_text_from_the_data_is_shown_and_never_run(page):
    escaped = "&lt;script&gt;alert(&#39;brick&#39;)&lt;/script&gt; &amp; &#34;quoted&#34; ${x} {{ 7 * 6 }}"
    assert page.count(escaped) > 30  # captions, quarantine, failure reasons
    assert HOSTILE not in page
    assert "BrickMissing" in page


def test_the_numbers_on_the_page_are_those_of_the_files(run, page):
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    n, figures = metrics["n"], metrics["figures"]
    assert (
        f"{n['positives']} injections on {n['positive_hosts']} galaxies and {n['negatives']} control galaxies"
        in page
    )
    for name, figure in figures.items():
        assert f"<td>{name}</td>" in page
        assert f"{number(figure['low'])} to {number(figure['high'])}" in page
        assert f"{number(figure['cell_low'])} to {number(figure['cell_high'])}" in page
    assert page.count('<span class="tag">unresolved</span>') == len(metrics["unresolved"]) == 7
    for found in (metrics["scores_hash"], EXPERIMENT.digest(), *read_workspace(str(run)).hashes.values()):
        assert found in page
    assert "1.6 min in all: sky 31.5 s, train 62.0 s." in page
    assert "5,000" in page  # sweep rows read, of stage 3's record
    assert "<b>Missing:" not in page and "Does not belong together" not in page


def test_every_check_is_a_section_with_its_verdict_tables_and_pictures(run, page):
    for title, anchor, verdict in (
        ("Shortcut gates", "check_gates", "pass"),
        ("Realism probe", "check_probe_real", "fail"),
    ):
        assert f'<section id="{anchor}">' in page and f'<a href="#{anchor}">{title}</a>' in page
        assert re.search(rf"<span>{title}</span><b>{verdict}</b>", page)
    assert '<span class="verdict bad">fail</span>' in page
    assert f"data:image/svg+xml;base64,{base64.b64encode(SVG.encode()).decode()}" in page
    assert "evaluation/lost.png" in page  # a picture that is not there is said not to be
    assert "../outside.svg: expected the name of an SVG or PNG file" in page
    assert "column 11 with a long name" in page and ">0.1429<" in page


def test_purity_and_calibration_are_those_of_the_files(run, page):
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    for row in metrics["purity"]:
        assert percent(row["value"]) in page and percent(row["high"]) in page
    assert "<b>Not calibrated.</b>" in page
    for name, found in metrics["calibration"]["reliability"].items():
        assert f'<td>{name}</td><td class="n">{number(found["ece"])}</td>' in page


def test_programs_find_all_that_the_page_shows(run, page, copy):
    def strict(text):
        return json.loads(text, parse_constant=lambda name: pytest.fail(name))

    content = strict((run / "report" / "report.json").read_text())
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert content["metrics"] == metrics
    assert content["sections"]["gates"]["figures"] == {"core": {"auc": 0.51}}
    assert content["hashes"] == read_workspace(str(run)).hashes
    assert content["stages"]["phase4c"]["counts"]["failed"] == 3 and len(content["failures"]) == 1
    assert content["does_not_belong_together"] == []
    shutil.rmtree(copy / "training")
    assert "training/train.py writes it" in as_json(read_workspace(str(copy)))["training"]["missing"]


def test_what_is_not_there_is_named_with_the_reason(copy):
    for part in ("evaluation", "training", "scores", "phase4c", "phase4d", "pack", "phase4b"):
        shutil.rmtree(copy / part)
    page = render(read_workspace(str(copy)))
    for name in ("stage phase4b", "stage phase4c", "stage pack", "training", "scores", "figures", "pictures"):
        assert f"<b>Missing: {name}.</b>" in page
    assert "phase4d has not run" in page
    assert "python -m evaluation.evaluate writes it" in page
    assert "stage phase3." not in page


def test_an_unfinished_stage_and_an_unended_epoch_are_said_to_be(copy):
    record = copy / "phase4c" / PARTS / "_stage_config.json"
    content = json.loads(record.read_text())
    del content["counts"], content["seconds"]
    record.write_text(json.dumps(content | {"state": "running"}))
    for part in ("evaluation", "phase4d"):
        shutil.rmtree(copy / part)
    log = copy / "training" / EXPERIMENT.name / "log.jsonl"
    log.write_text('{"event": "start", "step": 0}\n{"event": "epo')
    page = render(read_workspace(str(copy)))
    assert "<b>running</b>, not done" in page
    assert "no epoch has ended yet" in page


def test_figures_of_another_run_are_not_shown_as_this_ones(copy):
    assert hash_faults(read_workspace(str(copy))) == []
    file = copy / "evaluation" / "metrics.json"
    file.write_text(file.read_text().replace(json.loads(file.read_text())["scores_hash"], "f" * 16))
    write_record(copy / "phase4c" / PARTS, "4c", {"rows": 1}, {"manifest": "e" * 16})
    write_record(copy / "phase3" / PARTS, "3", {"rows": 1}, {"sweeps": "9" * 16})  # from outside: no fault
    write_sections(copy / "evaluation", {"scores": "a" * 16, "checkpoint": "b" * 64, "catalogue": "8" * 16})
    shutil.rmtree(copy / "pack" / PARTS / "split=train")
    faults = "\n".join(hash_faults(read_workspace(str(copy))))
    assert "metrics.json is of the scores ffffffffffffffff; those here are" in faults
    assert "phase4c was made from manifest eeeeeeeeeeeeeeee, which no stage here has" in faults
    assert "section gates is of scores aaaaaaaaaaaaaaaa; those here are" in faults
    assert f"section gates is of checkpoint {'b' * 64}; those here are {'c' * 16}" in faults
    assert "8" * 16 not in faults and "9" * 16 not in faults
    assert "training read the train shards" in faults and "those here are absent" in faults


def test_figures_of_an_older_format_are_not_misread(copy):
    file = copy / "evaluation" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))
    metrics = read_workspace(str(copy)).metrics
    assert isinstance(metrics, Missing) and "format 0, this code reads 2" in metrics.reason


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no stage left a _stage_config.json here" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_one_of_several_experiments_must_be_named(copy):
    other = copy / "phase3" / "v" / "other" / "_stage_config.json"
    other.parent.mkdir(parents=True)
    content = json.loads((copy / "phase3" / PARTS / "_stage_config.json").read_text())
    content["experiment"]["experiment_id"] = "other"
    other.write_text(json.dumps(content))
    with pytest.raises(WorkspaceError, match=r"holds 2 experiments.*\['other', 'train_fabricated'\]"):
        read_workspace(str(copy))
    assert read_workspace(str(copy), "train_fabricated").experiment == EXPERIMENT
    with pytest.raises(WorkspaceError, match="no experiment 'third'"):
        read_workspace(str(copy), "third")


def decoded(uri):
    image = imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")
    return (image[::-1, :, :3] * 255).round().astype(np.uint8)


def test_the_pictures_show_the_coadd_without_the_arc_the_arc_and_their_sum(run):
    root = str(run / "phase4c" / PARTS)
    arcs, controls = choose(read_choice(root), 2, 1)
    injected, control = pictures(root, [arcs[-1], controls[0]], EXPERIMENT, {arcs[-1]: 1.5})
    assert (injected.logit, control.logit) == (1.5, None)
    coadd, arc, stamp = (decoded(p).astype(int) for p in (injected.coadd, injected.arc, injected.stamp))
    radius = np.hypot(*np.mgrid[-32:32, -32:32]) * 0.262
    ring = np.abs(radius - injected.facts["theta_e_arcsec"]) < 0.3
    far = radius > 6
    assert stamp[ring].sum() > 1.1 * coadd[ring].sum()  # the arc is in the stamp and not in the coadd
    assert arc[ring].sum() > 3 * arc[far].mean() * arc[ring].size
    assert np.abs(coadd[far] - stamp[far]).max() <= 3  # of 255: the faint wings of the source
    assert control.coadd == control.stamp
    assert control.arc != control.coadd


def test_pictures_are_drawn_with_north_up():
    image = np.zeros((3, 64, 64))
    image[:, 50:, :] = 1.0  # high y
    from evaluation.gallery import _png

    top_row_of_the_file = decoded(_png(image))[-1]
    assert np.array_equal(top_row_of_the_file, lupton_rgb(image)[-1])
    assert top_row_of_the_file.max() == 255 > 50 > decoded(_png(image))[0].max()


def test_stamps_are_chosen_over_the_whole_range_of_arc_snr():
    n = 100
    rows = {name: np.zeros(n) for name in CHOICE}
    rows |= {
        "task_id": np.array([f"{i:032x}" for i in range(n)], object),
        "cutout_ok": (np.arange(n) > 3).astype(int),
        "label": 1 - np.arange(n) % 2,
        "region_split": np.array(["test"] * 60 + ["train"] * 40, object),
        "arc_snr": np.arange(n, dtype=float),
    }
    rows["arc_snr"][10] = np.nan
    arcs, controls = choose(rows, 5, 3)
    assert [int(t, 16) for t in arcs] == [4, 18, 32, 44, 58]
    assert [int(t, 16) for t in controls] == [5, 7, 9]
    rows["region_split"][:] = "train"
    assert int(choose(rows, 5, 3)[0][-1], 16) == 98
    rows["cutout_ok"][:] = 0
    assert choose(rows) == ([], [])


def test_the_worst_mistakes_are_the_extreme_logits_of_each_class():
    columns = {
        "task_id": np.array(list("abcdef"), object),
        "label": np.array([0, 0, 1, 1, 1, 0]),
        "logit": np.array([3.0, -1, -5, -4, 2, 9], np.float32),
        "arc_snr": np.array([50, 50, np.nan, 11, 30, 1]),
    }
    controls, arcs = extremes(Scores(columns, {}, "", {}), 10.0)
    assert controls[2] == ["f", "a", "b"]
    assert arcs[2] == ["d", "e"]  # c has no measured arc


def test_damaged_scores_cost_the_pictures_their_logits_not_silently(copy):
    part = next((copy / "scores").rglob("*.parquet"))
    part.write_bytes(b"PAR1")
    found = galleries(read_workspace(str(copy)))
    assert isinstance(found, Missing)
    assert part.name in found.reason


def test_values_are_written_for_people():
    assert [number(v) for v in (1234567, 0.123456, 12345.6, None, float("nan"), True, "x")] == [
        "1,234,567", "0.1235", "12,346", "–", "–", "True", "x",
    ]  # fmt: skip
    assert [percent(v) for v in (0.0, 0.5, 0.00012, None)] == ["0.0 %", "50.0 %", "0.012 %", "–"]
    assert [duration(v) for v in (3.14, 600, None)] == ["3.1 s", "10.0 min", "–"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a function that runs headless Chromium on a URL and returns what it printed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install -y chromium (Debian's package)")
    profile = tmp_path_factory.mktemp("profile")
    flags = (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={profile}",
    )  # fmt: skip

    def run(url, *more):
        command = [chromium, *(f"--{f}" for f in (*flags, *more)), url]
        return subprocess.run(command, check=True, timeout=120, capture_output=True, text=True).stdout

    return run


@pytest.mark.slow
def test_a_browser_shows_the_page(run, page, browser, tmp_path):
    for width in (390, 1200):
        picture = tmp_path / f"{width}.png"
        browser(
            (run / "report" / "index.html").as_uri(), f"window-size={width},3000", f"screenshot={picture}"
        )
        shown = imread(picture)[:, :, :3]
        assert shown.shape[:2] == (3000, width)
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 1_000
    assert read_scores(str(run / "scores" / EXPERIMENT.name)).hash in page


MEASURE = """onload = () => {
  const d = f.contentDocument, r = d.documentElement, all = [...d.body.querySelectorAll('*')];
  found.textContent = JSON.stringify({
    wide: r.scrollWidth, screen: r.clientWidth,
    images: d.images.length, anchors: d.querySelectorAll('nav a').length,
    broken: [...d.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt),
    out: all.filter(e => !e.closest('.wide') && e.getBoundingClientRect().right > r.clientWidth + 1)
      .map(e => e.outerHTML.slice(0, 80)) }) }"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768])
def test_on_a_phone_the_page_is_no_wider_than_the_screen_and_every_picture_is_drawn(
    page, browser, tmp_path, width
):
    # The page runs no script, so a page around it measures it, as wide as a phone and all of it opened.
    opened = html.escape(page.replace("<details>", "<details open>"))
    measure = tmp_path / "measure.html"
    frame = f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{opened}"></iframe>'
    measure.write_text(f'{frame}<pre id="found"></pre><script>{MEASURE}</script>')
    found = json.loads(
        re.search(r'<pre id="found">(.*?)</pre>', browser(measure.as_uri(), "dump-dom")).group(1)
    )
    assert found["broken"] == [] and found["images"] > 60 and found["anchors"] > 9
    assert found["screen"] <= width and found["wide"] <= found["screen"] and found["out"] == []
