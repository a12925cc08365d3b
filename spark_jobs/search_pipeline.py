r"""Search a piece of sky, or a table of positions, for lenses.

  spark-submit spark_jobs/search_pipeline.py --model finder.onnx --reference reference.json --cone 150.1 2.2 1 \
      --out found
  spark-submit spark_jobs/search_pipeline.py --model finder.onnx --positions galaxies.csv --out found

Targets are selected, stamps cut and preprocessed as they were for the model's training: the model file says how. Below
--out: `candidates` (ranked, the best with pixels, for the candidate page), `hats`, `candidates.fits`, `candidates.vot`,
`candidates.csv`, `summary.html` and `summary.json`. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import Any

from darkhaloscope.errors import Explained
from darkhaloscope.search.area import Area, AreaError, area_of
from darkhaloscope.search.catalogue_files import WRITERS, formats
from darkhaloscope.storage import read_bytes
from spark_jobs import search
from spark_jobs.arguments import positive
from spark_jobs.command import run_stage

BRICK_NAME = r"\d{4}[mp]\d{3}"


def parser() -> argparse.ArgumentParser:
    """Return the command line of a search."""
    made = argparse.ArgumentParser(
        "search_pipeline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for title, add_flags in (
        ("what to search (one of these)", _what),
        ("with what", _with_what),
        ("where", _where),
        ("how", _how),
    ):
        add_flags(made.add_argument_group(title).add_argument)
    return made


def _what(add: Callable[..., Any]) -> None:
    add("--bricks", nargs="+", metavar="NAME", help="bricks, or a text file that lists them")
    add("--box", nargs=4, type=float, metavar=("RA_MIN", "RA_MAX", "DEC_MIN", "DEC_MAX"),
        help="decimal degrees; across RA 0 where RA_MIN is the larger")  # fmt: skip
    add("--cone", nargs=3, type=float, metavar=("RA", "DEC", "RADIUS"), help="decimal degrees")
    add("--healpix", nargs="+", type=int, metavar="N", help="nside, and then nested cells")
    add("--positions", metavar="FILE", help="every position of a table: CSV, TSV, FITS, VOTable or Parquet")
    add("--catalogue-units", default="", choices=["deg"],
        help="right ascensions are degrees, though all below 24")  # fmt: skip


def _with_what(add: Callable[..., Any]) -> None:
    add("--model", action="append", required=True, metavar="ONNX",
        help="finder.onnx of training.export; several are averaged")  # fmt: skip
    add("--reference", default="", metavar="JSON", help="of evaluation.reference: what a score means")
    add("--prevalence", type=_share, default=1e-3,
        help="lenses among targets, for the probability (default: %(default)s)")  # fmt: skip
    add("--known", default="", metavar="CSV",
        help="known lenses in lenscat's layout (default: of the package lenscat, where it is installed)")  # fmt: skip
    add("--force", action="store_true",
        help="score rows beyond the model's conditions too, and say so in each row")  # fmt: skip


def _where(add: Callable[..., Any]) -> None:
    add("--out", required=True, metavar="URL", help="folder or S3 URL of the results")
    add("--survey-source", metavar="URL",
        help="base of the survey: coadd/, sweep/ below it (default: the model's)")  # fmt: skip
    add("--bricks-table", metavar="FILE", help="survey-bricks table, below the source (default: the model's)")
    add("--coadds", default="", metavar="URL",
        help="where coadd/ is, if not below the source, as a cache of stage 4b")  # fmt: skip


def _how(add: Callable[..., Any]) -> None:
    add("--candidates", type=positive, default=1000, metavar="N",
        help="best rows whose pixels are kept (default: %(default)s)")  # fmt: skip
    add("--formats", type=_formats, default=list(WRITERS),
        help=f"catalogues to write (default: {','.join(WRITERS)})")  # fmt: skip
    add("--to", default="scores", choices=["scores", "shards"],
        help="shards: only cut stamps, for evaluation/score.py on a GPU host (--data OUT/stamps)")  # fmt: skip
    add("--scores", default="", metavar="URL",
        help="take the scores that evaluation/score.py gave to those shards")  # fmt: skip
    add("--partitions", type=positive, default=4, help="Spark tasks at a time (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace the output of another search")
    add("--take-over", action="store_true", help="seize an output whose writer is dead")


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a share between 0 and 1")
    return value


def _formats(text: str) -> list[str]:
    try:
        return formats(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def area_of_args(args: argparse.Namespace) -> Area | None:
    """Return the area that the flags name, or None where they name a table of positions.

    Raises:
        AreaError: none or several, or one that is no area.
    """
    if not args.positions:
        return area_of(_brick_names(args.bricks or []), args.box or (), args.cone or (), args.healpix or ())
    if args.bricks or args.box or args.cone or args.healpix:
        raise AreaError("--positions goes without an area: every listed position is searched")
    return None


def _brick_names(given: list[str]) -> list[str]:
    """Return bricks as they are given, or those that the one file which is given lists."""
    if len(given) != 1 or re.fullmatch(BRICK_NAME, given[0]):
        return given
    try:
        return read_bytes(given[0]).decode().split()
    except FileNotFoundError:
        raise AreaError(
            f"--bricks {given[0]}: neither a brick's name, as 0591m305, nor a file of them"
        ) from None


def main(argv: list[str] | None = None) -> int:
    """Run a search; return the exit status."""
    args = parser().parse_args(argv)
    try:
        args.area = area_of_args(args)
    except Explained as error:
        print(f"search: {error}", file=sys.stderr)
        return 1
    return run_stage("search", lambda: search.experiment_of(args), search.run, args)


if __name__ == "__main__":
    sys.exit(main())
