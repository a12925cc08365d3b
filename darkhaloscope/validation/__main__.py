"""Validation reports: python -m darkhaloscope.validation --root smoke-out --experiment experiments/smoke.toml.

For each stage that has finished below the root, writes `validation/index.html` (numbers, then pictures) and
`validation/validation.json` beside the stage's `_stage_config.json`, and a page that leads to all of them. A stage that
has not run is said, and is no error.
"""

from __future__ import annotations

import argparse
import sys

from darkhaloscope.errors import Explained
from darkhaloscope.experiment import load
from darkhaloscope.storage import join
from darkhaloscope.validation.pages import FOLDER, STAGES, validate


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        "python -m darkhaloscope.validation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--root", default="smoke-out", metavar="URL", help="workspace (default: %(default)s)")
    made.add_argument("--experiment", required=True, metavar="TOML", help="experiment file of the run")
    made.add_argument(
        "--experiment-id", help="name of the output folder below the variant, where it is another"
    )
    made.add_argument(
        "--stage", choices=STAGES, action="append", help="only this stage; may be given again (default: all)"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Write the pages; return the exit status: 1 only where a finished stage cannot be read or a page not written."""
    args = parser().parse_args(argv)
    try:
        experiment = load(
            args.experiment, {"experiment_id": args.experiment_id} if args.experiment_id else None
        )
        outcomes = validate(args.root, experiment, args.stage or STAGES)
    except Explained as error:
        print(f"validation: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for outcome in outcomes:
        where = join(outcome.root, FOLDER, "index.html") if outcome.page else outcome.reason
        print(f"{outcome.stage:5s} {where}")
        for warning in outcome.warnings:
            print(f"      warning: {warning}")
    print(f"all   {join(args.root, FOLDER, experiment.variant, experiment.experiment_id, 'index.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
