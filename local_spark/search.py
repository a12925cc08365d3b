"""Search the mini sky for lenses that another renderer planted: `make search-local`.

    python -m local_spark.search --workspace smoke-out --out search-out

Takes the finder of `make smoke-local` (made first where there is none), plants lenses drawn by lenstronomy on target
galaxies of a test brick, searches that brick with `spark_jobs/search_pipeline.py`, tells how many of them score above a
stated threshold, and how many other galaxies do, and draws the page on which candidates are graded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from darkhaloscope.dataset import read_table
from darkhaloscope.experiment import load
from darkhaloscope.search.reference import FORMAT as REFERENCE_FORMAT
from darkhaloscope.stage import place
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from local_spark import smoke
from local_spark.planted import draw_lenses, facts, plant
from local_spark.steps import Step, StepFailed, python, run_steps, spark

BRICK = "1905p247"  # of the test split: no network saw its galaxies
THRESHOLD_FPR = 0.02  # 4 of the smoke run's 202 negatives: a lower rate hangs on one galaxy


def steps(workspace: str, out: str) -> list[Step]:
    """Return the commands that make the finder ready and search."""
    experiment = load(smoke.EXPERIMENT)
    trained = join(workspace, "training", experiment.name)
    model = join(out, "model")
    return [
        Step("export", "write the finder as ONNX", python(
            "-m", "training.export", join(trained, "best.pt"), "--out", model)),
        Step("reference", "what its scores mean", python(
            "-m", "evaluation.reference", "--scores", join(workspace, "scores", experiment.name),
            "--calibration", join(workspace, "evaluation", "calibration.json"),
            "--out", join(model, "reference.json"))),
        Step("search", f"search brick {BRICK}", spark(
            "search_pipeline.py", "--model", join(model, "finder.onnx"), "--reference", join(model, "reference.json"),
            "--survey-source", join(out, "sky"), "--known", join(out, "sky", "planted.csv"), "--bricks", BRICK,
            "--out", join(out, "found"), "--overwrite")),
        Step("page", "draw the page to grade candidates on", python(
            "-m", "evaluation.candidates", join(out, "found", "candidates"), "--out", join(out, "page"))),
    ]  # fmt: skip


def plant_lenses(workspace: str, out: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Plant lenses on targets of the brick; return what was drawn."""
    experiment = load(smoke.EXPERIMENT)
    columns = ["ra", "dec", "mag_r", "brickname"]
    targets = read_table(place(workspace, "phase3", experiment), columns)
    here = targets.filter(np.asarray(targets.column("brickname").to_pylist()) == BRICK)
    hosts = {n: here.column(n).to_numpy() for n in columns[:3]}
    lenses = plant(Path(workspace, "sky"), Path(out, "sky"), BRICK, draw_lenses(hosts, count, seed), seed)
    return facts(lenses)


def outcome(out: str) -> dict[str, Any]:
    """Return how many planted lenses and how many other galaxies score above the threshold."""
    rows = read_table(join(out, "found", "candidates"), ["known_name", "logit", "rank", "fpr", "refused"])
    found = {n: rows.column(n).to_pylist() for n in rows.column_names}
    planted = [i for i, name in enumerate(found["known_name"]) if name]
    scored = [i for i, logit in enumerate(found["logit"]) if logit is not None]
    above = [i for i in scored if found["fpr"][i] <= THRESHOLD_FPR]
    hits = sorted(set(above) & set(planted))
    others = len(above) - len(hits)
    reference = json.loads(Path(out, "model", "reference.json").read_text())
    assert reference["format"] == REFERENCE_FORMAT
    return {
        "threshold_fpr": THRESHOLD_FPR,
        "threshold_logit": min((found["logit"][i] for i in above), default=None),
        "negatives_of_the_evaluation": reference["n_negatives"],
        "planted": len(planted),
        "planted_found": len(hits),
        "planted_ranks": [found["rank"][i] for i in planted],
        "targets_scored": len(scored),
        "false_positives": others,
        "false_positives_expected": THRESHOLD_FPR * (len(scored) - len(planted)),
    }


def tell(result: dict[str, Any], out: str) -> str:
    """Return the lines that end a run."""
    return "\n".join(
        [
            f"threshold: at most {result['threshold_fpr']:.0%} of the evaluation's "
            f"{result['negatives_of_the_evaluation']} negatives score as high",
            f"planted lenses above it: {result['planted_found']} of {result['planted']}; their ranks: "
            + ", ".join(map(str, result["planted_ranks"])),
            f"false positives above it: {result['false_positives']} of "
            f"{result['targets_scored'] - result['planted']} other galaxies "
            f"(expected {result['false_positives_expected']:.1f})",
            f"candidates {join(out, 'found', 'candidates')}",
            f"summary    {join(out, 'found', 'summary.html')}",
            f"page       {join(out, 'page.html')}",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run everything; return the exit status: 1 where fewer than half of the planted lenses were found."""
    parser = argparse.ArgumentParser(
        "python -m local_spark.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workspace", default="smoke-out", help="of make smoke-local (default: %(default)s)")
    add("--out", default="search-out", help="folder to fill (default: %(default)s)")
    add("--lenses", type=int, default=20, help="lenses to plant (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the planted lenses (default: %(default)s)")
    a = parser.parse_args(argv)
    if not Path(a.workspace, "scores").exists() and smoke.main(["--out", a.workspace]):
        return 1
    planted = plant_lenses(a.workspace, a.out, a.lenses, a.seed)
    try:
        seconds = run_steps(steps(a.workspace, a.out))
    except StepFailed as error:
        print(f"search-local: {error}", file=sys.stderr)
        return 1
    result = outcome(a.out)
    content = result | {"seconds": seconds, "lenses": planted}
    replace_file(join(a.out, "planted.json"), json.dumps(content, indent=1).encode())
    print(f"\n{tell(result, a.out)}")
    return 0 if 2 * result["planted_found"] >= result["planted"] else 1


if __name__ == "__main__":
    sys.exit(main())
