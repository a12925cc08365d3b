"""Pack: stamps -> training shards, split by split, in one global shuffle.

1. Count each file's rows by split, from a few narrow columns: so many shards a split.
2. Scatter: a task reads some row groups and writes one scratch file, each shard's rows together.
3. Gather: a task reads its shard's rows out of every scratch file and writes them as one part, in order.
4. Write the index (`records.SHARDS`), and remove the scratch files.

What is committed, a scratch file or a shard, is not made again by a run that is started again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
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
    content_hash,
    gc,
    open_part,
    write_part,
)
from darkhaloscope.draws import digest
from darkhaloscope.experiment import Experiment
from darkhaloscope.pack import shuffle as passes
from darkhaloscope.pack.packing import ORDER, Layout, Shuffle, count_shards, last_of_first
from darkhaloscope.pack.shuffle import Counted, Piece
from darkhaloscope.records import SHARDS, SPLITS
from darkhaloscope.schema import SchemaError, to_batch
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from darkhaloscope.writing import remove
from spark_jobs.inputs import first_parts
from spark_jobs.quarantine import Failure, refuse_too_many, write_failures
from spark_jobs.tasks import run_tasks

SECTIONS = ("seed", "variant", "experiment_id", "pack")
SCRATCH = "_scatter"
SCATTER_BYTES = 192 << 20  # of pixels in the training type that a scatter task holds
ROUNDS = 4  # tasks a core gets before their results are committed


@dataclass(frozen=True)
class Plan:
    """What is to be done: where rows go, and which pieces each scatter task reads."""

    shuffle: Shuffle
    groups: tuple[tuple[Piece, ...], ...]
    rows: dict[str, int]
    failed: int


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Pack the stamps of an experiment; return the stage's record.

    Raises:
        DatasetError: stage 4c has not finished, rows do not add up, or too many did not fit the training type.
    """
    source = place(args.output_s3, "phase4c", experiment)
    output = place(args.output_s3, "pack", experiment)
    inputs, options = {"stamps": input_hash(source)}, {"test_limit": args.test_limit}
    with StageRun(
        output, "pack", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        plan = make_plan(spark, source, experiment, args.test_limit)
        wave = ROUNDS * args.partitions
        if missing := missing_shards(output, plan.shuffle):
            scratch = join(output, SCRATCH, digest(repr(plan))[:16])
            scatter(spark, plan, scratch, wave, stage)
            write_failures(output, left_out_of(scratch))
            gather(spark, plan, missing, scratch, output, wave, stage, experiment)
        counts = counts_of(output, plan)
        made, lost = sum(plan.rows.values()), counts["left_out_pixels"]
        if counts["rows"] + lost != made:
            raise RuntimeError(
                f"{output}: {counts['rows']} rows packed and {lost} left out of {made}: rows were lost"
            )
        refuse_too_many(stage, lost, made, "stamps", experiment)
        write_index(output)
        remove(join(output, SCRATCH), recursive=True)
        for split in SPLITS:
            gc(split_root(output, split))
        return stage.finish(**counts)


def make_plan(spark: SparkSession, source: str, experiment: Experiment, limit: int | None) -> Plan:
    """Count the stamps; decide how many shards each split has and what each scatter task reads.

    Raises:
        SchemaError: a file is no table of stamps, or stamps differ in size.
        DatasetError: a split that is not one of the pipeline's.
    """
    urls = [join(source, part.key) for part in first_parts(source, limit)]
    bound = None if limit is None else last_of_first(pa.concat_tables(map(_ids, urls)), limit)
    counted: list[Counted] = run_tasks(spark, urls, lambda index, attempt, url: passes.count(url, bound))
    sizes = {c.layout.size for c in counted}
    if len(sizes) > 1:
        raise SchemaError(f"{source}: stamps of different sizes {sorted(sizes)} pixels; remake one of them")
    good = sum((Counter(c.good) for c in counted), Counter())
    if unknown := sorted(good.keys() - set(SPLITS)):
        raise DatasetError(f"{source}: region_split has {unknown}; expected {list(SPLITS)}")
    rows = {split: good[split] for split in SPLITS}
    target = Layout(experiment.pack.dtype, sizes.pop())
    shards = tuple((s, count_shards(rows[s], target, experiment.pack.shard_mb)) for s in SPLITS)
    pieces = [piece for c in counted for piece in c.pieces]
    groups = group_pieces(pieces, max(1, SCATTER_BYTES // target.cell_bytes))
    return Plan(Shuffle(experiment.seed, shards, target, bound), groups, rows, sum(c.failed for c in counted))


def _ids(url: str) -> pa.Table:
    with open_part(url) as part:
        return part.read(columns=list(ORDER))


def group_pieces(pieces: list[Piece], most: int) -> tuple[tuple[Piece, ...], ...]:
    """Put pieces, in their order, into groups of at most `most` rows (or of one piece)."""
    groups: list[list[Piece]] = []
    rows = 0
    for piece in pieces:
        if not groups or rows + piece.rows > most:
            groups.append([])
            rows = 0
        groups[-1].append(piece)
        rows += piece.rows
    return tuple(map(tuple, groups))


def split_root(output: str, split: str) -> str:
    """Return the URL of a split's shards."""
    return join(output, f"split={split}")


def missing_shards(output: str, shuffle: Shuffle) -> list[int]:
    """Return the numbers, counted through all splits, of the shards that are not committed."""
    done = {s: set(committed_chunks(split_root(output, s))) for s, _ in shuffle.shards}
    places = map(shuffle.shard_in_split, range(shuffle.n_shards))
    return [number for number, (split, chunk) in enumerate(places) if chunk not in done[split]]


def scatter(spark: SparkSession, plan: Plan, scratch: str, wave: int, stage: StageRun) -> None:
    """Write the scratch files that are not committed yet."""
    shuffle, done = plan.shuffle, committed_chunks(scratch)

    def task(index: int, attempt: int, group: tuple[int, tuple[Piece, ...]]) -> passes.Scattered:
        return passes.scatter(group[1], scratch, group[0], attempt, shuffle)

    tasks = [group for group in enumerate(plan.groups) if group[0] not in done]
    for (chunk, _), made in in_waves(spark, tasks, task, wave, "pack: scatter", stage):
        facts = {"offsets": list(made.offsets), "left_out": list(made.left_out)}
        commit_chunk(scratch, chunk, [made.part], facts)


def gather(
    spark: SparkSession,
    plan: Plan,
    missing: list[int],
    scratch: str,
    output: str,
    wave: int,
    stage: StageRun,
    experiment: Experiment,
) -> None:
    """Write the shards that are missing."""
    chunks, shuffle = committed_chunks(scratch), plan.shuffle
    urls = [join(scratch, chunks[n]["parts"][0]["key"]) for n in sorted(chunks)]
    offsets = np.array([chunks[n]["offsets"] for n in sorted(chunks)], np.int64).reshape(len(urls), -1)
    codec, rows_per_group = experiment.pack.codec, experiment.pack.rows_per_group

    def task(index: int, attempt: int, number: int) -> tuple[Part, dict[str, Any]]:
        ranges = [(u, int(o[number]), int(o[number + 1])) for u, o in zip(urls, offsets, strict=True)]
        root = split_root(output, shuffle.shard_in_split(number)[0])
        return passes.gather(number, ranges, root, attempt, shuffle, codec, rows_per_group)

    for _, (part, facts) in in_waves(spark, missing, task, wave, "pack: gather", stage):
        commit_chunk(split_root(output, facts["split"]), facts["shard"], [part], facts)


def in_waves(
    spark: SparkSession, tasks: list[Any], function: Callable[..., Any], wave: int, what: str, stage: StageRun
) -> Iterator[tuple[Any, Any]]:
    """Run tasks, so many at a time; yield (task, result) to be committed as each wave ends."""
    with tqdm(total=len(tasks), desc=what, unit="task", mininterval=1, disable=None) as progress:
        for start in range(0, len(tasks), wave):
            some = tasks[start : start + wave]
            results = run_tasks(spark, some, function)
            stage.owner.check()
            yield from zip(some, results, strict=True)
            progress.update(len(some))


def left_out_of(scratch: str) -> list[Failure]:
    """Return the rows that scatter tasks left out, as rows of the quarantine."""
    chunks = committed_chunks(scratch)
    ids = sorted(i for c in chunks.values() for i in c["left_out"])
    return [Failure("pack", i, 1, "SchemaError", "pixels beyond the training type's range") for i in ids]


def counts_of(output: str, plan: Plan) -> dict[str, Any]:
    """Return the counts of the stage's record, from what is committed."""
    splits = {}
    for split in SPLITS:
        chunks = committed_chunks(split_root(output, split)).values()
        rows, lenses = sum(c["rows"] for c in chunks), sum(c["lenses"] for c in chunks)
        splits[split] = {"rows": rows, "controls": rows - lenses, "shards": len(chunks),
                         "content": content_hash(split_root(output, split))}  # fmt: skip
    quarantine = committed_chunks(join(output, "quarantine")).values()
    return {
        "rows": sum(s["rows"] for s in splits.values()),
        "left_out_failed": plan.failed,
        "left_out_pixels": sum(c["rows"] for c in quarantine),
        "splits": splits,
    }


def write_index(output: str) -> None:
    """Write the table of all shards, once all are committed."""
    root = join(output, "index")
    if committed_chunks(root):
        return
    rows = []
    for split in SPLITS:
        for chunk in committed_chunks(split_root(output, split)).values():
            (part,) = chunk["parts"]
            file = {"file": f"split={split}/{part['key']}", "bytes": part["bytes"], "sha256": part["sha256"]}
            rows.append({n: (chunk | file)[n] for n in SHARDS.names})
    batch = to_batch(SHARDS, {n: [row[n] for row in rows] for n in SHARDS.names})
    commit_chunk(root, 0, [write_part(root, 0, 0, [batch], SHARDS.arrow())])
