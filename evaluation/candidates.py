"""Make the page on which candidates are graded: `python -m evaluation.candidates SEARCH/candidates`.

Reads the candidates that a search left and writes a page that needs no network: one file up to 300 candidates, a
folder with pictures beyond. `--blind` hides names, scores and positions and draws the order; repeats and planted
objects of known nature then tell how consistent and how right a grader is. `python -m evaluation.grades merge` puts
the exported grades together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from darkhaloscope.config import positive
from evaluation.candidate_page import order
from evaluation.candidate_page.build import write_page
from evaluation.candidate_page.catalogue import read_catalogue
from evaluation.command import command_line, explaining

BLIND_ONLY = ("repeats", "planted_lenses", "planted_nonlenses")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("candidates", __doc__)
    p.add_argument("catalogue", help="the folder `candidates` of a search")
    p.add_argument("--out", help="where, without ending (default: CATALOGUE-page); writes OUT.html or OUT/index.html, "
                   "and OUT.key.csv")  # fmt: skip
    p.add_argument("--top", type=positive, help="only the best so many")
    p.add_argument("--title", default="Lens candidates", help="heading of the page (default: %(default)s)")
    p.add_argument("--blind", action="store_true", help="hide names, scores and positions; draw the order")
    p.add_argument("--seed", type=int, default=0, help="of a blinded page (default: %(default)s)")
    p.add_argument("--repeats", type=int, default=0, help="candidates that a blinded page shows twice")
    p.add_argument("--planted-lenses", help="candidates of a search at known lenses, to be mixed in")
    p.add_argument(
        "--planted-nonlenses", help="candidates of a search at objects known to be none, to be mixed in"
    )
    p.add_argument(
        "--planted", type=positive, default=30, help="at most so many of each (default: %(default)s)"
    )
    return p


def items_of(arguments: argparse.Namespace) -> list[order.Item]:
    """Return what the page shows, in order."""
    catalogue = read_catalogue(arguments.catalogue, arguments.top)
    if not arguments.blind:
        return order.by_rank(catalogue)
    lenses, nonlenses = (
        read_catalogue(root) if root else None
        for root in (arguments.planted_lenses, arguments.planted_nonlenses)
    )
    return order.blinded(catalogue, arguments.seed, arguments.repeats, lenses, nonlenses, arguments.planted)


@explaining("candidates")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    p = parser()
    arguments = p.parse_args(argv)
    if not arguments.blind and (given := [n for n in BLIND_ONLY if getattr(arguments, n)]):
        flags = ", ".join("--" + n.replace("_", "-") for n in given)
        p.error(f"{flags}: only with --blind, since an object under its own name gives the answer away")
    out = arguments.out or f"{arguments.catalogue.rstrip('/')}-page"
    items = items_of(arguments)
    page = write_page(items, out, arguments.title, arguments.blind)
    planted = sum(i.kind in (order.LENS, order.NONLENS) for i in items)
    repeated = sum(i.kind == order.REPEAT for i in items)
    print(f"{len(items):,} pictures ({planted} planted, {repeated} repeats) -> {page}; key -> {out}.key.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
