"""What a finder thinks of one place: `python -m evaluation.find --model DIR RA DEC`.

Cuts the stamp there, scores it, and tells its rank among the evaluation's negatives and the known lens there, if any.
The picture goes to a PNG file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib.image import imsave

from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.report.pictures import lupton_rgb
from evaluation import load_finder
from evaluation.command import command_line, explaining
from evaluation.finder import Finder

SCALE = 6  # screen pixels of one of the stamp's


def tell(row: dict[str, Any], finder: Finder) -> str:
    """Return what there is to say of one CANDIDATES row."""
    lines = [f"{row['name']}   brick {row['brickname']}   RA {row['ra']:.6f} Dec {row['dec']:.6f}"]
    if row["refused"]:
        lines.append(f"not scored: {row['refused']}")
    else:
        lines.append(
            f"logit {row['logit']:.4f}"
            + (f"   outside the training: {row['outside']}" if row["outside"] else "")
        )
    if row["logit"] is not None and finder.reference is not None:
        n, total = int(finder.reference.false_positives([row["logit"]])[0]), finder.reference.n_negatives
        lines.append(
            f"{n:,} of {total:,} negatives of the evaluation score at least this: FPR {row['fpr']:.3g}, at most "
            f"{row['fpr_high']:.3g} (95 %)"
        )
        if row["probability"] is not None:
            lines.append(
                f"probability {row['probability']:.3g} where {row['prevalence']:g} of the targets are lenses"
            )
    elif finder.reference is None:
        lines.append(
            "no reference.json beside the model: no rank among negatives (python -m evaluation.reference)"
        )
    known = f"{row['known_name']} ({row['known_type']}, {row['known_grading']}), {row['known_reference']}"
    lines.append(f"known lens within 5 arcsec: {known if row['known_name'] else 'none'}")
    lines.append(row["viewer_url"])
    return "\n".join(lines)


def picture(table: pa.Table, path: str) -> None:
    """Write the first row's stamp as a colour PNG, north up."""
    bands = (table.schema.metadata or {})[b"bands"].decode()
    rgb = lupton_rgb(pixels_of(table.slice(0, 1))[0], bands)[::-1]
    imsave(path, rgb.repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("find", __doc__)
    p.add_argument("ra", type=float, help="right ascension, decimal degrees")
    p.add_argument("dec", type=float, help="declination, decimal degrees")
    p.add_argument("--model", required=True, help="folder of training.export")
    p.add_argument(
        "--survey", default="", metavar="URL", help="base of the survey's files (default: the model's)"
    )
    p.add_argument("--known", default="", metavar="CSV", help="known lenses in lenscat's layout")
    p.add_argument("--cache", default="", metavar="DIR", help="folder in which bricks are kept")
    p.add_argument("--force", action="store_true", help="score beyond the model's conditions too")
    p.add_argument("--out", default="find.png", help="picture to write (default: %(default)s)")
    return p


@explaining("find")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    finder = load_finder(a.model)
    found = finder.search([(a.ra, a.dec)], a.survey, a.known, a.force, cache=a.cache).candidates
    picture(found, a.out)
    print(f"{tell(found.to_pylist()[0], finder)}\npicture  {Path(a.out).resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
