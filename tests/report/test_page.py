"""Pages keep their promises: everything is shown, escaped, and given to programs as the same numbers."""

from darkhaloscope.report.charts import draw
from darkhaloscope.report.page import Chart, Link, Page, Section, Table, as_json, render_page


def page() -> Page:
    chart = Chart(draw(lambda axes: axes.plot([0, 1], [0, 1])), "a line, N = 2")
    table = Table(("name", "n"), [("<b>bold</b>", 1234567), ("none", None)], "counts")
    return Page(
        "Targets",
        "one <i>line</i>",
        {"hash": "abc"},
        [Section("First", "text", ["beware"], [table], [chart])],
    )


def test_page_shows_its_parts_and_escapes_texts():
    html = render_page(page())
    assert "1,234,567" in html and "–" in html and "beware" in html and "data:image/png;base64" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html and "<b>bold" not in html and "&lt;i&gt;" in html


def test_page_needs_no_network():
    html = render_page(page())
    assert "http://" not in html and "https://" not in html and "<script" not in html


def test_the_same_numbers_as_records():
    facts = as_json(page())
    assert facts["sections"]["First"]["tables"]["counts"][0] == {"name": "<b>bold</b>", "n": 1234567}
    assert facts["sections"]["First"]["warnings"] == ["beware"]


def test_a_link_is_followed_on_the_page_and_a_text_in_the_numbers():
    table = Table(("page",), [(Link("a & b", "x/index.html?a&b"),)], "pages")
    made = Page("T", "", {}, [Section("S", tables=[table])])
    assert '<a href="x/index.html?a&amp;b">a &amp; b</a>' in render_page(made)
    assert as_json(made)["sections"]["S"]["tables"]["pages"] == [{"page": "a & b"}]
