"""Merge the grades of several graders: `python -m evaluation.grades merge A.csv B.csv --key PAGE.key.csv`.

Reads what the candidate page exports and the key that was written beside the page; writes one row an object with
every grader's grade, and says how far graders agree: with each other (Cohen's and Fleiss' kappa), with themselves
(repeats), and with the truth (planted lenses and non-lenses).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from statistics import mean, median_low
from typing import Any

from darkhaloscope.report.page import number, percent
from darkhaloscope.writing import replace_file
from evaluation.agreement import measured
from evaluation.command import command_line, explaining
from evaluation.gradebook import GRADES, REPEAT, GradesError, guarded, read_grades, read_key


def merged(grades: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a graded object, best mean score first; repeats serve self-consistency only.

    `score` is the mean of the graders' (reject 0, C 1, B 2, A 3), `consensus` their median, the lower of two,
    `range` the difference of best and worst.
    """
    graders, rows = sorted({g["grader"] for g in grades}), []
    for (kind, name), given in _by_object(grades).items():
        truth, by = given[0]["truth"], {g["grader"]: g for g in given}
        scores = [GRADES.index(g["grade"]) for g in by.values() if g["grade"]]
        radii = [float(g["theta_e_arcsec"]) for g in by.values() if g["theta_e_arcsec"]]
        row: dict[str, Any] = {"name": name, "kind": kind} | {
            c: truth[c] for c in ("ra", "dec", "rank", "logit")
        }
        row |= {
            "n_grades": len(scores),
            "score": round(mean(scores), 3) if scores else "",
            "consensus": GRADES[median_low(scores)] if scores else "",
            "range": max(scores) - min(scores) if scores else "",
            "theta_e_arcsec": round(mean(radii), 2) if radii else "",
        }
        row |= {f"grade_{g}": by[g]["grade"] if g in by else "" for g in graders}
        row["notes"] = " | ".join(f"{g['grader']}: {g['notes']}" for g in by.values() if g["notes"])
        rows.append(row)
    return sorted(
        rows, key=lambda r: (-(r["score"] or 0) if r["n_grades"] else 1, int(r["rank"] or 0), r["name"])
    )


def _by_object(grades: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group grades by (kind, name), each grader's in the order of time; without repeats."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for g in sorted(grades, key=lambda g: g["time"]):
        if g["truth"]["kind"] != REPEAT:
            found.setdefault((g["truth"]["kind"], g["truth"]["name"]), []).append(g)
    return found


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Return merged rows as CSV; no cell of it is one that a spreadsheet runs."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: guarded(v) for k, v in row.items()} for row in rows)
    return stream.getvalue()


def as_text(found: dict[str, Any]) -> str:
    """Return the agreement for people."""
    lines = []
    for grader, its in found["graders"].items():
        counts = ", ".join(f"{n} {grade}" for grade, n in reversed(its["candidates"].items()))
        lines.append(f"{grader}: {counts}")
        if its["repeats"]["n"]:
            lines.append(f"  with themselves: {_agreement(its['repeats'])}")
        for what, label in (
            ("planted_lenses", "planted lenses"),
            ("planted_nonlenses", "planted non-lenses"),
        ):
            if (rate := its[f"{what}_called_lens"])["n"]:
                share = percent(rate["called"] / rate["n"])
                lines.append(
                    f"  {label} graded A or B: {rate['called']} of {rate['n']}, {share} "
                    f"({percent(rate['low'])} to {percent(rate['high'])})"
                )
    lines += [f"{' and '.join(p['graders'])}: {_agreement(p)}" for p in found["pairs"]]
    if every := found["all"]:
        lines.append(
            f"all {len(found['graders'])}: Fleiss' kappa {_with_range(every, 'fleiss_kappa')} "
            f"on the {every['n']} objects that all graded"
        )
    return "\n".join(lines)


def _agreement(pair: dict[str, Any]) -> str:
    return (
        f"same grade for {pair['same']} of {pair['n']}, Cohen's kappa {_with_range(pair, 'kappa')}, "
        f"linearly weighted {_with_range(pair, 'kappa_linear')}"
    )


def _with_range(found: dict[str, Any], name: str) -> str:
    value, limits = found[name], found[f"{name}_95"]
    if value is None:
        return "not defined (one grade only)"
    return f"{value:.2f}" + (f" ({limits[0]:.2f} to {limits[1]:.2f})" if limits else " (too few for a range)")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("grades", __doc__)
    merge = p.add_subparsers(required=True, metavar="merge").add_parser(
        "merge", help="merge grades, measure agreement"
    )
    merge.add_argument("grades", nargs="+", help="CSV files that the page exported, any number a grader")
    merge.add_argument(
        "--key", nargs="+", required=True, help="the .key.csv beside each page that was graded"
    )
    merge.add_argument(
        "--out", default="merged-grades", help="writes OUT.csv and OUT.json (default: %(default)s)"
    )
    return p


@explaining("grades")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    key = read_key(arguments.key)
    grades = read_grades(arguments.grades, key)
    if not grades:
        raise GradesError(
            f"{', '.join(arguments.grades)}: no grades; export them from the page after grading"
        )
    rows, found = merged(grades), measured(grades)
    replace_file(f"{arguments.out}.csv", as_csv(rows).encode())
    content = {"catalogue": key.catalogue, "pages": sorted(key.pages), "objects": len(rows), **found}
    replace_file(f"{arguments.out}.json", json.dumps(content, indent=1, allow_nan=False).encode())
    print(as_text(found))
    print(f"{number(len(rows))} objects -> {arguments.out}.csv; agreement -> {arguments.out}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
