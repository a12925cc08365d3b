"""Compare two models on the same lenses.

    python -m evaluation.compare scores/old scores/new --names old new --out RUN/evaluation

Both are scores datasets of one test split. Each model works at its own threshold of an FPR, on the same controls;
McNemar's exact test asks whether the lenses that only one of them finds are divided by chance. Writes a section for
the report, compare.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from darkhaloscope.stats.intervals import matched_difference, wilson
from evaluation.calibrate import model_of
from evaluation.command import command_line, explaining
from evaluation.scores import Scores, ScoresError, read_scores, without_repeats
from evaluation.section import Section, Table, write
from training.operating_points import FPR_TARGETS, MIN_EVENTS, fpr_name
from training.roc import roc_curve

SECTION = "compare"


@dataclass(frozen=True)
class Comparison:
    """Two models at one FPR, on the same lenses.

    Attributes:
        fpr: false-positive rate that each keeps on the controls, at a threshold of its own.
        tpr_a: share of lenses that A finds.
        tpr_b: share of lenses that B finds.
        only_a: lenses that only A finds.
        only_b: lenses that only B finds.
        n_positives: lenses.
        n_negatives: controls.
        low: lower 95 % bound of tpr_a - tpr_b, thresholds given.
        high: upper 95 % bound of it.
        p_value: of McNemar's exact test (1947, Psychometrika 12, 153): two-sided binomial of only_a in
            only_a + only_b with a half; 1 where no lens divides them.
        resolved: False where fewer than `MIN_EVENTS` controls carry the thresholds, which the test takes as given.
    """

    fpr: float
    tpr_a: float
    tpr_b: float
    only_a: int
    only_b: int
    n_positives: int
    n_negatives: int
    low: float
    high: float
    p_value: float
    resolved: bool


def compare(logit_a: np.ndarray, logit_b: np.ndarray, label: np.ndarray, fpr: float) -> Comparison:
    """Compare two models' logits of the same rows, each (n,), at one FPR; label (n,) 0 or 1.

    Raises:
        MetricsError: see `training.roc.check_scores`.
    """
    label = np.asarray(label).astype(bool)
    found = []
    for logit in (logit_a, logit_b):
        roc = roc_curve(logit, label)
        found.append(np.asarray(logit)[label] >= roc.threshold[roc.at_fpr(fpr)])
    a, b = found
    only_a, only_b, m, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a), int((~label).sum())
    low, high = matched_difference(only_a, only_b, m)
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Comparison(
        fpr, float(a.mean()), float(b.mean()), only_a, only_b, m, n, low, high, float(p),
        fpr * n >= MIN_EVENTS - 1e-9,
    )  # fmt: skip


def matched(a: Scores, b: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return (logits of A, logits of B, label, rows that only one has) of the rows that both scored.

    Raises:
        ScoresError: no row in common, a row with two labels, or both are of one model.
    """
    if a.provenance and model_of(a.provenance) == model_of(b.provenance):
        raise ScoresError(f"both are scores of model {model_of(a.provenance)}; give two models' scores")
    a, b = without_repeats(a), without_repeats(b)
    common, i, j = np.intersect1d(a.columns["task_id"], b.columns["task_id"], return_indices=True)
    if not len(common):
        raise ScoresError(
            f"no task_id in common ({len(a.logit):,} and {len(b.logit):,} rows): score both models on the same data"
        )
    if (wrong := a.label[i] != b.label[j]).any():
        raise ScoresError(
            f"{wrong.sum()} rows have two labels, such as task_id {common[wrong][0]}; score both anew"
        )
    return a.logit[i], b.logit[j], a.label[i], len(a.logit) + len(b.logit) - 2 * len(common)


def section_of(names: tuple[str, str], a: Scores, b: Scores) -> Section:
    """Return the comparison as a section of the report.

    Raises:
        ScoresError, MetricsError: see `matched` and `compare`.
    """
    logit_a, logit_b, label, alone = matched(a, b)
    made = [compare(logit_a, logit_b, label, fpr) for fpr in FPR_TARGETS]
    first = made[0]
    lead = (
        f"On the same {first.n_positives:,} lenses and {first.n_negatives:,} control galaxies, at "
        f"{fpr_name(first.fpr)}: {names[0]} finds {first.only_a:,} lenses that {names[1]} misses, and misses "
        f"{first.only_b:,} that it finds; by chance a division as uneven has p = {first.p_value:.2g}."
    )
    columns = ["at", f"TPR {names[0]}", "95 %", f"TPR {names[1]}", "95 %", "difference", "95 %", f"only {names[0]}",
               f"only {names[1]}", "p", ""]  # fmt: skip
    note = (
        f"Ranges and p take the thresholds as given; unresolved: fewer than {MIN_EVENTS} controls carry them."
    )
    if alone:
        note += f" {alone:,} rows that only one model scored are left out."
    return Section(
        f"{names[0]} against {names[1]}", lead,
        {f"scores of {n}": s.hash for n, s in zip(names, (a, b), strict=True)},
        tables=[Table(columns, [_row(c) for c in made], "McNemar's exact test", note)],
        figures={fpr_name(c.fpr): asdict(c) | _bounds(c) for c in made} | {"rows_left_out": alone},
    )  # fmt: skip


def _bounds(c: Comparison) -> dict[str, list[float]]:
    """Return Wilson's 95 % bounds of each model's TPR, the threshold given."""
    return {
        f"{name}_95": [float(bound) for bound in wilson(tpr * c.n_positives, c.n_positives)]
        for name, tpr in (("tpr_a", c.tpr_a), ("tpr_b", c.tpr_b))
    }


def _row(c: Comparison) -> list[Any]:
    spans = ["{:.4f} to {:.4f}".format(*bounds) for bounds in _bounds(c).values()]
    return [
        fpr_name(c.fpr), c.tpr_a, spans[0], c.tpr_b, spans[1], c.tpr_a - c.tpr_b, f"{c.low:+.4f} to {c.high:+.4f}",
        c.only_a, c.only_b, c.p_value, "" if c.resolved else "unresolved",
    ]  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("compare", __doc__)
    p.add_argument("a", help="URL of the first model's scores")
    p.add_argument("b", help="URL of the second model's scores, of the same stamps")
    p.add_argument(
        "--names", nargs=2, default=("A", "B"), metavar=("A", "B"), help="what to call them (default A B)"
    )
    p.add_argument("--out", required=True, help=f"URL of the folder for {SECTION}.json, as RUN/evaluation")
    return p


@explaining("compare")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    names = (arguments.names[0], arguments.names[1])
    section = section_of(names, read_scores(arguments.a), read_scores(arguments.b))
    url = write(arguments.out, SECTION, section)
    print(section.lead)
    print(f"-> {url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
