"""Stage 3: spark-submit spark_jobs/phase3_pipeline.py --experiment experiments/gen3.toml.

Reads the survey's sweep catalogues and writes the target galaxies of an experiment to
<output>/phase3/<variant>/<experiment_id>. With no flag it works on the workspace of `make smoke-local`.
"""

from __future__ import annotations

import argparse
import sys

from spark_jobs import targets
from spark_jobs.arguments import add_common, experiment_of
from spark_jobs.command import run_stage


def parser() -> argparse.ArgumentParser:
    """Return the command line of stage 3."""
    made = argparse.ArgumentParser(
        "phase3_pipeline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(made)
    made.add_argument("--target-variant", help="colour cuts, v1_pure_massive to v5_very_relaxed")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run stage 3; return the exit status."""
    args = parser().parse_args(argv)
    overrides = {"targets__variant": args.target_variant}
    return run_stage("phase3", lambda: experiment_of(args, **overrides), targets.run, args)


if __name__ == "__main__":
    sys.exit(main())
