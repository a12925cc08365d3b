"""Shortcut gates: `python -m evaluation.gates --data PACK --checkpoint C --out RUN/evaluation`.

Takes the arc of every positive away and asks whether the classes can still be told: by simple classifiers
cross-validated by host, by the conditions of the observation, by the network itself. Writes `gates.json`, a section of
the report, with its pictures; each gate has figure, interval, N, threshold and verdict: pass, fail, or unresolved where
there are too few stamps to say. docs/gates.md says what each means.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from darkhaloscope.storage import join
from evaluation.command import command_line, explaining
from evaluation.committee import file_hash
from evaluation.gates.data import data_gates
from evaluation.gates.measure import measure
from evaluation.gates.network import network_gates
from evaluation.gates.pictures import write_pictures
from evaluation.gates.rows import SPLITS, read_rows
from evaluation.gates.verdict import VERDICTS, Gate, counts
from evaluation.real_lenses import read_real
from evaluation.section import Picture, Section, Table, write
from training.checkpoint import load_finder_model

NAME = "gates"
FAILED = 2  # exit status where a gate failed


def run_gates(
    data: str,
    checkpoint: str,
    out: str,
    real: str = "",
    split: str = "test",
    limit: int = 20_000,
    variants: int = 1_000,
    device: str = "cpu",
    progress: bool = True,
) -> tuple[Section, list[Gate]]:
    """Run every gate and write the section `gates.json` and its pictures.

    Args:
        data: URL of packed shards, or of stage 4c's output. Gates about the data take all its splits.
        checkpoint: path of a checkpoint of `training/train.py`.
        out: URL of the folder for the section, a run's `evaluation`.
        real: place of real lenses, as `evaluation.real_lenses.read_real` takes it, to compare the arcs' light with.
        split: the one the network is asked about.
        limit: galaxies of each class and split at most.
        variants: positives at most whose ring, blob and shuffled stamp are scored.
        device: torch device of the network.
        progress: show a bar.

    Raises:
        Explained: data, real lenses or checkpoint cannot be used.
    """
    model, _, trained = load_finder_model(checkpoint, device)
    rows = read_rows(data, trained, limit)
    found = measure(rows, model, split, variants, progress)
    lenses = read_real(real, model.preprocessing) if real else None
    gates = data_gates(rows, found, lenses and lenses.stamps) + network_gates(rows, found, model)
    pictures = write_pictures(out, gates, found)
    gates = [replace(g, pictures=_explained_by(g, pictures)) for g in gates]
    made_from = {"data": rows.content, "checkpoint": file_hash(checkpoint)}
    made_from |= {"real": lenses.content} if lenses else {}
    section = make_section(gates, list(pictures.values()), made_from, rows.how, split)
    write(out, NAME, section)
    return section, gates


def _explained_by(gate: Gate, pictures: dict[str, Picture]) -> list[str]:
    """Return the files of the pictures that explain a gate."""
    chosen = {"AUC": ["auc"], "Cohen's d": ["balance"]}.get(gate.figure, [])
    chosen += ["difference"] if gate.name.startswith("without arc") else []
    chosen += ["logits", "variants"] if gate.about == "model" and gate.figure != "Cohen's d" else []
    return [pictures[key].file for key in chosen if key in pictures]


def make_section(
    gates: Sequence[Gate],
    pictures: Sequence[Picture],
    made_from: dict[str, str],
    how: Sequence[str],
    split: str,
) -> Section:
    """Return the gates as a section of the report."""
    judged = [g for g in gates if g.verdict != "reported"]
    n = counts(judged)
    failed = [g.name for g in judged if g.verdict == "fail"]
    verdict = "fail" if failed else "" if n["unresolved"] else "pass"
    lead = (
        f"Is there anything but the arc that tells the classes? Of {len(judged)} gates {n['pass']} pass, {n['fail']} "
        f"fail and {n['unresolved']} have too few stamps to say."
        + (f" Failed: {', '.join(failed)}." if failed else "")
        + f" The network is asked about split {split}. "
        + " ".join(how)
    )
    tables = [
        _table("About the data", [g for g in judged if g.about == "data"]),
        _table("About the network", [g for g in judged if g.about == "model"]),
        _table("Beside them, no gates", [g for g in gates if g.verdict == "reported"]),
    ]
    figures: dict[str, Any] = {"counts": n, "gates": {g.name: asdict(g) for g in gates}}
    return Section("Shortcut gates", lead, made_from, verdict, tables, pictures, figures)


def _table(title: str, gates: Sequence[Gate]) -> Table:
    """Return gates as a table, what failed first."""
    columns = ("gate", "verdict", "figure", "value", "95 % low", "high", "N", "rule", "question")
    rows = [
        (
            g.name, g.verdict, g.figure, _rounded(g.value), _rounded(g.low), _rounded(g.high),
            ", ".join(f"{k} {v:,}" for k, v in g.n.items()), g.threshold, g.asks + (f" ({g.note})" if g.note else ""),
        )
        for g in sorted(gates, key=lambda g: VERDICTS.index(g.verdict))
    ]  # fmt: skip
    return Table(columns, rows, title)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("gates", __doc__)
    p.add_argument("--data", required=True, help="URL of packed shards, or of stage 4c's output")
    p.add_argument("--checkpoint", required=True, help="checkpoint of training/train.py")
    p.add_argument("--out", required=True, help="URL of the run's evaluation folder")
    p.add_argument(
        "--real",
        default="",
        metavar="PLACE",
        help="real lenses to compare arcs with: a folder of .npz, or stamps",
    )
    p.add_argument(
        "--split", default="test", choices=SPLITS, help="what the network is asked about (default test)"
    )
    p.add_argument(
        "--limit", type=int, default=20_000, help="galaxies of each class and split (default 20000)"
    )
    p.add_argument(
        "--variants", type=int, default=1_000, help="positives whose variants are scored (default 1000)"
    )
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    p.add_argument(
        "--fail-on", choices=("all", "data", "nothing"), default="all",
        help=f"exit with status {FAILED} where such a gate fails (default all)",
    )  # fmt: skip
    return p


@explaining("gates")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    section, gates = run_gates(a.data, a.checkpoint, a.out, a.real, a.split, a.limit, a.variants, a.device)
    for gate in sorted(gates, key=lambda g: VERDICTS.index(g.verdict), reverse=True):
        interval = "" if gate.low is None else f"  [{gate.low:.3f}, {gate.high:.3f}]"
        value = "-" if gate.value is None else f"{gate.value:.3f}"
        print(f"{gate.verdict:10s} {gate.name:28s} {gate.figure} {value}{interval}")
    print(f"{section.lead}\n-> {join(a.out, NAME + '.json')}")
    return exit_status(gates, a.fail_on)


def exit_status(gates: Sequence[Gate], fail_on: str) -> int:
    """Return `FAILED` where a gate failed that counts: of all, only those about the data, or of none (nothing)."""
    wanted = {"all": ("data", "model"), "data": ("data",), "nothing": ()}[fail_on]
    return FAILED if any(g.verdict == "fail" and g.about in wanted for g in gates) else 0


if __name__ == "__main__":
    sys.exit(main())
