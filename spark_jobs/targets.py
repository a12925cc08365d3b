"""Stage 3: sweep catalogues -> target galaxies.

1. List the sweep files, put them into chunks, and read the survey's brick table.
2. Chunk by chunk, one sweep file a task: read its needed columns in pieces, cut (`select_targets`), add redshifts,
   write one part of candidates. A sweep that cannot be read is quarantined with its reason.
3. Chunk by chunk, one part a task: leave out the galaxies that are there twice, in the part or in another whose part
   of the sky touches this one's (`keep_unique`), and write the targets.
4. Commit chunk by chunk: a run that is started again does only what is not committed. Count everything.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from tqdm import tqdm

from darkhaloscope.dataset import (
    DatasetError,
    Part,
    commit_chunk,
    committed_chunks,
    gc,
    open_part,
    write_part,
)
from darkhaloscope.draws import digest
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import SPLITS, TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, place
from darkhaloscope.storage import join, resolve
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.catalogue import Catalogue, read_chunks
from darkhaloscope.survey.duplicates import box, inside, keep_unique, touch
from darkhaloscope.survey.errors import CatalogueError, TransferFailed
from darkhaloscope.survey.photoz import join_table, open_table, with_companion
from darkhaloscope.survey.sweeps import Sweep, in_chunks, list_sweeps
from darkhaloscope.survey.targets import brick_splits_of, select_targets
from darkhaloscope.writing import remove
from spark_jobs.inputs import read_committed
from spark_jobs.quarantine import Failure, refuse_too_many, write_failures
from spark_jobs.tasks import run_tasks

SECTIONS = ("seed", "variant", "experiment_id", "survey", "targets", "splits")
CANDIDATES = "candidates"  # below the output, while the stage runs


@dataclass(frozen=True)
class Selected:
    """What became of one sweep: a part of candidates and the box that holds them, or a failure."""

    part: Part | None = None
    box: list[list[float]] | None = None  # of unit vectors; None: no candidate
    cuts: dict[str, int] | None = None
    failure: Failure | None = None


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Select the targets of an experiment; return the stage's record.

    Raises:
        DatasetError: no sweep files, a galaxy twice, or too many sweeps unreadable.
    """
    output = place(args.output_s3, "phase3", experiment)
    sweeps = list_sweeps(experiment.survey)[: args.test_limit]
    inputs, options = {"sweeps": digest(*(s.url for s in sweeps))}, {"test_limit": args.test_limit}
    with StageRun(
        output, "3", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        chunks = in_chunks(sweeps, experiment.targets.sweeps_per_chunk)
        if len(committed_chunks(output)) < len(chunks):
            _select(spark, experiment, stage, chunks)
            _leave_out_duplicates(spark, stage)
        _refuse_repeats(spark, output)
        counts = _totals(output, experiment)
        refuse_too_many(stage, counts["failed_sweeps"], counts["sweeps"], "sweep files", experiment)
        remove(join(output, CANDIDATES), recursive=True)
        gc(output)
        return stage.finish(**counts)


def _select(spark: SparkSession, experiment: Experiment, stage: StageRun, chunks: list[list[Sweep]]) -> None:
    """Write the candidates of every chunk that has none yet."""
    root = join(stage.root, CANDIDATES)
    done = committed_chunks(root)
    if len(done) == len(chunks):
        return
    task = _select_task(spark, experiment, root)
    for number, sweeps in enumerate(tqdm(chunks, desc="3 sweeps", unit="chunk", mininterval=1, disable=None)):
        if number in done:
            continue
        results: list[Selected] = run_tasks(spark, [(number, sweep) for sweep in sweeps], task)
        stage.owner.check()
        failures = [r.failure for r in results if r.failure is not None]
        write_failures(stage.root, failures, number)
        facts = {
            "sweeps": len(sweeps),
            "failed_sweeps": len(failures),
            "cuts": dict(_sum(r.cuts for r in results)),
            "boxes": {r.part.key: r.box for r in results if r.part is not None and r.box is not None},
        }
        commit_chunk(root, number, [r.part for r in results if r.part is not None], facts)


def _select_task(spark: SparkSession, experiment: Experiment, root: str) -> Any:
    """Return the function that makes the candidates of one sweep."""
    survey = experiment.survey
    bricks = read_brick_table(resolve(survey.source, survey.bricks_table))
    table = resolve(survey.source, survey.redshifts) if survey.redshifts.endswith(".parquet") else ""
    if table:
        open_table(table)  # a wrong one is found here, not sweep by sweep
    shared = spark.sparkContext.broadcast(
        (bricks, brick_splits_of(bricks, experiment.targets, experiment.splits, experiment.seed))
    )

    def select(index: int, attempt: int, task: tuple[int, Sweep]) -> Selected:
        chunk, sweep = task
        cuts: Counter[str] = Counter()
        batches: list[pa.RecordBatch] = []
        try:
            for piece in _pieces(sweep):
                found = select_targets(
                    piece, experiment.targets, experiment.splits, experiment.seed, *shared.value
                )
                columns = join_table(found.columns, table) if table else found.columns
                cuts.update(found.counts)
                batches.append(to_batch(TARGETS, columns))
        except (CatalogueError, TransferFailed, FileNotFoundError) as error:
            return Selected(failure=Failure("3", sweep.url, 1, type(error).__name__, str(error)))
        part = write_part(root, chunk, index, batches, TARGETS.arrow(), attempt)
        return Selected(part, _box(batches), dict(cuts))

    return select


def _pieces(sweep: Sweep) -> Iterable[Catalogue]:
    pieces = read_chunks(sweep.url)
    return with_companion(pieces, sweep.companion) if sweep.companion else pieces


def _box(batches: list[pa.RecordBatch]) -> list[list[float]] | None:
    ra, dec = (np.concatenate([b.column(name).to_numpy() for b in batches]) for name in ("ra", "dec"))
    return box(ra, dec).tolist() if len(ra) else None


def _leave_out_duplicates(spark: SparkSession, stage: StageRun) -> None:
    """Write the targets of every chunk that has none yet: its candidates, each galaxy once."""
    root, done = join(stage.root, CANDIDATES), committed_chunks(stage.root)
    candidates = committed_chunks(root)
    boxes = {key: box for facts in candidates.values() for key, box in facts["boxes"].items()}
    task = _unique_task(spark, boxes, root, stage.root)
    for number, facts in sorted(candidates.items()):
        if number in done:
            continue
        results = run_tasks(spark, [(number, key) for key in sorted(facts["boxes"])], task)
        stage.owner.check()
        parts, splits, sources = ([r[i] for r in results] for i in range(3))
        cuts = Counter(facts["cuts"])
        cuts["duplicate"] = cuts["targets"] - sum(part.rows for part in parts)
        cuts["targets"] -= cuts["duplicate"]
        kept = {name: facts[name] for name in ("sweeps", "failed_sweeps")}
        found = {"cuts": dict(cuts), "splits": dict(_sum(splits)), "redshifts": dict(_sum(sources))}
        commit_chunk(stage.root, number, parts, kept | found)


def _unique_task(spark: SparkSession, boxes: dict[str, list[list[float]]], root: str, output: str) -> Any:
    """Return the function that writes one part's targets: (part, rows by split, rows by redshift source)."""
    everywhere = spark.sparkContext.broadcast({key: np.array(corners) for key, corners in boxes.items()})

    def unique(index: int, attempt: int, task: tuple[int, str]) -> tuple[Part, Counter, Counter]:
        chunk, key = task
        with open_part(join(root, key)) as part:
            own = part.read()
        mine = everywhere.value[key]
        near = [k for k, other in sorted(everywhere.value.items()) if k != key and touch(mine, other)]
        before = [_positions(join(root, k), mine) for k in near if k < key]
        after = [_positions(join(root, k), mine) for k in near if k > key]
        here = [own.column(name).to_numpy() for name in ("host_id", "ra", "dec")]
        ids, ra, dec = (np.concatenate(columns) for columns in zip(*before, here, *after, strict=True))
        first = sum(len(columns[0]) for columns in before)
        kept = own.filter(pa.array(keep_unique(ids, ra, dec)[first : first + len(own)]))
        written = write_part(output, chunk, index, kept.to_batches(), TARGETS.arrow(), attempt)
        return written, *(Counter(kept.column(n).to_pylist()) for n in ("region_split", "z_host_source"))

    return unique


def _positions(url: str, bounds: np.ndarray) -> list[np.ndarray]:
    """Return host_id, RA and Dec of a part's galaxies that lie in a box."""
    with open_part(url) as part:
        table = part.read(columns=["host_id", "ra", "dec"])
    columns = [table.column(name).to_numpy() for name in ("host_id", "ra", "dec")]
    near = inside(bounds, columns[1], columns[2])
    return [column[near] for column in columns]


def _refuse_repeats(spark: SparkSession, output: str) -> None:
    """Raise `DatasetError` where a galaxy's number is there twice at two places: its catalogues contradict."""
    if not any(facts["rows"] for facts in committed_chunks(output).values()):
        return
    hosts = read_committed(spark, output, TARGETS, columns=("host_id",))
    repeated = hosts.groupBy("host_id").count().where("count > 1")
    if number := repeated.count():
        examples = [row.host_id for row in repeated.limit(3).collect()]
        raise DatasetError(
            f"{output}: {number} galaxies are there twice at different positions, e.g. host_id {examples}; their "
            "sweeps are not of one release: select them into two outputs"
        )


def _totals(output: str, experiment: Experiment) -> dict[str, Any]:
    chunks = committed_chunks(output).values()
    splits = _sum(c["splits"] for c in chunks)
    number = sum(splits.values())
    wanted = {name: getattr(experiment.splits, name) for name in SPLITS}
    empty = [name for name, share in wanted.items() if share > 0 and not splits[name]]
    return {
        "cuts": dict(_sum(c["cuts"] for c in chunks)),
        "sweeps": sum(c["sweeps"] for c in chunks),
        "failed_sweeps": sum(c["failed_sweeps"] for c in chunks),
        "rows": number,
        "chunks": len(chunks),
        "splits": {name: splits[name] for name in SPLITS},
        "split_fractions": {name: round(splits[name] / max(number, 1), 4) for name in SPLITS},
        "redshifts": dict(_sum(c["redshifts"] for c in chunks)),
        "warnings": [f"no target is in {name}: loosen the cuts or widen the footprint" for name in empty],
    }


def _sum(counts: Iterable[dict[str, int] | None]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one or {})
    return total
