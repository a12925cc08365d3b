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
import sys
from pathlib import Path

from darkhaloscope.search.area import Area, AreaError, area_of
from darkhaloscope.search.catalogue_files import WRITERS, formats
from spark_jobs import search
from spark_jobs.arguments import positive
from spark_jobs.session import run_stage


def parser() -> argparse.ArgumentParser:
    """Return the command line of a search."""
    made = argparse.ArgumentParser(
        "search_pipeline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument_group("what to search (one of these)").add_argument
    add("--bricks", nargs="+", metavar="NAME", help="bricks, or a text file that lists them")
    add("--box", nargs=4, type=float, metavar=("RA_MIN", "RA_MAX", "DEC_MIN", "DEC_MAX"),
        help="decimal degrees; across RA 0 where RA_MIN is the larger")  # fmt: skip
    add("--cone", nargs=3, type=float, metavar=("RA", "DEC", "RADIUS"), help="decimal degrees")
    add("--healpix", nargs="+", type=int, metavar="N", help="nside, and then nested cells")
    add("--positions", metavar="FILE", help="every position of a table: CSV, TSV, FITS, VOTable or Parquet")
    add(
        "--catalogue-units",
        default="",
        choices=["deg"],
        help="right ascensions are degrees, though all below 24",
    )
    add = made.add_argument_group("with what").add_argument
    add("--model", action="append", required=True, metavar="ONNX",
        help="finder.onnx of training.export; several are averaged")  # fmt: skip
    add("--reference", default="", metavar="JSON", help="of evaluation.reference: what a score means")
    add(
        "--prevalence",
        type=_share,
        default=1e-3,
        help="lenses among targets, for the probability (default: %(default)s)",
    )
    add("--known", default="", metavar="CSV",
        help="known lenses in lenscat's layout (default: of the package lenscat, where it is installed)")  # fmt: skip
    add(
        "--force",
        action="store_true",
        help="score rows beyond the model's conditions too, and say so in each row",
    )
    add = made.add_argument_group("where").add_argument
    add("--out", required=True, metavar="URL", help="folder or S3 URL of the results")
    add(
        "--survey-source",
        metavar="URL",
        help="base of the survey: coadd/, sweep/ below it (default: the model's)",
    )
    add("--bricks-table", metavar="FILE", help="survey-bricks table, below the source (default: the model's)")
    add(
        "--coadds",
        default="",
        metavar="URL",
        help="where coadd/ is, if not below the source, as a cache of stage 4b",
    )
    add = made.add_argument_group("how").add_argument
    add(
        "--candidates",
        type=positive,
        default=1000,
        metavar="N",
        help="best rows whose pixels are kept (default: %(default)s)",
    )
    add(
        "--formats",
        type=_formats,
        default=list(WRITERS),
        help=f"catalogues to write (default: {','.join(WRITERS)})",
    )
    add("--to", default="scores", choices=["scores", "shards"],
        help="shards: only cut stamps, for evaluation/score.py on a GPU host (--data OUT/stamps)")  # fmt: skip
    add(
        "--scores",
        default="",
        metavar="URL",
        help="take the scores that evaluation/score.py gave to those shards",
    )
    add("--partitions", type=positive, default=4, help="Spark tasks at a time (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace the output of another search")
    add("--take-over", action="store_true", help="seize an output whose writer is dead")
    return made


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
    bricks = args.bricks or []
    if len(bricks) == 1 and Path(bricks[0]).is_file():
        bricks = Path(bricks[0]).read_text().split()
    if not args.positions:
        return area_of(bricks, args.box or (), args.cone or (), args.healpix or ())
    if bricks or args.box or args.cone or args.healpix:
        raise AreaError("--positions goes without an area: every listed position is searched")
    return None


def main(argv: list[str] | None = None) -> int:
    """Run a search; return the exit status."""
    args = parser().parse_args(argv)
    try:
        args.area = area_of_args(args)
    except AreaError as error:
        print(f"search: {error}", file=sys.stderr)
        return 1
    return run_stage("search", lambda: search.experiment_of(args), search.run, args)


if __name__ == "__main__":
    sys.exit(main())
