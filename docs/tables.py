"""Write the tables of docs/*.md: columns from darkhaloscope/records.py and results.py, flags from the command lines.

A page holds a table between `<!-- columns: TABLE -->` or `<!-- flags: COMMAND -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from darkhaloscope import records, results
from darkhaloscope.schema import Schema
from spark_jobs import phase3_pipeline, phase4_pipeline, search_pipeline
from training import options

BLOCK = re.compile(r"(<!-- (columns|flags): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
COMMANDS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "phase3_pipeline": phase3_pipeline.parser,
    "phase4_pipeline": phase4_pipeline.parser,
    "search_pipeline": search_pipeline.parser,
    "train": options.parser,
}


def flag_table(parser: argparse.ArgumentParser) -> str:
    """Return a command's flags as a Markdown table."""
    rows = []
    for action in parser._actions:
        if action.option_strings and action.dest != "help":
            choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
            meaning = (action.help or "") % {"default": action.default}
            rows.append(f"| `{action.option_strings[0]}` | {meaning}{choices} |")
    return "| flag | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"


def column_table(schema: Schema) -> str:
    """Return a schema as a Markdown table."""
    rows = [
        f"| `{c.name}` | {c.type} | {c.unit} | {c.meaning} | {'yes' if c.leaks_label else ''} |"
        for c in schema.columns
    ]
    head = "| column | type | unit | meaning | knows the injection |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def filled(text: str) -> str:
    """Return a page with its tables as schemas and command lines are now."""
    schemas = {s.name: s for s in (*records.SCHEMAS, *results.SCHEMAS)}

    def fill(block: re.Match[str]) -> str:
        made = column_table(schemas[block[3]]) if block[2] == "columns" else flag_table(COMMANDS[block[3]]())
        return block[1] + made + block[4]

    return BLOCK.sub(fill, text)


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
