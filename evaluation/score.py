"""Score stamps with a checkpoint: `python -m evaluation.score --checkpoint C --data PACK --out DIR`.

Writes a committed dataset of `records.SCORES`: the float32 logit, the calibrated probability where a calibration is
given, and every column of the stamp but its pixels, one file for each file read. Several checkpoints are an
ensemble: the mean of their calibrated logits, with their spread. Preprocessing is the checkpoint's; it cannot be
given, and stamps it was not made for are refused. A run that was cut off continues where it stopped; an output of
another checkpoint, data set or option is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
import torch
from tqdm import tqdm

from darkhaloscope.dataset import (
    DatasetError,
    commit_chunk,
    committed_chunks,
    committed_files,
    content_hash,
    open_part,
    write_part,
)
from darkhaloscope.records import SCORES, STAMPS
from darkhaloscope.schema import SchemaError, check_schema, to_batch
from darkhaloscope.stage import OutputRefused, StageRun
from darkhaloscope.storage import StorageError, join
from evaluation.ahead import ahead
from evaluation.calibrate import CalibrationError
from evaluation.committee import Committee, load_committee
from evaluation.scores import PROVENANCE
from training.checkpoint import CheckpointError
from training.preprocess import NormMethod, Preprocessing, PreprocessingError
from training.shards import DataError

REFUSALS = (
    CalibrationError,
    CheckpointError,
    DataError,
    DatasetError,
    FloatingPointError,
    OutputRefused,
    PreprocessingError,
    SchemaError,
    StorageError,
)
"""What `score` raises when it cannot score; each message says what to do."""

_NARROW = [name for name in SCORES.names if name in STAMPS.names]  # the stamps' columns that scores carry


def score(
    checkpoints: Sequence[str],
    data: str,
    split: str,
    out: str,
    d4: bool = False,
    batch_size: int = 512,
    device: str = "cpu",
    overwrite: bool = False,
    take_over: bool = False,
    progress: bool = True,
    expected: Mapping[str, Any] | None = None,
    calibrations: Sequence[str] = (),
) -> dict[str, Any]:
    """Score every row of a split that has a stamp.

    Args:
        checkpoints: paths of checkpoints of `training/train.py`; several are an ensemble.
        data: URL of packed shards (or of stage 4c's output).
        split: train, val, test, or all.
        out: URL of the dataset to write.
        d4: average over the eight orientations.
        batch_size: rows at a time.
        device: torch device.
        overwrite: replace an output of another config.
        take_over: seize an output whose writer died.
        progress: show a bar.
        expected: fields of the preprocessing that the caller thinks the checkpoints have; others are refused.
        calibrations: URLs of files of `evaluation.calibrate`; see `load_committee`.

    Returns:
        The record of the run, as written to `_stage_config.json`.

    Raises:
        One of `REFUSALS`.
    """
    committee = load_committee(checkpoints, calibrations, d4, device)
    for path, member in zip(checkpoints, committee.members, strict=True):
        check_expected(member.preprocessing, expected or {}, path)
    root, rows_of = _find(data, split)
    files = committed_files(root)
    provenance = committee.provenance() | {"data": content_hash(root), "split": split}
    inputs = {k: provenance[k] for k in ("checkpoint", "data", "calibration") if k in provenance}
    schema = SCORES.arrow({PROVENANCE: json.dumps(provenance, sort_keys=True)})
    with StageRun(
        out, "score", committee.members[0].experiment, (), inputs, {"split": split, "d4": d4},
        overwrite=overwrite, take_over=take_over,
    ) as run:  # fmt: skip
        run.record |= {
            "checkpoint": ", ".join(map(str, checkpoints)),
            "data": str(data),
            "device": str(device),
        }
        done = committed_chunks(out)
        for number, url in enumerate(tqdm(files, desc="score", unit="file", disable=not progress)):
            if number in done:
                continue
            job = _FileScorer(committee, rows_of, batch_size)
            part = write_part(out, number, 0, job.batches(url), schema)
            run.owner.check()
            commit_chunk(out, number, [part], {"source": Path(url).name, "without_stamp": job.without_stamp})
        chunks = committed_chunks(out).values()
        rows, lost = sum(c["rows"] for c in chunks), sum(c["without_stamp"] for c in chunks)
        return run.finish(rows_in=rows + lost, scored=rows, without_stamp=lost)


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


class _FileScorer:
    """Scores one file, counting the rows that have no stamp; reading, the networks and writing go on side by side."""

    def __init__(self, committee: Committee, split: str, batch_size: int) -> None:
        self.committee, self.split, self.batch_size = committee, split, batch_size
        self.without_stamp = 0

    def batches(self, url: str) -> Iterator[pa.RecordBatch]:
        """Yield SCORES batches of one file."""
        return ahead(self._scored(ahead(self._rows(url)), url))

    def _rows(self, url: str) -> Iterator[pa.Table]:
        """Yield the rows that have a stamp."""
        with open_part(url) as part:
            check_schema(STAMPS, part.schema_arrow, url, [*_NARROW, "stamp"])
            for rows in part.iter_batches(self.batch_size, columns=[*_NARROW, "stamp"]):
                table = pa.Table.from_batches([rows.replace_schema_metadata(part.schema_arrow.metadata)])
                if self.split:
                    table = table.filter(pc.equal(table.column("region_split"), self.split))
                kept = table.filter(pc.equal(table.column("cutout_ok"), 1))
                self.without_stamp += table.num_rows - kept.num_rows
                if kept.num_rows:
                    yield kept

    def _scored(self, tables: Iterator[pa.Table], url: str) -> Iterator[pa.RecordBatch]:
        for table in tables:
            made = self.committee.score(table, url)
            yield to_batch(SCORES, {**{n: table.column(n) for n in _NARROW}, **made})


def _find(data: str, split: str) -> tuple[str, str]:
    """Return the dataset that holds `split`, and the region_split to keep of it ("": all of it)."""
    packed = join(data, f"split={split}")
    return (packed, "") if committed_chunks(packed) else (data, "" if split == "all" else split)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser("python -m evaluation.score", description=__doc__.split("\n\n")[0])
    p.add_argument(
        "--checkpoint", required=True, nargs="+", metavar="FILE",
        help="checkpoint of training/train.py; several are an ensemble: the mean of their calibrated logits",
    )  # fmt: skip
    p.add_argument(
        "--calibration", nargs="+", default=[], metavar="FILE",
        help="files of evaluation.calibrate, in any order: fill the column probability; an ensemble needs each",
    )  # fmt: skip
    p.add_argument("--data", required=True, help="URL of packed shards (split=... below it)")
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


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    try:
        record = score(
            a.checkpoint,
            a.data,
            a.split,
            a.out,
            a.d4,
            a.batch_size,
            a.device,
            a.overwrite,
            a.take_over,
            expected={"norm_method": a.norm_method} if a.norm_method else {},
            calibrations=a.calibration,
        )
    except REFUSALS as error:
        print(f"score: {error}", file=sys.stderr)
        return 1
    counts = record["counts"]
    print(f"scored {counts['scored']:,} stamps, {counts['without_stamp']:,} rows had none -> {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
