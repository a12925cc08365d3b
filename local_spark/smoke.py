"""The whole way once: python -m local_spark.smoke (or `make smoke-local`).

Paints the simulated sky and runs every stage through its own entry point: targets, manifest, coadd cache,
stamps, completeness, shards, training, scores, evaluation, shortcut gates, report. Writes <out>/summary.json and
<out>/report/index.html. Started again, it keeps what is done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from darkhaloscope.experiment import Experiment, load
from darkhaloscope.stage import code_version, place, read_record
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from local_spark.steps import REPOSITORY, Step, StepFailed, python, run_steps, spark

EXPERIMENT = REPOSITORY / "experiments" / "smoke.toml"
STAGES = {
    "phase3": "select targets from the sweep catalogues",
    "phase4a": "lay out the injection manifest",
    "phase4b": "cache the coadds",
    "phase4c": "cut stamps and inject arcs",
    "phase4d": "completeness of the injections",
    "pack": "shuffle the stamps into training shards",
}


def paint(sky: str) -> Step:
    """Return the command that paints the simulated sky."""
    return Step("sky", "paint a simulated sky", python("-m", "local_spark.mini_sky", "--out", sky))


def pipeline(
    out: str,
    experiment: Experiment,
    file: str,
    sky: str,
    train_flags: tuple[str, ...] = (),
    calibrated: bool = False,
) -> list[Step]:
    """Return the commands from targets to figures.

    Args:
        out: workspace.
        experiment: as `file` says it.
        file: its TOML file.
        sky: root of the survey.
        train_flags: further flags of the trainer.
        calibrated: fit a calibration on the split val, and evaluate it on the test split.
    """
    return [*stages(out, file, sky), *finder(out, experiment, file, train_flags, calibrated)]


def stages(out: str, file: str, sky: str) -> list[Step]:
    """Return the commands from targets to training shards."""
    shared = ("--experiment", file, "--output-s3", out, "--survey-source", sky)
    steps = []
    for name, what in STAGES.items():
        script = ("phase3_pipeline.py",) if name == "phase3" else (
            "phase4_pipeline.py", "--stage", name.removeprefix("phase"))  # fmt: skip
        steps.append(Step(name, what, spark(*script, *shared)))
    return steps


def finder(
    out: str, experiment: Experiment, file: str, train_flags: tuple[str, ...], calibrated: bool
) -> list[Step]:
    """Return the commands from training shards to figures; arguments as `pipeline`."""
    packed = place(out, "pack", experiment)
    trained, scores = join(out, "training", experiment.name), join(out, "scores", experiment.name)
    best, calibration = join(trained, "best.pt"), join(out, "evaluation", "calibration.json")
    fit = ("--calibration", calibration) if calibrated else ()
    train = python(
        str(REPOSITORY / "training" / "train.py"), "--experiment", file,
        "--data", packed, "--out_dir", trained, "--overwrite", *train_flags,
    )  # fmt: skip
    score = ("-m", "evaluation.score", "--checkpoint", best, "--data", packed, "--out", scores, "--overwrite")
    evaluate = ("-m", "evaluation.evaluate", "--scores", scores, "--out", join(out, "evaluation"))
    return [
        Step("train", f"train {experiment.training.arch}", train),
        *(calibrate(best, packed, f"{scores}-val", calibration) if calibrated else ()),
        Step("score", "score the test split", python(*score, *fit)),
        Step("evaluate", "figures at operational thresholds", python(*evaluate, *fit)),
    ]


def calibrate(checkpoint: str, data: str, scores: str, out: str) -> list[Step]:
    """Return the commands that fit a calibration on the split val."""
    score = (
        "-m", "evaluation.score", "--checkpoint", checkpoint, "--data", data, "--split", "val",
        "--out", scores, "--overwrite",
    )  # fmt: skip
    return [
        Step("score_val", "score the validation split", python(*score)),
        Step(
            "calibrate",
            "fit probabilities",
            python("-m", "evaluation.calibrate", "--scores", scores, "--out", out),
        ),
    ]


def gates(out: str, experiment: Experiment) -> Step:
    """Return the command that runs the shortcut gates: the data must fail none; a network of some epochs may."""
    checkpoint = join(out, "training", experiment.name, "best.pt")
    return Step(
        "gates",
        "shortcut gates: is there anything but the arc?",
        python(
            "-m", "evaluation.gates", "--checkpoint", checkpoint, "--data", place(out, "pack", experiment),
            "--out", join(out, "evaluation"), "--fail-on", "data",
        ),
    )  # fmt: skip


def summarise(out: str, experiment: Experiment, seconds: dict[str, float]) -> dict[str, Any]:
    """Return what the stages recorded, and the evaluation's figures: nothing here is computed anew."""
    stages = {}
    for name in STAGES:
        record = read_record(place(out, name, experiment))
        if record is None:
            raise StepFailed(f"stage {name} left no record below {out}")
        stages[name] = {k: record[k] for k in ("counts", "hash", "seconds")}
    metrics = json.loads(Path(out, "evaluation", "metrics.json").read_text())
    return {
        "experiment": experiment.name,
        "config_hash": experiment.digest(),
        "code_version": code_version(),
        "stages": stages,
        "seconds": seconds,
        "metrics": metrics,
    }


def tell(summary: dict[str, Any], out: str) -> str:
    """Return the few lines that end a run."""
    counts = {k: v["counts"] for k, v in summary["stages"].items()}
    stamps = counts["phase4c"]
    lines = [
        f"targets {counts['phase3']['cuts']['targets']}, manifest rows {counts['phase4a']['rows']}, "
        f"stamps made {stamps['ok']}, failed {stamps['failed']}",
        *(f"  failed: {n} x {reason}" for reason, n in stamps["reasons"].items()),
        f"took {sum(summary['seconds'].values()):.0f} s",
        f"summary  {join(out, 'summary.json')}",
        f"report   {join(out, 'report', 'index.html')}",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(
        "python -m local_spark.smoke",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", default="smoke-out", help="workspace to fill (default: %(default)s)")
    out = parser.parse_args(argv).out
    experiment = load(EXPERIMENT, {"survey.source": join(out, "sky")})
    start = time.perf_counter()
    try:
        sky = join(out, "sky")
        steps = pipeline(out, experiment, str(EXPERIMENT), sky, calibrated=True)
        seconds = run_steps([paint(sky), *steps, gates(out, experiment)])
        summary = summarise(out, experiment, seconds)
        replace_file(join(out, "summary.json"), json.dumps(summary, indent=1).encode())
        run_steps([Step("report", "draw the report", python("-m", "evaluation.report", out))])
    except StepFailed as error:
        print(f"smoke: {error}", file=sys.stderr)
        return 1
    print(f"\nall done in {time.perf_counter() - start:.0f} s\n{tell(summary, out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
