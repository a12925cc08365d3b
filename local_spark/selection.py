"""The selection function of the smoke run's finder: python -m local_spark.selection (or `make selection-function`).

Injects lenses over the whole source plane into hosts of the finder's own division of the sky, cuts and scores them with
the pipeline's own commands, and measures what the finder finds. The experiment is the finder's, with a grid of Einstein
radii and source magnitudes in the place of its injections, and no controls; it is written to <out>/selection, so
that the same commands run on a cluster. Run `make smoke-local` first.
"""

from __future__ import annotations

import argparse
import sys

from darkhaloscope.config import ConfigError
from darkhaloscope.experiment import Experiment, load
from darkhaloscope.stage import place
from darkhaloscope.storage import join, replace_file
from local_spark.generations import as_toml
from local_spark.smoke import EXPERIMENT
from local_spark.steps import Step, StepFailed, python, run_steps, spark

RADIUS_OVER_THETA_E = (
    1.5  # of the circle that sources are in: beyond the tangential caustic of any lens of the grid
)
GRID = {
    "theta_e_arcsec": (0.5, 0.7, 0.95, 1.25, 1.55, 2.0, 2.6),  # one in each of stage 4d's bins
    "src_dmag": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),  # r from about 19 to 27 behind hosts of r 18 to 20
    "src_reff_arcsec": (0.1, 0.2, 0.35),
    "src_e": (0.0, 0.3),
    "shear": (0.0, 0.05),
}


def over_the_plane(file: str, sky: str, rows: int, per_host: int) -> Experiment:
    """Return a finder's experiment with injections over the whole source plane.

    Args:
        file: the finder's experiment file.
        sky: root of the survey.
        rows: injections of each split; those of the test split are scored.
        per_host: injections of each host.
    """
    grid = {f"injection.custom_grid.{axis}": list(values) for axis, values in GRID.items()}
    return load(file, grid | {
        "survey.source": sky, "experiment_id": f"selection_{rows}_{per_host}", "injection.tier": "train",
        "injection.prior": "grid", "injection.grid": "custom", "injection.controls": "unpaired",
        "injection.control_frac": 0.0, "injection.match_total_magnitude": False,
        "injection.max_offset_over_theta_e": RADIUS_OVER_THETA_E, "injection.n_total_per_split": rows,
        "injection.replicates": per_host,
    })  # fmt: skip


def steps(out: str, experiment: Experiment, file: str, checkpoint: str, metrics: str) -> list[Step]:
    """Return the commands from targets to the selection function."""
    shared = ("--experiment", file, "--output-s3", out)
    scores = join(out, "selection", experiment.experiment_id, "scores")
    names = {
        "4a": "lay out injections over the source plane",
        "4b": "cache the coadds",
        "4c": "cut stamps and inject arcs",
    }
    made = [Step("phase3", "select targets", spark("phase3_pipeline.py", *shared))]
    made += [
        Step(f"phase{s}", what, spark("phase4_pipeline.py", "--stage", s, *shared))
        for s, what in names.items()
    ]
    score = (
        "-m",
        "evaluation.score",
        "--checkpoint",
        checkpoint,
        "--data",
        place(out, "phase4c", experiment),
    )
    measure = ("-m", "evaluation.selection_function", "--scores", scores, "--metrics", metrics)
    return [
        *made,
        Step("score", "score the test split", python(*score, "--out", scores, "--overwrite")),
        Step("measure", "what was found", python(*measure, "--out", join(out, "evaluation"))),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(
        "python -m local_spark.selection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", default="smoke-out", help="workspace of the smoke run (default: %(default)s)"
    )
    parser.add_argument("--experiment", default=str(EXPERIMENT), help="the finder's (default: %(default)s)")
    parser.add_argument("--sky", default="", help="root of the survey (default: <out>/sky)")
    parser.add_argument("--checkpoint", default="", help="finder (default: <out>/training/<name>/best.pt)")
    parser.add_argument("--metrics", default="", help="thresholds (default: <out>/evaluation/metrics.json)")
    parser.add_argument("--n", type=int, default=4000, help="injections of each split (default: %(default)s)")
    parser.add_argument(
        "--per-host", type=int, default=16, help="injections of a host (default: %(default)s)"
    )
    a = parser.parse_args(argv)
    try:
        experiment = over_the_plane(a.experiment, a.sky or join(a.out, "sky"), a.n, a.per_host)
        file = join(a.out, "selection", f"{experiment.experiment_id}.toml")
        replace_file(file, as_toml(experiment.as_dict()).encode())
        checkpoint = a.checkpoint or join(a.out, "training", experiment.name, "best.pt")
        run_steps(
            steps(a.out, experiment, file, checkpoint, a.metrics or join(a.out, "evaluation", "metrics.json"))
        )
    except (ConfigError, StepFailed) as error:
        print(f"selection: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
