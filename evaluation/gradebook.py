"""Exported grades and the keys of their pages: what the files hold, and their reading and checking."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field
from typing import Any

from darkhaloscope.errors import Explained
from darkhaloscope.storage import read_bytes

GRADES = ("reject", "C", "B", "A")
"""From worst to best; a grade's score is its place."""

CANDIDATE, REPEAT, LENS, NONLENS = "candidate", "repeat", "lens", "nonlens"
"""Kinds of items: a candidate, one shown again, and planted ones whose answer is known."""

KEY_COLUMNS = ("page", "catalogue", "item", "kind", "name", "ra", "dec", "rank", "logit")
GRADE_COLUMNS = ("page", "catalogue", "grader", "item", "grade", "theta_e_arcsec", "notes", "time")
LENS_GRADES = ("A", "B")  # grades that call an object a lens
_FORMULA = tuple("=+-@\t\r")  # a spreadsheet runs what begins with these; the page puts ' before it


class GradesError(Explained, ValueError):
    """Grades that cannot be merged; the message names file and row and says what to do."""


@dataclass
class Key:
    """What the items of one or several pages of one catalogue are.

    Attributes:
        catalogue: its content hash.
        items: (page, item) -> its row of the key.
    """

    catalogue: str
    items: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    @property
    def pages(self) -> set[str]:
        """Ids of the pages."""
        return {page for page, _ in self.items}


def _rows(url: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has these columns."""
    try:
        text = read_bytes(url).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GradesError(
            f"{url}: is not UTF-8 text ({error}); export the grades as CSV from the page"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if missing := [c for c in columns if c not in (reader.fieldnames or ())]:
            raise GradesError(
                f"{url}: lacks the columns {missing}; expected the file the page exports or its key"
            )
        rows = list(reader)
    except csv.Error as error:
        raise GradesError(f"{url}, line {reader.line_num}: {error}; export the grades again") from error
    for i, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise GradesError(
                f"{url}, row {i}: has more or fewer cells than the header; export the grades again"
            )
    return rows


def read_key(urls: list[str]) -> Key:
    """Read the keys of one or several pages of one catalogue.

    Raises:
        GradesError: a file is no key, or the pages are of different catalogues.
    """
    key: Key | None = None
    for url in urls:
        for row in _rows(url, KEY_COLUMNS):
            key = key or Key(row["catalogue"])
            if row["catalogue"] != key.catalogue:
                raise GradesError(
                    f"{url}: is of catalogue {row['catalogue']}, the keys before of {key.catalogue}; "
                    "merge one at a time"
                )
            key.items[row["page"], row["item"]] = row
    if key is None:
        raise GradesError(f"{', '.join(urls)}: the key is empty; make the page again")
    return key


def read_grades(urls: list[str], key: Key) -> list[dict[str, Any]]:
    """Read exported grades; of two grades of one item by one grader the later stands.

    Raises:
        GradesError: a file is of another page, or a row has an unknown item or grade, or no grader.
    """
    latest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for url in urls:
        for i, row in enumerate(_rows(url, GRADE_COLUMNS), 2):
            row = {c: _plain(v) for c, v in row.items()}
            if fault := _fault(row, key):
                raise GradesError(f"{url}, row {i}: {fault}")
            at = row["grader"], row["page"], row["item"]
            if at not in latest or row["time"] >= latest[at]["time"]:
                latest[at] = row | {"truth": key.items[row["page"], row["item"]]}
    return list(latest.values())


def _fault(row: dict[str, str], key: Key) -> str:
    """Return what is wrong with a row of grades, and what to do; empty where nothing is."""
    if row["page"] not in key.pages:
        return (
            f"is of page {row['page']} of catalogue {row['catalogue']}; the key is of {', '.join(sorted(key.pages))} "
            f"of catalogue {key.catalogue}: give that page's key"
        )
    if (row["page"], row["item"]) not in key.items:
        return f"item {row['item']!r} is not on its page; export the grades again"
    if row["grade"] not in ("", *GRADES):
        return f"grade {row['grade']!r}; expected one of {', '.join(GRADES)}"
    if not row["grader"]:
        return "has no grader; fill in the column, every grader a name"
    if not re.fullmatch(r"(\d+(\.\d+)?)?", row["theta_e_arcsec"]):
        return f"radius {row['theta_e_arcsec']!r} is no number of arcsec"
    return ""


def _plain(cell: str) -> str:
    """Return a cell without the ' that keeps a spreadsheet from running it."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA) else cell


def guarded(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs."""
    return "'" + cell if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
