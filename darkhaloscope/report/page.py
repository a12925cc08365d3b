"""Pages for people: tables and charts as one self-contained HTML file that needs no network.

Numbers first, then pictures. A page is data (`Page`, `Section`, `Table`, `Chart`); `render_page` writes it, `as_json`
gives the same numbers to a program.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


class Link(str):
    """A text that leads to another page; a cell of a table."""

    href: str

    def __new__(cls, text: str, href: str) -> Link:
        """Make one of a text and a relative URL."""
        made = super().__new__(cls, text)
        made.href = href
        return made


@dataclass(frozen=True)
class Table:
    """Rows under the names of their columns, and a note below them; a cell is a number, a text or None (not known)."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A picture as a data URI (`charts.draw`), and what it shows, with N."""

    picture: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, what is to be said, what is wrong, tables, and then charts."""

    title: str
    text: str = ""
    warnings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True)
class Page:
    """A page: title, one line below it, and facts by name that say what it was made from (hashes, versions)."""

    title: str
    subtitle: str
    facts: dict[str, Any]
    sections: Sequence[Section] = field(default_factory=tuple)


def render_page(page: Page) -> str:
    """Return a page as HTML; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("darkhaloscope.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("page.html.j2").render(page=page, css=Markup(page_css()), made=made)


def as_json(page: Page) -> dict[str, Any]:
    """Return a page's numbers: facts, warnings and tables (as lists of records) by section."""
    sections = {
        s.title: {
            "warnings": list(s.warnings),
            "tables": {t.title: [dict(zip(t.columns, row, strict=True)) for row in t.rows] for t in s.tables},
        }
        for s in page.sections
    }
    return {"title": page.title, "facts": page.facts, "sections": sections}


def page_css() -> str:
    """Return the style sheet that every page of the project has."""
    return files("darkhaloscope.report").joinpath("page.css").read_text()


def number(value: Any) -> str:
    """Write a value for people: thousands separated, floats to four significant digits, None as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def percent(value: float | None) -> str:
    """Write a rate as a percentage with a digit that small rates keep."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if value == 0 or value >= 0.01 else f"{100 * value:.2g} %"


def duration(seconds: float | None) -> str:
    """Write a time."""
    if seconds is None:
        return "–"
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
