"""Stages 4a to pack: spark-submit spark_jobs/phase4_pipeline.py --stage 4c --experiment TOML.

  4a    targets   -> injection manifest (which arc on which galaxy, and the controls)
  4b    manifest  -> coadd cache (each brick's images, checked)
  4c    manifest + coadds -> 64x64 stamps with lensed arcs, measured
  4d    stamps    -> completeness tables
  pack  stamps    -> shuffled training shards

Each writes <output>/<stage>/<variant>/<experiment_id> and can be run again: what is committed is kept.
With no flag but --stage it works on the workspace of `make smoke-local`.
"""

from __future__ import annotations

import argparse
import sys

from darkhaloscope.config import positive
from spark_jobs import catalogue_manifest, coadd_cache, completeness, manifest, pack, stamps
from spark_jobs.arguments import add_common, bands, experiment_of
from spark_jobs.command import run_stage

STAGES = {
    "4a": manifest.run,
    "4b": coadd_cache.run,
    "4c": stamps.run,
    "4d": completeness.run,
    "pack": pack.run,
}


def parser() -> argparse.ArgumentParser:
    """Return the command line of the stages."""
    made = argparse.ArgumentParser(
        "phase4_pipeline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--stage", required=True, choices=STAGES, help="which stage to run")
    add_common(made)
    what = made.add_argument_group("what (these win over the experiment file)")
    what.add_argument(
        "--psf-model", choices=["gaussian", "moffat", "kernel"], help="model of the survey's PSF"
    )
    what.add_argument("--moffat-beta", type=float, help="slope of the Moffat PSF")
    what.add_argument("--bands", type=bands, help="bands, as grz or g,r,z")
    what.add_argument(
        "--max-failed-fraction", type=float, metavar="F", help="4c fails when more of its rows fail"
    )
    what.add_argument(
        "--connections", type=positive, metavar="N", help="4b: connections to the source, over all tasks"
    )
    what.add_argument(
        "--ask-again-days",
        type=float,
        metavar="D",
        help="4b: ask again for files missing D days ago; 0: at once",
    )
    positions = made.add_argument_group("4a of a table of positions instead of targets and injections")
    positions.add_argument(
        "--catalogue", metavar="FILE", help="known lenses, mimics ...: CSV, TSV, FITS, VOTable or Parquet"
    )
    positions.add_argument(
        "--catalogue-units",
        default="",
        choices=["deg"],
        help="right ascensions are degrees, though all below 24",
    )
    positions.add_argument(
        "--catalogue-type", default="", metavar="TYPE", help="type of every row, e.g. lens, ring, artefact"
    )
    return made


def main(argv: list[str] | None = None) -> int:
    """Run one stage; return the exit status."""
    args = parser().parse_args(argv)
    if args.catalogue and args.stage != "4a":
        parser().error(
            f"--catalogue goes with --stage 4a; stage {args.stage} reads the manifest that 4a makes of it"
        )
    overrides = {
        "psf__model": args.psf_model,
        "psf__moffat_beta": args.moffat_beta,
        "survey__bands": args.bands,
        "limits__max_failed_fraction": args.max_failed_fraction,
        "fetch__connections": args.connections,
        "fetch__ask_again_days": args.ask_again_days,
    }
    stage = catalogue_manifest.run if args.catalogue else STAGES[args.stage]
    return run_stage(args.stage, lambda: experiment_of(args, **overrides), stage, args)


if __name__ == "__main__":
    sys.exit(main())
