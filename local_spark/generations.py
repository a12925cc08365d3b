"""Train all six generations on the simulated sky: python -m local_spark.generations (or `make generations`).

Each generation goes the whole way with its own settings, at a small number of rows: targets, manifest, stamps,
shards, training, scores, figures, result card. Generation 4 first mines hard negatives with the models of
generations 2 and 3. What two generations have in common is made once: the sky, the targets of a target variant, the
stamps of generations 3 and 4. Writes <out>/<generation>/report/index.html for each and <out>/index.html for all.

This proves that every generation can be made and trained, and nothing about how well any of them finds lenses:
the rows are thousands of times too few for the false-positive rates that matter.

The defaults take about half an hour on two quiet cores (30 images/s for ConvNeXt-Tiny in fp32, 9 for generation
1's ResNet18, which therefore gets a third of the rows). Started again, it keeps the generations that are done.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darkhaloscope.config import positive
from darkhaloscope.experiment import STAMPS_DECIDED_BY, Experiment, load
from darkhaloscope.report.page import Page, Section, Table, render_page
from darkhaloscope.stage import code_version, place
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from local_spark.smoke import paint, pipeline, summarise
from local_spark.steps import REPOSITORY, Step, StepFailed, python, run_steps

GENERATIONS = ("gen1", "gen2", "gen3", "gen4", "gen5", "modern")
MINED_FROM = ("gen2", "gen3")  # whose models choose generation 4's hard negatives, as the seed's did
STAMP_STAGES = ("phase4a", "phase4b", "phase4c", "phase4d")
COMMON = {  # stages that generations may have in common, and the settings that decide their output
    ("phase3",): ("seed", "survey", "targets", "splits"),
    STAMP_STAGES: STAMPS_DECIDED_BY,
}
CLAIMS = Path(__file__).with_name("seed_claims.toml")
FIGURES = ("auroc", "tpr@fpr1e-2", "tpr@fpr1e-3", "tpr@fpr1e-4")


def sized(name: str, rows: int, epochs: int, sky: str) -> Experiment:
    """Return a generation's experiment at the size of this run; everything else is as its file says.

    Four things more are of this run: as many controls as positives, since so few rows in 1:9 would leave too few
    positives to learn from; fp32, since processors without half precision take thirteen times as long for it; more
    rows that may fail; and bounds on the arcs that are no tighter than generation 3's, since beyond modern's no
    negative was left to validate with.
    """
    own = load(REPOSITORY / "experiments" / f"{name}.toml")
    slow = own.training.arch == "resnet18"
    overrides = {
        "survey.source": sky,
        "splits.train": 0.5, "splits.val": 0.25, "splits.test": 0.25,
        "injection.n_total_per_split": rows // 3 if slow else rows,
        "injection.control_frac": 0.5,
        "limits.max_failed_fraction": 0.1,  # a brick of this sky has no g band: of few rows, more than 2 % may be there
        "pack.rows_per_group": 64,
        "training.min_theta_over_psf": min(own.training.min_theta_over_psf, 0.5),
        "training.min_arc_snr": min(own.training.min_arc_snr, 5.0),
        "training.epochs": epochs,
        "training.batch_size": min(own.training.batch_size, 32),
        "training.num_workers": 1,
        "training.precision": "fp32",
    }  # fmt: skip
    return load(REPOSITORY / "experiments" / f"{name}.toml", overrides)


def as_toml(values: Mapping[str, Any], name: str = "") -> str:
    """Write an experiment's plain values as TOML: scalars first, then one table a section."""
    lines = [f"[{name}]"] if name else []
    lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, Mapping)]
    for section, table in values.items():
        if isinstance(table, Mapping):
            lines += ["", as_toml(table, f"{name}.{section}" if name else section)]
    return "\n".join(lines) + "\n"


def mine(out: str, data: str, rows: int) -> list[Step]:
    """Return the commands that mine hard negatives among the training rows of `data`."""
    steps = []
    for name in MINED_FROM:
        model = join(out, name, "training", name, "best.pt")
        scoring = ("-m", "evaluation.score", "--checkpoint", model, "--data", data, "--split", "train")
        scores = join(out, "mining", name)
        steps.append(Step(f"score_{name}", f"score the training rows with {name}",
                          python(*scoring, "--out", scores, "--overwrite")))  # fmt: skip
    scored = [join(out, "mining", name) for name in MINED_FROM]
    known = join(out, "mining", "known_lenses.csv")
    replace_file(known, b"ra,dec\n")  # the simulated sky has no lens but those that are injected
    found = join(out, "mining", "hard_negatives")
    shutil.rmtree(found, ignore_errors=True)  # of a run that was cut off
    mining = ("-m", "evaluation.mine", "--scores", *scored, "--known-lenses", known, "--out", found)
    steps.append(Step("mine", "most lens-like negatives", python(*mining, "--top", str(max(rows // 20, 4)))))
    return steps


def borrow(name: str, out: str, rows: int, epochs: int) -> set[str]:
    """Link the stages that an earlier generation has done with the same settings; return their names."""
    sky = join(out, "sky")
    own, borrowed = sized(name, rows, epochs, sky), set()
    for earlier in GENERATIONS[: GENERATIONS.index(name)]:
        other = sized(earlier, rows, epochs, sky)
        if not Path(out, earlier, "summary.json").exists():
            continue
        for stages, sections in COMMON.items():
            if borrowed.isdisjoint(stages) and own.digest(*sections) == other.digest(*sections):
                for stage in stages:
                    link = Path(place(join(out, name), stage, own))
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.unlink(missing_ok=True)
                    link.symlink_to(Path(place(join(out, earlier), stage, other)).resolve())
                borrowed |= set(stages)
    return borrowed


def run_generation(name: str, out: str, rows: int, epochs: int) -> dict[str, Any]:
    """Take one generation the whole way, or find it done; return its summary."""
    sky, workspace = join(out, "sky"), join(out, name)
    experiment, file = sized(name, rows, epochs, sky), join(workspace, "experiment.toml")
    done = Path(workspace, "summary.json")
    if done.exists() and json.loads(done.read_text())["config_hash"] == experiment.digest():
        print(f"\n{name}: done before")
        return json.loads(done.read_text())
    print(f"\n== {name}: {experiment.description}", flush=True)
    replace_file(file, as_toml(experiment.as_dict()).encode())
    mined = name == "gen4"
    flags = ("--hard_neg_path", join(out, "mining", "hard_negatives")) if mined else ()
    borrowed = borrow(name, out, rows, epochs)
    steps = [s for s in pipeline(workspace, experiment, file, sky, flags) if s.name not in borrowed]
    if mined:
        train = [s.name for s in steps].index("train")
        steps[train:train] = mine(out, place(workspace, "pack", experiment), rows)
    seconds = run_steps(steps)
    summary = summarise(workspace, experiment, seconds)
    replace_file(str(done), json.dumps(summary, indent=1).encode())
    run_steps([Step("report", "result card", python("-m", "evaluation.report", workspace))])
    return summary


def page_of(summaries: Mapping[str, dict[str, Any]], rows: int, epochs: int) -> Page:
    """Return the page of all generations: what was measured, with N; then the seed's claims and their status."""
    claims = tomllib.loads(CLAIMS.read_text())
    header = ("generation", "network", "loss", "stamps", "seconds", "controls of the test", *FIGURES)
    measured = [
        (name, s["training"]["arch"], s["training"]["loss"], s["stages"]["phase4c"]["counts"]["ok"],
         round(sum(s["seconds"].values())), s["metrics"]["n"]["negatives"], *map(_figure, _figures(s)))
        for name, s in summaries.items()
    ]  # fmt: skip
    claimed = [
        (c["generation"], c["auroc"], c["tpr_at_fpr_1e-3"], c["tpr_at_fpr_1e-4"], c["status"])
        for c in claims["claim"]
    ]
    size = (
        f"{rows} rows a split asked for (a third for ResNet18), half of them controls, {epochs} epochs at most, "
        "batches of 32, fp32, learning rates as they are, the synthetic source bank: far "
        "too little training for any ranking of the generations. Stages that two generations share are timed once."
    )
    return Page(
        "All generations on the simulated sky",
        "Plumbing: every generation is made and trained with its own settings. It says nothing about performance.",
        {"code version": code_version(), **{n: s["config_hash"] for n, s in summaries.items()}},
        [
            Section("Measured here", size, [_unresolved(summaries)], [Table(header, measured)]),
            Section(
                "What the seed document claims",
                f"Claims of {claims['reference']}, on other data; none was reproduced here.",
                tables=[Table(("generation", "AUROC", "tpr@fpr1e-3", "tpr@fpr1e-4", "status"), claimed)],
            ),
        ],
    )


def _figures(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [summary["metrics"]["figures"][name] for name in FIGURES]


def _figure(figure: Mapping[str, Any]) -> str:
    text = f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
    return text if figure["resolved"] else f"{text} unresolved"


def _unresolved(summaries: Mapping[str, dict[str, Any]]) -> str:
    names = sorted({n for s in summaries.values() for n in s["metrics"]["unresolved"]})
    return f"Unresolved in at least one generation, for want of controls: {', '.join(names) or 'none'}."


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(
        "python -m local_spark.generations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", default="generations-out", help="folder to fill (default: %(default)s)")
    p.add_argument("--rows", type=positive, default=1200, help="stamps of a split (default: %(default)s)")
    p.add_argument("--epochs", type=positive, default=5, help="epochs at most (default: %(default)s)")
    p.add_argument(
        "--only", nargs="+", choices=GENERATIONS, default=GENERATIONS, help="some of them (default: all)"
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Run all; return the exit status."""
    a = parser().parse_args(argv)
    try:
        run_steps([paint(join(a.out, "sky"))])
        summaries = {}
        for name in (n for n in GENERATIONS if n in a.only):
            training = dataclasses.asdict(sized(name, a.rows, a.epochs, join(a.out, "sky")).training)
            summaries[name] = {**run_generation(name, a.out, a.rows, a.epochs), "training": training}
            page = render_page(page_of(summaries, a.rows, a.epochs))
            replace_file(join(a.out, "index.html"), page.encode())
    except StepFailed as error:
        print(f"generations: {error}; what is done is kept: start again", file=sys.stderr)
        return 1
    print(f"\n-> {join(a.out, 'index.html')}, and a result card in each generation's folder")
    return 0


if __name__ == "__main__":
    sys.exit(main())
