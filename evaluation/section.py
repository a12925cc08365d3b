"""What a check of a model hands to the report: tables and pictures under a title, beside its own figures.

`<run>/evaluation/<name>.json` is one section. A check (gates, anchors, selection function, probe) writes its own with
`write`; the report shows every section it finds with `read_all` and knows none of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from darkhaloscope.errors import Explained
from darkhaloscope.report.page import Table
from darkhaloscope.stage import code_version
from darkhaloscope.storage import filesystem, join, read_bytes
from darkhaloscope.writing import replace_file

FORMAT = "dark-halo-scope section 1"

CHECKS = {
    "gates": ("Shortcut gates: does anything but the arc tell the classes?", "python -m evaluation.gates"),
    "anchors": ("Anchors: which real lenses are found?", "python -m evaluation.anchors"),
    "probe": ("Realism probe: do injections look like real lenses?", "python -m evaluation.probe"),
    "selection_function": ("Selection function: which lenses are found?", "make selection-function"),
}
"""Sections of a whole report: what each asks, and the command that writes it."""


class SectionError(Explained, ValueError):
    """A file among the sections that is none; the message names it and says what to do."""


@dataclass(frozen=True)
class Picture:
    """An SVG or PNG file beside the section's JSON."""

    title: str
    file: str
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: heading.
        lead: what was asked and what came out, in a sentence or two.
        verdict: "pass", "fail", or "" where there is none to give.
        tables: shown in order.
        pictures: shown in order, after the tables.
        made_from: hashes of what it was measured on, by name.
        figures: the check's own results, for programs.
    """

    title: str
    lead: str
    made_from: dict[str, str]
    verdict: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    figures: dict[str, Any] = field(default_factory=dict)


def write(folder: str, name: str, section: Section) -> str:
    """Write `<folder>/<name>.json`, whole or not at all; return its URL.

    Raises:
        ValueError: a figure is NaN or infinite: JSON has no word for it, write None.
        StorageError: the place cannot be written.
    """
    content = {"format": FORMAT, "code_version": code_version(), **asdict(section)}
    url = join(folder, f"{name}.json")
    replace_file(url, json.dumps(content, indent=1, allow_nan=False).encode())
    return url


def read_all(folder: str) -> dict[str, dict[str, Any]]:
    """Return the sections in a folder, by name; files of another format are not sections.

    Raises:
        SectionError: a file is not JSON; it is named.
    """
    fs, path = filesystem(folder)
    found = {}
    for file in sorted(fs.glob(f"{path}/*.json")):
        name = file.rsplit("/", 1)[-1]
        try:
            content = json.loads(read_bytes(join(folder, name)))
        except ValueError as error:
            raise SectionError(
                f"{join(folder, name)}: not JSON ({error}); make it again or remove it"
            ) from error
        if isinstance(content, dict) and content.get("format") == FORMAT:
            found[name.removesuffix(".json")] = content
    return found
