"""Write the page: one file while it is small, a folder with sprites beyond; and the key beside it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from threadpoolctl import threadpool_limits

from darkhaloscope.records import PIXEL_SCALE_ARCSEC
from darkhaloscope.stage import code_version
from darkhaloscope.storage import join
from darkhaloscope.writing import remove, replace_file
from evaluation.candidate_page import facts, pictures
from evaluation.candidate_page.order import Item, page_id
from evaluation.gradebook import GRADES, KEY_COLUMNS

ONE_FILE = 300  # candidates; about 25 kB each
PER_SPRITE = 16  # candidates of one JPEG: few enough to decode while scrolling
SCRIPTS = ("data.js", "sheet.js", "csv.js", "listing.js", "cards.js", "gallery.js", "viewer.js", "main.js")


def write_page(items: list[Item], out: str, title: str, blind: bool) -> str:
    """Write the page and its key; return the URL of the page.

    Args:
        items: what to show, in order; all stamps of one size and the same bands.
        out: URL without ending; `<out>.html`, or `<out>/index.html` with sprites beside it, and `<out>.key.csv`.
        title: of the page.
        blind: leave out names, scores and positions.

    Raises:
        StorageError: the place cannot be written.
    """
    single = len(items) <= ONE_FILE
    names, sprites = [], sprites_of(items)
    if single:
        names = [base64.b64encode(s).decode() for s in sprites]
    else:
        remove(join(out, "sprites"), recursive=True)
        for number, content in enumerate(sprites):
            names.append(f"sprites/{number:04d}.jpg")
            replace_file(join(out, names[-1]), content)
    page = f"{out}.html" if single else join(out, "index.html")
    replace_file(page, render(content_of(items, title, blind, names, single), single).encode())
    replace_file(f"{out}.key.csv", key_of(items).encode())
    return page


def sprites_of(items: list[Item]) -> Iterator[bytes]:
    """Yield the JPEG of each `PER_SPRITE` items.

    On one core: threads would wait for the interpreter, and made it slower on two.
    """
    centres = np.array(facts.centres(items))
    with threadpool_limits(1, "blas"):  # its threads cost more than such small products take
        for start in range(0, len(items), PER_SPRITE):
            block = slice(start, start + PER_SPRITE)
            stamps = np.stack([i.catalogue.stamp(i.row) for i in items[block]])
            yield pictures.jpeg(pictures.sprite(stamps, centres[block], items[0].catalogue.bands))


def content_of(
    items: list[Item], title: str, blind: bool, sprites: list[str], single: bool
) -> dict[str, Any]:
    """Return what the page's script reads."""
    first = items[0].catalogue
    return {
        "page": page_id(items),
        "catalogue": first.hash,
        "title": title,
        "blind": blind,
        "grades": GRADES,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "code_version": code_version(),
        "n_rows": first.n_rows,
        "size": first.size,
        "pixel_arcsec": PIXEL_SCALE_ARCSEC,
        "panels": [{"name": name, "label": label} for name, label in pictures.panels(first.bands)],
        "inline": single,
        "sprites": sprites,
        "per_sprite": PER_SPRITE,
        "items": [i.item for i in items],
        "centres": facts.centres(items),
        "facts": facts.described(blind),
        "values": facts.values(items, blind),
    }


def render(content: dict[str, Any], single: bool) -> str:
    """Return the page as HTML: its policy allows this script and this style, and no other source of anything."""
    folder = files("evaluation.candidate_page")
    parts = "\n".join(folder.joinpath(name).read_text() for name in SCRIPTS)
    script = f"\n(() => {{\n'use strict';\n{parts}}})();\n"
    style = "\n" + folder.joinpath("style.css").read_text()
    policy = (
        f"default-src 'none'; script-src {_allowed(script)}; style-src {_allowed(style)}; "
        f"img-src {'blob:' if single else chr(39) + 'self' + chr(39) + ' file:'}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    environment = Environment(
        loader=PackageLoader("evaluation.candidate_page", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        title=content["title"],
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        data=Markup(inert_json(content)),
    )


def _allowed(text: str) -> str:
    """Return the source expression that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def inert_json(value: Any) -> str:
    """Return JSON that no HTML parser can leave: `<`, `>` and `&` are written as escapes."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def key_of(items: list[Item]) -> str:
    """Return the key as CSV: what each item of the page is. Graders of a blinded page do not get it."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, KEY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    page, columns = page_id(items), {n: facts.column(items, n) for n in KEY_COLUMNS[4:]}
    for n, i in enumerate(items):
        row = {name: cells[n] for name, cells in columns.items()}
        writer.writerow(
            {"page": page, "catalogue": items[0].catalogue.hash, "item": i.item, "kind": i.kind, **row}
        )
    return stream.getvalue()
