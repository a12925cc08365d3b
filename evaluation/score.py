"""Score stamps with a checkpoint: `python -m evaluation.score --checkpoint C --data PACK --out DIR`.

Writes a committed dataset of `records.SCORES`: the float32 logit and every column of the stamp but its
pixels, one file for each file read. Preprocessing is the checkpoint's; it cannot be given, and stamps it was
not made for are refused. A run that was cut off continues where it stopped; an output of another checkpoint,
data set or option is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
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
from evaluation.scores import PROVENANCE
from training.checkpoint import CheckpointError, load, load_finder_model
from training.data import Batch, make_batch
from training.models import Finder
from training.predict import predict
from training.preprocess import NormMethod, Preprocessing, PreprocessingError
from training.shards import DataError

REFUSALS = (
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


def d4_views(stamps: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the eight rotations and mirror images of square stamps (n, band, y, x)."""
    for mirrored in (stamps, stamps.flip(-1)):
        for quarter_turns in range(4):
            yield torch.rot90(mirrored, quarter_turns, (-2, -1))


def averaged_logits(model: Finder, batch: Batch) -> np.ndarray:
    """Return the mean logit of the eight orientations, (n,) float32: the sky has no preferred one.

    Arguments and errors as `training.predict.predict`.
    """
    views = [predict(model, batch._replace(stamps=view.contiguous())) for view in d4_views(batch.stamps)]
    return np.asarray(np.mean(views, axis=0, dtype=np.float64), np.float32)


def score(
    checkpoint: str,
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
) -> dict[str, Any]:
    """Score every row of a split that has a stamp.

    Args:
        checkpoint: path of a checkpoint of `training/train.py`.
        data: URL of packed shards (or of stage 4c's output).
        split: train, val or test.
        out: URL of the dataset to write.
        d4: average over the eight orientations.
        batch_size: rows at a time.
        device: torch device.
        overwrite: replace an output of another config.
        take_over: seize an output whose writer died.
        progress: show a bar.
        expected: fields of the preprocessing that the caller thinks the checkpoint has; others are refused.

    Returns:
        The record of the run, as written to `_stage_config.json`.

    Raises:
        One of `REFUSALS`.
    """
    model, preprocessing, experiment = load_finder_model(checkpoint, device)
    check_expected(preprocessing, expected or {}, checkpoint)
    root, rows_of = _find(data, split)
    files = committed_files(root)
    inputs = {"checkpoint": file_hash(checkpoint), "data": content_hash(root)}
    options = {"split": split, "d4": d4}
    provenance = {
        **inputs, **options, "arch": model.arch, "experiment_id": experiment.experiment_id,
        "mined_negatives": mined_negatives(load(checkpoint)),
    }  # fmt: skip
    schema = SCORES.arrow({PROVENANCE: json.dumps(provenance, sort_keys=True)})
    with StageRun(
        out, "score", experiment, (), inputs, options, overwrite=overwrite, take_over=take_over
    ) as run:
        run.record |= {"checkpoint": str(checkpoint), "data": str(data), "device": str(device)}
        done = committed_chunks(out)
        for number, url in enumerate(tqdm(files, desc="score", unit="file", disable=not progress)):
            if number in done:
                continue
            job = _FileScorer(model, preprocessing, rows_of, d4, batch_size)
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
    """Scores the row groups of one file, counting the rows that have no stamp."""

    def __init__(
        self,
        model: Finder,
        preprocessing: Preprocessing,
        split: str,
        d4: bool,
        batch_size: int,
    ) -> None:
        self.model, self.preprocessing, self.split = model, preprocessing, split
        self.d4, self.batch_size = d4, batch_size
        self.without_stamp = 0

    def batches(self, url: str) -> Iterator[pa.RecordBatch]:
        """Yield SCORES batches of one file."""
        narrow = [name for name in SCORES.names if name != "logit"]
        with open_part(url) as part:
            check_schema(STAMPS, part.schema_arrow, url, [*narrow, "stamp"])
            for rows in part.iter_batches(self.batch_size, columns=[*narrow, "stamp"]):
                table = pa.Table.from_batches([rows.replace_schema_metadata(part.schema_arrow.metadata)])
                if self.split:
                    table = table.filter(pc.equal(table.column("region_split"), self.split))
                kept = table.filter(pc.equal(table.column("cutout_ok"), 1))
                self.without_stamp += table.num_rows - kept.num_rows
                if kept.num_rows:
                    batch = make_batch(kept, self.preprocessing, url)
                    logit = averaged_logits(self.model, batch) if self.d4 else predict(self.model, batch)
                    yield to_batch(SCORES, {**{n: kept.column(n) for n in narrow}, "logit": logit})


def mined_negatives(content: dict[str, Any]) -> int:
    """Return how many rows of mined negatives a checkpoint was trained on: `evaluation.mine` asks for none."""
    return int(content["data"].get("train", {}).get("samples", {}).get("hard_negative", 0))


def _find(data: str, split: str) -> tuple[str, str]:
    """Return the dataset that holds `split`, and the region_split to keep of it ("": all of it)."""
    packed = join(data, f"split={split}")
    return (packed, "") if committed_chunks(packed) else (data, split)


def file_hash(path: str) -> str:
    """Return 16 hex digits of a file's sha256."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser("python -m evaluation.score", description=__doc__.split("\n\n")[0])
    p.add_argument("--checkpoint", required=True, help="checkpoint of training/train.py")
    p.add_argument("--data", required=True, help="URL of packed shards (split=... below it)")
    p.add_argument("--split", default="test", choices=("train", "val", "test"), help="default test")
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
        )
    except REFUSALS as error:
        print(f"score: {error}", file=sys.stderr)
        return 1
    counts = record["counts"]
    print(f"scored {counts['scored']:,} stamps, {counts['without_stamp']:,} rows had none -> {a.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
