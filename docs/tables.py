"""Write into docs/*.md what the code knows: tables of columns and of flags, and figures that were measured.

A page holds a table between `<!-- columns: TABLE -->` or `<!-- flags: COMMAND -->` and `<!-- end -->`, and a figure, to
two digits, between `<!-- figure: BENCHMARK KEY/KEY -->` and `<!-- end -->`: that of benchmarks/results/BENCHMARK.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from darkhaloscope import records, results
from darkhaloscope.schema import Schema
from spark_jobs import phase3_pipeline, phase4_pipeline, search_pipeline
from training import options

BLOCK = re.compile(r"(<!-- (columns|flags): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(<!-- figure: (\w+) (.+?) -->).*?(<!-- end -->)")
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
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


def figure(benchmark: str, keys: str) -> str:
    """Return a benchmark's figure to two digits; of a distribution its median."""
    value = json.loads((RESULTS / f"{benchmark}.json").read_text())["figures"]
    for key in keys.split("/"):
        if key not in value:
            raise SystemExit(
                f"benchmarks/results/{benchmark}.json has no {keys!r}, which a page shows; it has {list(value)}"
            )
        value = value[key]
    value = value["median"] if isinstance(value, dict) else value
    return f"{float(f'{value:.2g}'):,g}"


def filled(text: str) -> str:
    """Return a page with its tables as schemas and command lines are now, and figures as they were measured last."""
    schemas = {s.name: s for s in (*records.SCHEMAS, *results.SCHEMAS)}

    def fill(block: re.Match[str]) -> str:
        made = column_table(schemas[block[3]]) if block[2] == "columns" else flag_table(COMMANDS[block[3]]())
        return block[1] + made + block[4]

    return FIGURE.sub(lambda f: f[1] + figure(f[2], f[3]) + f[4], BLOCK.sub(fill, text))


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
