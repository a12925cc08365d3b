r"""Score stamps with a checkpoint: shards, stage 4c's output, or stamps cut at a list of positions.

    python -m evaluation.score --checkpoint best.pt --data PACK --out scores/test
    python -m evaluation.score --checkpoint best.pt --positions list.csv --coadds CACHE \
        --bricks survey-bricks-dr10-south.fits.gz --object-type random --out scores/list
    python -m evaluation.score --checkpoint a.pt b.pt --calibration a.json b.json --data PACK --d4 --out scores/both

Writes a committed dataset of `results.SCORES`: the float32 logit, the calibrated probability where a calibration is
given, and every column of the stamp but its pixels, one file for each file (or thousand positions) read. Several
checkpoints are an ensemble: the mean of their calibrated logits, with their spread. Preprocessing is the checkpoint's;
it cannot be given, and stamps it was not made for are refused. A run that was cut off continues where it stopped; an
output of another checkpoint, data set or option is refused. docs/evaluate.md says what comes next.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import pyarrow as pa
import torch
from tqdm import tqdm

from darkhaloscope.dataset import commit_chunk, committed_chunks, write_part
from darkhaloscope.results import SCORES
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun
from darkhaloscope.storage import join
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import Positions, read_positions
from darkhaloscope.writing import replace_file
from evaluation.ahead import ahead
from evaluation.command import command_line, explaining
from evaluation.committee import Committee, load_committee
from evaluation.scores import PROVENANCE
from evaluation.sources import NARROW, Source, StampsAtPositions, stamp_files, stamps_at_positions
from training.preprocess import NormMethod, Preprocessing, PreprocessingError


def score(
    committee: Committee,
    source: Source,
    split: str,
    out: str,
    batch_size: int = 512,
    overwrite: bool = False,
    take_over: bool = False,
    progress: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Score every row of a source that has a stamp.

    Args:
        committee: the networks, of `load_committee`.
        source: the stamps, of `stamp_files` or `stamps_at_positions`.
        split: which part of the data they are; it is recorded.
        out: URL of the dataset to write.
        batch_size: rows at a time.
        overwrite: replace an output of another config.
        take_over: seize an output whose writer died.
        progress: show a bar.
        facts: more that the record is to say, such as where checkpoint and data were.

    Returns:
        The record of the run, as written to `_stage_config.json`.

    Raises:
        Explained: stamps, networks or `out` cannot be used.
    """
    provenance = committee.provenance() | {"data": source.hash, "split": split}
    inputs = {k: provenance[k] for k in ("checkpoint", "data", "calibration") if k in provenance}
    schema = SCORES.arrow({PROVENANCE: json.dumps(provenance, sort_keys=True)})
    with StageRun(
        out, "score", committee.members[0].experiment, (), inputs, {"split": split, "d4": committee.d4},
        overwrite=overwrite, take_over=take_over,
    ) as run:  # fmt: skip
        run.record |= facts or {}
        done = committed_chunks(out)
        todo = [number for number in range(len(source)) if number not in done]
        told: dict[int, dict[str, Any]] = {number: {} for number in todo}
        rows = scored(committee, source, batch_size, told)
        for number in tqdm(todo, desc="score", unit="piece", disable=not progress):
            of_piece = itertools.takewhile(lambda batch: batch is not None, rows)
            part = write_part(out, number, 0, of_piece, schema)
            run.owner.check()
            commit_chunk(out, number, [part], told[number])
        return run.finish(**_counts(list(committed_chunks(out).values())))


def _counts(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of all rows: scored, or without a stamp and why."""
    rows, lost = sum(c["rows"] for c in chunks), sum(c["without_stamp"] for c in chunks)
    reasons = sum((Counter(c.get("reasons", {})) for c in chunks), Counter[str]())
    counts = {"rows_in": rows + lost, "scored": rows, "without_stamp": lost}
    return counts | ({"reasons": dict(reasons)} if reasons else {})


def check_expected(preprocessing: Preprocessing, expected: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint of another preprocessing than the caller counts on.

    Raises:
        PreprocessingError: names each field, what it is and what was expected.
    """
    found = {name: getattr(preprocessing, name) for name in expected}
    if wrong := [f"{k} is {found[k]!r}, not {v!r}" for k, v in expected.items() if found[k] != v]:
        raise PreprocessingError(
            f"{where}: {'; '.join(wrong)}; a checkpoint is scored with the preprocessing it was trained with: "
            "leave the flag out, or give another checkpoint"
        )


def scored(
    committee: Committee, source: Source, batch_size: int, told: Mapping[int, dict[str, Any]]
) -> Iterator[pa.RecordBatch | None]:
    """Yield the SCORES rows of the pieces that `told` names, in its order, and None at the end of each piece.

    Reading, networks and writing go on side by side, from one piece into the next: the networks wait for no file. At
    its end a piece's facts are in `told`.
    """

    def tables() -> Iterator[tuple[int, pa.Table | None]]:
        for number, facts in told.items():
            for table in source.tables(number, batch_size, facts):
                yield number, table
            yield number, None

    def rows() -> Iterator[pa.RecordBatch | None]:
        for number, table in ahead(tables()):
            yield None if table is None else _with_logits(committee, table, source.name(number))

    return ahead(rows())


def _with_logits(committee: Committee, table: pa.Table, where: str) -> pa.RecordBatch:
    return to_batch(SCORES, {n: table.column(n) for n in NARROW} | committee.score(table, where))


def _positions(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--coadds", help="URL with coadd/ below it, such as a cache of stage 4b")
    group.add_argument("--bricks", help="the release's survey-bricks table")
    group.add_argument("--cache", default="", help="folder or S3 URL to keep copies of bricks in")
    group.add_argument(
        "--object-type", default="", help="what all of them are, as lens or random, if no column says"
    )
    group.add_argument("--units", default="", choices=("deg",), help="RAs of 0 to 24 are degrees")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("score", __doc__)
    p.add_argument(
        "--checkpoint", required=True, nargs="+", metavar="FILE",
        help="checkpoint of training/train.py; several are an ensemble: the mean of their calibrated logits",
    )  # fmt: skip
    p.add_argument(
        "--calibration", nargs="+", default=[], metavar="FILE",
        help="files of evaluation.calibrate, in any order: fill the column probability; an ensemble needs each",
    )  # fmt: skip
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="URL of packed shards (split=... below it), or of stage 4c's output")
    what.add_argument(
        "--positions", metavar="FILE", help="table of positions, deg: CSV, FITS, VOTable or Parquet"
    )
    _positions(p.add_argument_group("with --positions"))
    p.add_argument(
        "--split",
        default="test",
        choices=("train", "val", "test", "all"),
        help="default test; all: whatever its split, of stamps that are not packed",
    )
    p.add_argument("--out", required=True, help="URL of the scores dataset to write")
    p.add_argument("--d4", action="store_true", help="average over the eight orientations (8 times the work)")
    p.add_argument(
        "--norm_method", choices=get_args(NormMethod),
        help="refuse a checkpoint of another normalisation; it cannot be changed",
    )  # fmt: skip
    p.add_argument("--batch-size", type=int, default=512, help="rows at a time (default 512)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    p.add_argument("--overwrite", action="store_true", help="replace an output of another config")
    p.add_argument("--take-over", action="store_true", help="seize an output whose writer is dead")
    return p


def source_of(a: argparse.Namespace, committee: Committee) -> Source:
    """Return the stamps that the command line asks for.

    Raises:
        CatalogueError, DatasetError, FileNotFoundError: the table or the data cannot be read.
    """
    if a.data:
        return stamp_files(a.data, a.split)
    if not (a.coadds and a.bricks):
        raise CatalogueError(f"{a.positions}: give --coadds and --bricks too: stamps are cut from the coadds")
    positions = read_positions(a.positions, a.units, a.object_type)
    experiment = committee.members[0].experiment
    return stamps_at_positions(positions, read_brick_table(a.bricks), a.coadds, experiment, a.cache)


def write_refused(out: str, positions: Positions) -> str:
    """Write `refused.csv`, the positions without a stamp and why; return its URL."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["row", "ra", "dec", "object_name", "reason"])
    refused = [r for chunk in committed_chunks(out).values() for r in chunk["refused"]]
    for r in sorted(refused, key=lambda r: r["row"]):
        rows.writerow(
            [r["row"], *(positions.columns[k][r["row"]] for k in ("ra", "dec", "object_name")), r["reason"]]
        )
    url = join(out, "refused.csv")
    replace_file(url, text.getvalue().encode())
    return url


@explaining("score")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    split = "all" if a.positions else a.split
    facts = {"checkpoint": ", ".join(a.checkpoint), "data": a.data or a.positions, "device": a.device}
    committee = load_committee(a.checkpoint, a.calibration, a.d4, a.device)
    if a.norm_method:
        for path, member in zip(a.checkpoint, committee.members, strict=True):
            check_expected(member.preprocessing, {"norm_method": a.norm_method}, path)
    source = source_of(a, committee)
    record = score(
        committee, source, split, a.out, a.batch_size, a.overwrite, a.take_over, facts=facts
    )  # fmt: skip
    if isinstance(source, StampsAtPositions):
        print(f"refused positions, each with its reason -> {write_refused(a.out, source.positions)}")
    counts = record["counts"]
    print(f"scored {counts['scored']:,} stamps, {counts['without_stamp']:,} rows had none -> {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
