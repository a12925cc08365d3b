"""The page of a run in a real browser, as wide as a screen and as a phone."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from fabricate import EXPERIMENT
from matplotlib.image import imread

from evaluation.scores import read_scores


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
