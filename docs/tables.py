"""Write the column tables of docs/*.md from darkhaloscope/records.py; --check only tells whether they are so.

A page holds a table between the lines `<!-- columns: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from darkhaloscope.records import ALL_SCHEMAS, Schema

BLOCK = re.compile(r"(<!-- columns: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(schema: Schema) -> str:
    """Return a schema as a Markdown table."""
    rows = [
        f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} | {'yes' if c.leaks_label else ''} |"
        for c in schema.columns
    ]
    head = "| column | type | unit | meaning | knows the injection |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def filled(text: str) -> str:
    """Return a page with its column tables as the schemas are now."""
    schemas = {s.name: s for s in ALL_SCHEMAS}
    return BLOCK.sub(lambda m: m[1] + table(schemas[m[2]]) + m[3], text)


def main(argv: list[str] | None = None) -> int:
    """Fill or check every page; return the exit status."""
    parser = argparse.ArgumentParser("docs/tables.py", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; fail where a page is out of date"
    )
    check = parser.parse_args(argv).check
    stale = []
    for page in sorted(Path(__file__).parent.glob("*.md")):
        text = page.read_text()
        if filled(text) != text:
            stale.append(page.name)
            if not check:
                page.write_text(filled(text))
    if check and stale:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
