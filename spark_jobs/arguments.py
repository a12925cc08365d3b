"""The flags every stage shares, and the experiment they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from darkhaloscope.config import ConfigError, positive
from darkhaloscope.experiment import STAMPS_DECIDED_BY, Experiment, load, parse_bands
from darkhaloscope.storage import is_local

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
DEFAULT_EXPERIMENT = "smoke"
DEFAULT_ROOT = "smoke-out"
STAMP_SECTIONS = ("variant", "experiment_id", *STAMPS_DECIDED_BY, "pack")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every stage takes."""
    which = parser.add_argument_group("which experiment")
    which.add_argument(
        "--experiment", metavar="TOML", help="experiment file (path or URL), e.g. experiments/gen3.toml"
    )
    which.add_argument("--variant", help="the experiment file whose `variant` is this (the seed's flag)")
    which.add_argument("--experiment-id", help="name of the output folder below the variant")
    where = parser.add_argument_group("where")
    where.add_argument(
        "--output-s3",
        default=DEFAULT_ROOT,
        metavar="URL",
        help="root of all tables: a path, file://, s3:// or s3a:// (default: %(default)s)",
    )
    where.add_argument(
        "--survey-source", metavar="URL", help="base URL of the survey: coadd/, sweep/ below it"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--test-limit",
        type=positive,
        metavar="N",
        help="use only the first N rows of the input (stage 3: N sweep files; 4d: the files that hold them)",
    )
    how.add_argument(
        "--partitions", type=positive, default=4, help="Spark tasks at a time (default: %(default)s)"
    )
    how.add_argument("--overwrite", action="store_true", help="replace an output made from another config")
    how.add_argument("--take-over", action="store_true", help="seize an output whose writer is dead")


def bands(text: str) -> str:
    """Parse --bands: grz, `g,r,z` and `g, r, z` mean the same."""
    try:
        return parse_bands(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def experiment_of(args: argparse.Namespace, **overrides: Any) -> Experiment:
    """Return the experiment that the flags name, with flags that were given winning over the file.

    Raises:
        ConfigError: no such experiment, or --experiment and --variant disagree.
    """
    given = {k.replace("__", "."): v for k, v in overrides.items() if v is not None}
    if args.experiment_id:
        given["experiment_id"] = args.experiment_id
    if args.survey_source:
        given["survey.source"] = args.survey_source
    if args.experiment:
        experiment = load(_find(args.experiment), given)
        if args.variant and args.variant != experiment.variant:
            raise ConfigError(
                f"--variant {args.variant} but {args.experiment} has variant {experiment.variant!r}; "
                "give one of the two"
            )
        return experiment
    return load(
        _of_variant(args.variant) if args.variant else EXPERIMENTS / f"{DEFAULT_EXPERIMENT}.toml", given
    )


def _find(path: str) -> str | Path:
    """Return the file as given (path or URL), or below the folder that holds experiments/ (for runs from elsewhere)."""
    if not is_local(path):
        return path
    here, beside_code = Path(path), EXPERIMENTS.parent / path
    return beside_code if not here.exists() and beside_code.exists() else here


def _of_variant(variant: str) -> Path:
    known = {p: load(p) for p in sorted(EXPERIMENTS.glob("*.toml"))}
    matches = [p for p, e in known.items() if e.variant == variant]
    if not matches:
        variants = sorted({e.variant for e in known.values()})
        raise ConfigError(f"--variant {variant}: no experiment file has it; known variants: {variants}")
    if len({known[p].digest(*STAMP_SECTIONS) for p in matches}) > 1:
        names = [p.name for p in matches]
        raise ConfigError(f"--variant {variant}: {names} have it and differ; give --experiment instead")
    return matches[0]
