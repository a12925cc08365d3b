"""Realism probe: `python -m evaluation.probe --data PACK --checkpoint C --real PLACE --out RUN/evaluation`.

Can real lenses be told from injections in the features a network works with? A linear probe (ridge) is fitted to the
network's penultimate features, real lenses against injections on hosts of like brightness, colour and depth,
cross-validated by group: a real lens and the injection matched to it are never on different sides. Its null is the same
probe on the real lenses alone, divided at random. AUC near the null: to the network injections look real; near 1: what
it learns of injections need not hold for lenses. Writes `probe.json`, a section of the report.

PLACE: a folder of .npz files with `cutout` (y, x, band g r z) in nmgy/pixel at 0.262 arcsec, or a committed dataset of
stamps with rows of the sample real_positive.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from darkhaloscope.report.charts import BLUE, ORANGE, draw
from darkhaloscope.storage import join
from evaluation.command import command_line, explaining
from evaluation.committee import file_hash
from evaluation.gates.classifiers import FOLDS, Told, told_by_line
from evaluation.gates.pictures import save
from evaluation.gates.rows import SPLITS
from evaluation.section import Picture, Section, Table, write
from evaluation.seen import HOST, Seen, see_injections, see_real
from training.checkpoint import load_finder_model
from training.selection import DataError

NAME = "probe"
MIN_REAL = 50  # real lenses below which nothing is said
COMPONENTS = 16  # principal components of the features, at most


def matched(real: np.ndarray, injected: np.ndarray) -> np.ndarray:
    """Return for each real lens the injection whose host is most like its own, none twice, (real,) indices.

    Args:
        real, injected: (n, 4) of `Seen.host`; distances are in standard deviations of the injections.

    Raises:
        DataError: fewer injections than real lenses.
    """
    if len(injected) < len(real):
        raise DataError(
            f"{len(injected)} injections for {len(real)} real lenses; give a larger data set or --limit"
        )
    scale = np.maximum(injected.std(axis=0), 1e-6)
    free, chosen = np.ones(len(injected), bool), np.empty(len(real), int)
    for i, host in enumerate(real):
        distance = np.square((injected - host) / scale).sum(axis=1)
        chosen[i] = np.argmin(np.where(free, distance, np.inf))
        free[chosen[i]] = False
    return chosen


def probe(real: Seen, injected: Seen) -> tuple[Told, Told]:
    """Return how well matched rows are told by class, and the null: real lenses divided at random.

    Args:
        real, injected: row i of one is matched to row i of the other, `FOLDS` rows at least.
    """
    n = len(real.feature)
    both = np.concatenate([real.feature, injected.feature])
    parts = PCA(min(COMPONENTS, n // 2, both.shape[1]), whiten=True, random_state=0)
    x = make_pipeline(StandardScaler(), parts).fit_transform(both)
    pairs, one_split = np.tile(np.arange(n), 2), np.zeros(2 * n, int)
    halves = np.arange(n) % 2 == 0
    return (
        told_by_line(x, np.arange(2 * n) < n, pairs, one_split),
        told_by_line(x[:n], halves, np.arange(n), np.zeros(n, int)),
    )


def run_probe(
    data: str, checkpoint: str, real: str, out: str, split: str = "test", limit: int = 20_000, device: str = "cpu"
) -> Section:  # fmt: skip
    """Run the probe and write its section; see the module's docstring.

    Raises:
        Explained: data, real lenses or checkpoint cannot be used.
    """
    model, _, trained = load_finder_model(checkpoint, device)
    lenses = see_real(real, model)
    injections = see_injections(data, model, trained, split, limit)
    chosen = matched(lenses.host, injections.host)
    made_from = {"checkpoint": file_hash(checkpoint), "data": injections.content, "real": lenses.content}
    injections = Seen(injections.feature[chosen], injections.host[chosen])
    n = len(chosen)
    told, null = probe(lenses, injections) if n >= 2 * FOLDS else (None, None)
    figures: dict[str, Any] = {
        "n_real": n, "auc": told and told.auc, "error": told and told.error,
        "null": null and null.null, "null_error": null and null.error,
        "verdict": "reported" if n >= MIN_REAL else "unresolved",
    }  # fmt: skip
    hosts = Table(
        ("quantity", "median of real lenses", "median of matched injections"),
        [(name, *(round(float(np.median(s.host[:, i])), 3) for s in (lenses, injections)))
         for i, name in enumerate(HOST)],
        "Are the hosts alike?", 'Magnitudes within 1.6" of the middle, arc included.',
    )  # fmt: skip
    picture = Picture("Along the probe", save(out, "probe.png", _paint(lenses, injections, told)),
                      "Held-out scores of the probe; with too few lenses, magnitude and colour.")  # fmt: skip
    section = Section("Realism probe", _said(figures), made_from, "", [hosts], [picture], figures)
    write(out, NAME, section)
    return section


def _said(figures: dict[str, Any]) -> str:
    n = figures["n_real"]
    asked = (
        f"Can {n} real lenses be told from injections on matched hosts, linearly, in the network's features? "
    )
    if figures["verdict"] == "unresolved":
        asked += f"Unresolved: that takes {MIN_REAL} real lenses at least. "
    if figures["auc"] is None:
        return asked + "No probe was fitted."
    return asked + (
        f"AUC {figures['auc']:.3f} (± {figures['error']:.3f} where there is nothing to tell); real lenses divided at "
        f"random: {figures['null']:.3f} ± {figures['null_error']:.3f}."
    )


def _paint(real: Seen, injected: Seen, told: Told | None) -> str:
    groups = (("real lenses", real, BLUE), ("injections", injected, ORANGE))

    def paint(axis: Axes) -> None:
        for i, (name, group, colour) in enumerate(groups):
            label, n = f"{name}, N = {len(group.host)}", len(group.host)
            if told is None:
                axis.plot(group.host[:, 0], group.host[:, 1], "o", ms=4, color=colour, label=label)
            else:
                axis.hist(told.score[i * n : (i + 1) * n], 20, histtype="step", color=colour, label=label)
        axis.set(
            **{"xlabel": HOST[0], "ylabel": HOST[1]} if told is None else {"xlabel": "score of the probe"}
        )
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return draw(paint)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("probe", __doc__)
    p.add_argument("--data", required=True, help="URL of packed shards with injections")
    p.add_argument("--checkpoint", required=True, help="checkpoint of training/train.py")
    p.add_argument("--real", required=True, metavar="PLACE", help="real lenses: a folder of .npz, or stamps")
    p.add_argument("--out", required=True, help="URL of the run's evaluation folder")
    p.add_argument("--split", default="test", choices=SPLITS, help="of the injections (default test)")
    p.add_argument("--limit", type=int, default=20_000, help="injections to match from (default 20000)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    return p


@explaining("probe")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    section = run_probe(a.data, a.checkpoint, a.real, a.out, a.split, a.limit, a.device)
    print(f"{section.lead}\n-> {join(a.out, NAME + '.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
