"""Mine hard negatives: `python -m evaluation.mine --scores A B --known-lenses lenses.csv --out DIR`.

Takes the highest-scoring negatives of each model, leaves out all within 10" of a known lens (a lens among the
negatives would teach the opposite), and writes each galaxy once, with the models that chose it and the logits they
gave. `--hard_neg_path DIR --hard_neg_weight 5` of the trainer shows them more often.

One round helps and a second one hurts, so scores of a model that was itself trained with mined negatives are refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from darkhaloscope import sky
from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, write_part
from darkhaloscope.results import HARD_NEGATIVES
from darkhaloscope.schema import to_batch
from evaluation.command import command_line, explaining
from evaluation.scores import Scores, ScoresError, read_scores

"""What `mine` raises when it cannot mine; each message says what to do."""

COLUMNS = ("label", "sample", "ra", "dec", "brickname", "region_split")
GUARD_ARCSEC = 10.0  # kept from known lenses
SAME_ARCSEC = 1.0  # one galaxy: two models, replicates, or overlapping bricks
_RA, _DEC = ("ra", "RA", "ra_deg", "RAdeg"), ("dec", "DEC", "dec_deg", "DEdeg", "decl")


@dataclass(frozen=True)
class Candidates:
    """Negatives that one model scored highest.

    Attributes:
        model: name of the model.
        columns: of the scores, (n,) each, best first.
        guarded: negatives left out because they are near a known lens.
    """

    model: str
    columns: dict[str, np.ndarray]
    guarded: int


def mine(
    scores: Sequence[str],
    known_lenses: Sequence[str],
    out: str,
    top: int = 20_000,
    min_probability: float = 0.0,
    guard_arcsec: float = GUARD_ARCSEC,
    force: bool = False,
) -> dict[str, Any]:
    """Mine hard negatives from score tables.

    Args:
        scores: URLs of datasets of `evaluation.score`, one a model.
        known_lenses: CSV or Parquet files with positions in degrees (ra and dec).
        out: URL of the dataset of `results.HARD_NEGATIVES` to write.
        top: negatives of each model, at most.
        min_probability: leave out negatives that a model gave less.
        guard_arcsec: distance from a known lens within which no negative is taken.
        force: mine a second round all the same.

    Returns:
        Counts, as written to the manifest of the one chunk.

    Raises:
        Explained: the scores or the list of lenses cannot be used, or `out` holds another list.
    """
    if committed_chunks(out):
        raise DatasetError(f"{out} holds a committed table already; give another --out")
    tables = [read_scores(root, COLUMNS) for root in scores]
    if not force:
        for root, table in zip(scores, tables, strict=True):
            refuse_second_round(root, table.provenance)
    lenses = np.concatenate([read_positions(path) for path in known_lenses])
    names = _model_names(tables)
    chosen = [
        candidates(t, name, lenses, top, min_probability, guard_arcsec)
        for t, name in zip(tables, names, strict=True)
    ]
    merged = merge(chosen)
    if not len(merged["ra_key"]):
        raise ScoresError(
            f"{', '.join(scores)}: no negative is left: {[len(c.columns['ra']) for c in chosen]} chosen; lower "
            "--min-probability, or score the training split, which has negatives"
        )
    models = [t.provenance | {"name": n, "scores_hash": t.hash} for t, n in zip(tables, names, strict=True)]
    facts = {
        "models": models, "known_lenses": len(lenses), "guard_arcsec": guard_arcsec,
        "candidates": [len(c.columns["ra"]) for c in chosen], "guarded": [c.guarded for c in chosen],
        "galaxies": len(merged["ra_key"]),
    }  # fmt: skip
    part = write_part(out, 0, 0, [to_batch(HARD_NEGATIVES, merged)], HARD_NEGATIVES.arrow())
    commit_chunk(out, 0, [part], facts)
    return facts


def refuse_second_round(root: str, provenance: dict[str, Any]) -> None:
    """Refuse scores of a model that was trained with mined negatives, or that do not say.

    Raises:
        ScoresError: says so, and how to go on all the same.
    """
    mined = provenance.get("mined_negatives")
    if mined == 0:
        return
    what = (
        "do not say whether the model was trained with mined negatives: score again with this version"
        if mined is None
        else f"are of a model that was trained with {mined:,} mined negatives; a second round of mining hurts: "
        "mine from the models before it"
    )
    raise ScoresError(f"{root}: these scores {what}, or give --force")


def _model_names(tables: Sequence[Scores]) -> list[str]:
    """Name models by experiment, with the checkpoint's hash where two would be alike."""
    names = [
        str(t.record.get("experiment", {}).get("name", t.provenance.get("arch", "model"))) for t in tables
    ]
    hashes = [str(t.provenance.get("checkpoint", "")) for t in tables]
    return [f"{n}-{h[:8]}" if names.count(n) > 1 else n for n, h in zip(names, hashes, strict=True)]


def candidates(
    scores: Scores, model: str, lenses: np.ndarray, top: int, min_probability: float, guard_arcsec: float
) -> Candidates:
    """Return the negatives that a model scored highest.

    Args:
        scores: of the model.
        model: its name.
        lenses: (m, 2) ra, dec of known lenses, deg.
        top: how many at most; each galaxy counts once.
        min_probability: the least that the model gave them.
        guard_arcsec: none nearer to a known lens than this, nor to a real lens among the scores.
    """
    c = scores.columns
    probability = 1 / (1 + np.exp(-c["logit"].astype(np.float64)))
    rows = np.flatnonzero((c["label"] == 0) & (probability >= min_probability))
    real = c["sample"] == "real_positive"
    lenses = np.concatenate([lenses, np.stack([c["ra"][real], c["dec"][real]], axis=1)])
    guarded = sky.nearest(c["ra"][rows], c["dec"][rows], lenses[:, 0], lenses[:, 1])[1] < guard_arcsec
    best = rows[~guarded][np.argsort(-c["logit"][rows[~guarded]], kind="stable")]
    galaxy = sky.groups(c["ra"][best], c["dec"][best], SAME_ARCSEC)
    once = best[np.sort(np.unique(galaxy, return_index=True)[1])][:top]
    return Candidates(model, {k: v[once] for k, v in c.items()}, int(guarded.sum()))


def merge(chosen: Sequence[Candidates]) -> dict[str, Any]:
    """Return the columns of `results.HARD_NEGATIVES`: each galaxy once, those of the best rank first."""
    columns = {k: np.concatenate([c.columns[k] for c in chosen]) for k in chosen[0].columns}
    model = np.concatenate([np.full(len(c.columns["ra"]), i) for i, c in enumerate(chosen)])
    rank = np.concatenate([np.arange(len(c.columns["ra"])) for c in chosen])
    galaxy = sky.groups(columns["ra"], columns["dec"], SAME_ARCSEC)
    order = np.lexsort((model, rank, galaxy))
    starts = np.flatnonzero(np.diff(galaxy[order], prepend=-1))
    members = np.split(order, starts[1:]) if len(order) else []
    members.sort(key=lambda m: (rank[m[0]], model[m[0]]))
    first = np.array([m[0] for m in members], np.int64)
    best = {k: v[first] for k, v in columns.items()}
    return {
        "ra_key": np.round(best["ra"], 6),
        "dec_key": np.round(best["dec"], 6),
        **{
            k: best[k]
            for k in ("task_id", "host_id", "ra", "dec", "brickname", "region_split", "sample", "logit")
        },
        "rank": rank[first],
        "source_models": [[chosen[model[i]].model for i in m] for m in members],
        "source_logits": [[float(columns["logit"][i]) for i in m] for m in members],
    }


def read_positions(path: str) -> np.ndarray:
    """Return (n, 2) ra, dec in degrees of a CSV or Parquet file.

    Raises:
        ScoresError: no such file, no columns of positions, or values out of range (hours, text, NaN).
    """
    try:
        table = pq.read_table(path) if path.endswith((".parquet", ".pq")) else pa.csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise ScoresError(f"{path}: not a readable CSV or Parquet file of known lenses: {error}") from error
    found = [next((n for n in names if n in table.column_names), None) for names in (_RA, _DEC)]
    if None in found:
        raise ScoresError(f"{path}: columns {table.column_names}; expected ra and dec, in degrees")
    try:
        ra, dec = (pc.cast(table.column(n), pa.float64()).to_numpy() for n in found)
    except pa.ArrowException as error:
        raise ScoresError(
            f"{path}: columns {found} are not numbers: {error}; degrees are expected"
        ) from error
    if not (
        np.isfinite(ra).all() and np.isfinite(dec).all() and (np.abs(dec) <= 90).all() and (ra <= 360).all()
    ):
        raise ScoresError(f"{path}: columns {found} hold NaN or values out of range; degrees are expected")
    return np.stack([ra, dec], axis=1)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("mine", __doc__)
    p.add_argument("--scores", nargs="+", required=True, help="score datasets, one a model")
    p.add_argument(
        "--known-lenses",
        nargs="+",
        required=True,
        metavar="FILE",
        help="CSV or Parquet with ra and dec in degrees",
    )
    p.add_argument("--out", required=True, help="URL of the dataset to write")
    p.add_argument("--top", type=int, default=20_000, help="galaxies of each model at most (default 20000)")
    p.add_argument("--min-probability", type=float, default=0.0, help="least score, 0 to 1 (the seed's: 0.9)")
    p.add_argument(
        "--guard-arcsec",
        type=float,
        default=GUARD_ARCSEC,
        help="distance kept from known lenses (default 10)",
    )
    p.add_argument("--force", action="store_true", help="mine a second round all the same")
    return p


@explaining("mine")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    facts = mine(
        a.scores, a.known_lenses, a.out, a.top, a.min_probability, a.guard_arcsec, a.force
    )  # fmt: skip
    print(
        f"{facts['galaxies']:,} hard negatives of {facts['candidates']} candidates; {facts['guarded']} lay within "
        f"{a.guard_arcsec:g} arcsec of one of {facts['known_lenses']:,} known lenses -> {a.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
