"""One thing at a time: what each choice of generation 2 is worth, on one test set, three seeds each.

    python -m evaluation.study --size small --out study-out        (make study)
    python -m evaluation.study --size gpu --out study-out          (make study-gpu)

`study.toml` says what is compared and how large. Shards are painted where the study runs (`training.make_shards`), on
the same hosts for every variant; validation and test rows are common to all. Every run leaves
<out>/runs/<variant>-<seed>/result.json; <out>/study.json and --page (docs/study.md) are made of those files alone
(`study_page`). A run that is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from darkhaloscope.draws import digest
from darkhaloscope.experiment import Experiment, load
from darkhaloscope.injection.hosts import rows_per_host
from darkhaloscope.simulated.field import FieldPlan
from darkhaloscope.writing import replace_file
from evaluation.command import command_line
from evaluation.committee import load_committee
from evaluation.mine import mine
from evaluation.score import score
from evaluation.scores import read_scores
from evaluation.sources import stamp_files
from evaluation.study_page import describe, statistics
from training.make_shards import make_shards
from training.metrics import summarise
from training.options import REPOSITORY
from training.train import train

PLAN = Path(__file__).with_name("study.toml")
DATA_SECTIONS = ("injection", "psf")  # of an experiment: what decides the training rows' pixels


@dataclass(frozen=True)
class Variant:
    """One thing changed. name, question and claim: for the page. change: dotted keys of the experiment to values.

    mined: whether negatives are mined with the base's first run first.
    """

    name: str
    question: str
    claim: str
    change: dict[str, Any]
    mined: bool = False


@dataclass(frozen=True)
class Study:
    """A study: its plan at one size, and where it is."""

    out: Path
    size: str
    plan: dict[str, Any]

    @property
    def variants(self) -> list[Variant]:
        """What is compared, the base first."""
        return [Variant(**v) for v in self.plan["variant"]]

    @property
    def sized(self) -> dict[str, Any]:
        """The numbers of this size."""
        return self.plan["size"][self.size]

    def experiment(self, variant: Variant) -> Experiment:
        """Return the experiment of a variant at this size."""
        return load(REPOSITORY / self.plan["experiment"], {**self.sized["change"], **variant.change})

    def common(self) -> Experiment:
        """Return the experiment of the validation and test rows."""
        changes = {**self.sized["change"], **self.sized["common"], **self.plan["nature"]}
        return load(REPOSITORY / self.plan["experiment"], changes)

    def folder(self, variant: Variant, seed: int) -> Path:
        """Return where a run is."""
        return self.out / "runs" / f"{variant.name}-{seed}"


def shards_of(study: Study, variant: Variant) -> str:
    """Make what is missing of a variant's shards; return the folder with its training and the common other rows."""
    experiment, hosts = study.experiment(variant), study.sized["hosts"]
    fields = FieldPlan(experiment.seed, cells=study.sized["field_cells"])
    rendered = not experiment.training.live_injection
    name = digest(experiment.digest(*DATA_SECTIONS), rendered)[:12]
    common, own = study.out / "shards" / "common", study.out / "shards" / name
    make_shards(str(common), {s: hosts[s] for s in ("val", "test")}, study.common(), fields)
    # As many rows, and so steps, for every variant: a pair is two rows of one host.
    train_hosts = round(hosts["train"] / rows_per_host(experiment))
    make_shards(str(own), {"train": train_hosts}, experiment, fields, rendered)
    view = study.out / "views" / name
    view.mkdir(parents=True, exist_ok=True)
    for split, place in (("train", own), ("val", common), ("test", common)):
        link = view / f"split={split}"
        link.unlink(missing_ok=True)
        link.symlink_to((place / f"split={split}").resolve())
    return str(view)


def mined(study: Study, view: str, device: str) -> str:
    """Mine negatives among the training rows with the base's first run, once; return the list."""
    found, base = study.out / "mined", study.variants[0]
    if (found / "chunk=00000" / "_manifest.json").exists():
        return str(found)
    shutil.rmtree(found, ignore_errors=True)
    scores = str(study.out / "mining")
    best = study.folder(base, study.plan["seeds"][0]) / "best.pt"
    scored(best, view, "train", scores, device)
    known = study.out / "known_lenses.csv"  # the simulated sky has no lens but those that are injected
    replace_file(str(known), b"ra,dec\n")
    mine([scores], [str(known)], str(found), top=study.sized["mine"])
    return str(found)


def scored(checkpoint: Path, view: str, split: str, out: str, device: str) -> None:
    """Score a split with one network."""
    committee = load_committee([str(checkpoint)], device=device)
    score(committee, stamp_files(view, split), split, out, overwrite=True, progress=False)


def run(study: Study, variant: Variant, seed: int, device: str) -> dict[str, Any]:
    """Train and score one variant with one seed, or find it done; return its result.json."""
    folder = study.folder(variant, seed)
    experiment = replace(study.experiment(variant), seed=seed)
    view = shards_of(study, variant)
    known = digest(experiment.digest(), study.common().digest(), study.sized["hosts"])
    if (folder / "result.json").exists():
        result = json.loads((folder / "result.json").read_text())
        if result["digest"] == known:
            return result
    if variant.mined:
        training = replace(experiment.training, hard_neg_path=mined(study, view, device))
        experiment = replace(experiment, training=training)
    started = time.perf_counter()
    train(experiment, view, folder, overwrite=True, device=device)
    trained = time.perf_counter()
    scores = folder / "scores"
    scored(folder / "best.pt", view, "test", str(scores), device)
    found = read_scores(str(scores))
    result = {
        "variant": variant.name, "seed": seed, "digest": known, "device": device_name(device),
        "figures": summarise(found.logit, found.label), "train_seconds": trained - started,
        "score_seconds": time.perf_counter() - trained, "epochs": experiment.training.epochs,
        "arch": experiment.training.arch,
    }  # fmt: skip
    replace_file(str(folder / "result.json"), json.dumps(result, indent=1).encode())
    return result


def device_name(device: str) -> str:
    """Return what a device is called."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"


def write_page(study: Study, page: Path | None) -> dict[str, Any]:
    """Write study.json, and the page, from the runs' files; return what study.json holds."""
    folders = {v.name: [study.folder(v, s) for s in study.plan["seeds"]] for v in study.variants}
    done = {n: [f for f in some if (f / "result.json").exists()] for n, some in folders.items()}
    found = statistics({n: some for n, some in done.items() if some}, study.plan)
    found |= {"size": study.size, "hosts": study.sized["hosts"]}
    replace_file(str(study.out / "study.json"), json.dumps(found, indent=1).encode())
    if page:
        replace_file(str(page), describe(found, study.plan).encode())
    return found


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("study", __doc__)
    p.add_argument(
        "--size",
        choices=("small", "gpu"),
        default="small",
        help="rows, epochs and network of a run, in study.toml (default: small)",
    )
    p.add_argument(
        "--out", type=Path, default=Path("study-out"), help="folder to fill (default: %(default)s)"
    )
    p.add_argument("--page", type=Path, help="Markdown page to write, as docs/study.md")
    p.add_argument("--only", nargs="+", metavar="VARIANT", help="some of the variants (default: all)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    p.add_argument("--report", action="store_true", help="only write study.json and the page of what is done")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run what is missing and write the page; return the exit status."""
    a = parser().parse_args(argv)
    study = Study(a.out, a.size, tomllib.loads(PLAN.read_text()))
    known = [v.name for v in study.variants]
    if unknown := sorted(set(a.only or []) - set(known)):
        print(f"study: no variants {unknown}; there are {known}", file=sys.stderr)
        return 2
    if not a.report:
        # Seed by seed, so that a study that is cut off has compared everything with fewer seeds.
        for seed in study.plan["seeds"]:
            for variant in (v for v in study.variants if not a.only or v.name in a.only):
                result = run(study, variant, seed, a.device)
                print(f"{variant.name}, seed {seed}: AUROC {result['figures']['auroc']:.4f}", flush=True)
    write_page(study, a.page)
    print(f"-> {study.out / 'study.json'}" + (f", {a.page}" if a.page else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
