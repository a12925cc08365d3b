"""Stage 4a: targets -> injection manifest.

1. Look through the targets, file by file on the executors: hosts a brick; then, by their ranks, the hosts that each
   split takes (`selection`). Only counts come back.
2. Share the bricks out into ranges of about equal rows: some ranges are a chunk.
3. A task lays out one range, sorted by brick and task_id, into one part (`manifest_task`); commit chunk by chunk, so
   that a run that is started again makes only the chunks that are not committed.
4. Report rows by split and class, and how the classes differ in what is no lens.

`catalogue_manifest` makes one of a table of positions instead.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from tqdm import tqdm

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, gc
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection import manifest_task
from darkhaloscope.injection.balance import Tally, add_tallies, balance_table
from darkhaloscope.injection.hosts import rows_per_host
from darkhaloscope.injection.manifest_task import BrickRange, FileBricks, RangeResult, Targets
from darkhaloscope.injection.prior import check_prior
from darkhaloscope.injection.selection import Selection, columns_needed, select
from darkhaloscope.records import SPLITS
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from spark_jobs.inputs import first_parts
from spark_jobs.tasks import run_tasks

SECTIONS = ("seed", "variant", "experiment_id", "injection", "prior", "psf", "stamps")
ROWS_PER_RANGE = 125_000  # a task's memory: about 3 KB a row while it sorts and writes
RANGES_PER_CHUNK, MIN_RANGES = 8, 4
TOTAL_MAGNITUDES = 200_000  # hosts whose total magnitude is estimated for the balance


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Make the manifest of an experiment; return the stage's record.

    Raises:
        ConfigError: the prior cannot be drawn from.
        DatasetError: stage 3 has not finished, no target is in a split, or a host or task_id occurs twice.
    """
    check_prior(experiment.prior)
    source = place(args.output_s3, "phase3", experiment)
    output = place(args.output_s3, "phase4a", experiment)
    inputs, options = {"targets": input_hash(source)}, {"test_limit": args.test_limit}
    with StageRun(
        output, "4a", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        targets = look_up_targets(spark, source, args.test_limit, args.partitions)
        selection = select(
            lambda function: targets.scan(columns_needed(experiment), function),
            experiment,
            manifest_task.total_magnitude,
        )
        hosts = int(selection.counts["taken"].sum())
        if not hosts:
            raise DatasetError(
                f"{source}: none of the {targets.rows} targets is in train, val or test; widen the cuts of stage 3, "
                "or give it more of the sky"
            )
        _write(spark, targets, selection, output, stage)
        gc(output)
        counts, facts = _report(selection, output)
        stage.record |= facts
        return stage.finish(targets=targets.rows, hosts=hosts, **counts)


@dataclass(frozen=True)
class TargetTable:
    """The targets as the driver knows them: files, and hosts a brick; never the hosts."""

    spark: SparkSession
    partitions: int
    files: list[FileBricks]
    last: tuple[str, int] | None = None

    @property
    def bricks(self) -> tuple[np.ndarray, np.ndarray]:
        """Names of the bricks, sorted, and the number of hosts of each."""
        name, place = np.unique(np.concatenate([f.name for f in self.files]), return_inverse=True)
        hosts = np.bincount(place, np.concatenate([f.hosts for f in self.files])).astype(np.int64)
        return name, hosts

    @property
    def rows(self) -> int:
        """Number of targets, the limit applied."""
        if self.last is None:
            return int(self.bricks[1].sum())
        return sum(self.scan(["host_id"], lambda batch: batch.num_rows))

    def with_bricks(self, first: str, last: str) -> Targets:
        """Return the files that have hosts in a range of bricks."""
        urls = tuple(f.url for f in self.files if ((f.name >= first) & (f.name <= last)).any())
        return Targets(urls, self.last)

    def scan(self, columns: list[str], function: Callable[[pa.RecordBatch], Any]) -> Iterator[Any]:
        """Yield `function` of every piece of the targets, run on the executors."""
        tasks = [
            Targets(tuple(urls), self.last)
            for urls in _shares([f.url for f in self.files], 8 * self.partitions)
        ]

        def look(index: int, attempt: int, task: Targets) -> list[Any]:
            return manifest_task.look_through(task, columns, function)

        for results in run_tasks(self.spark, tasks, look):
            yield from results


def look_up_targets(spark: SparkSession, source: str, limit: int | None, partitions: int) -> TargetTable:
    """Count the targets' bricks, file by file.

    With a limit, only the first `limit` targets in the order of brick and host_id count, of the files that hold the
    first `limit` rows.

    Raises:
        DatasetError: a brick has two numbers, or a number two bricks: ids would not tell hosts apart.
        SchemaError: a file is no target table.
    """
    urls = [join(source, part.key) for part in first_parts(source, limit)]
    tasks = list(_shares(urls, 8 * partitions))
    found = run_tasks(
        spark, tasks, lambda index, attempt, some: [manifest_task.bricks_of(url) for url in some]
    )
    table = TargetTable(spark, partitions, [f for files in found for f in files])
    _check_numbers(table.files, source)
    return table if limit is None else _limited(table, limit)


def _shares(items: list[Any], n: int) -> Iterator[list[Any]]:
    size = math.ceil(len(items) / n)
    return (items[i : i + size] for i in range(0, len(items), size))


def _limited(table: TargetTable, limit: int) -> TargetTable:
    name, hosts = table.bricks
    before = hosts.cumsum() - hosts
    brick = str(name[before < limit][-1])
    wanted = limit - int(before[before < limit][-1])
    here = TargetTable(table.spark, table.partitions, table.files, None).with_bricks(brick, brick)
    pieces = manifest_task.pieces(here, ["host_id"], (brick, brick))
    ids = np.sort(np.concatenate([piece.column("host_id").to_numpy() for piece in pieces]))
    return TargetTable(table.spark, table.partitions, table.files, (brick, int(ids[:wanted][-1])))


def _check_numbers(files: list[FileBricks], source: str) -> None:
    """Check that a host's id tells its brick: then a host, and so a task_id, can repeat within one range only."""
    pairs = {(str(n), int(i)) for f in files for n, i in zip(f.name, f.number, strict=True)}
    numbers = Counter(number for _, number in pairs)
    if wrong := sorted(pair for pair in pairs if numbers[pair[1]] > 1)[:3]:
        raise DatasetError(
            f"{source}: hosts of several bricks have the same brick number in their host_id, e.g. {wrong}: ids would "
            "not tell hosts apart; make the targets again with stage 3"
        )


def plan(targets: TargetTable, selection: Selection) -> list[list[BrickRange]]:
    """Return chunks of ranges of bricks of about equal rows; a function of targets and experiment alone."""
    columns = [*columns_needed(selection.experiment), "brickname"]
    taken: Counter[str] = Counter()
    for found in targets.scan(columns, lambda batch: manifest_task.taken_by_brick(batch, selection)):
        taken.update(found)
    name = np.array(sorted(taken), "U8")
    rows = (np.array([taken[n] for n in name.tolist()]) * rows_per_host(selection.experiment)).cumsum()
    size = min(ROWS_PER_RANGE, math.ceil(rows[-1] / MIN_RANGES))
    edges = np.flatnonzero(np.diff((rows - 1) // size, prepend=-1))
    ranges = [
        BrickRange(str(part[0]), str(part[-1]), targets.with_bricks(str(part[0]), str(part[-1])))
        for part in np.split(name, edges[1:])
    ]
    return list(_shares(ranges, math.ceil(len(ranges) / RANGES_PER_CHUNK)))


def _write(
    spark: SparkSession, targets: TargetTable, selection: Selection, output: str, stage: StageRun
) -> None:
    done = committed_chunks(output)
    sample = TOTAL_MAGNITUDES / int(selection.counts["taken"].sum())
    for number, ranges in enumerate(
        tqdm(plan(targets, selection), desc="4a chunks", unit="chunk", mininterval=1, disable=None)
    ):
        if number in done:
            continue

        def make(index: int, attempt: int, bricks: BrickRange, chunk: int = number) -> RangeResult:
            return manifest_task.lay_out_range(bricks, selection, output, chunk, index, attempt, sample)

        results = run_tasks(spark, ranges, make)
        stage.owner.check()
        commit_chunk(output, number, [r.part for r in results], _facts(results))


def _facts(results: list[RangeResult]) -> dict[str, Any]:
    tallies = add_tallies(r.tallies for r in results)
    return {
        "rows_by": dict(sum((r.rows for r in results), Counter())),
        "hosts": sum(r.hosts for r in results),
        "bricks": sum(r.bricks for r in results),
        "tallies": {axis: tally.as_json() for axis, tally in tallies.items()},
    }


def _report(selection: Selection, output: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the counts (rows by split and class, realised shares, warnings), and the longer facts of the record."""
    chunks = committed_chunks(output).values()
    rows = sum((Counter(c["rows_by"]) for c in chunks), Counter())
    by_split = {s: sum(n for key, n in rows.items() if key.startswith(f"{s}/")) for s in SPLITS}
    tallies = add_tallies({a: Tally.from_json(t) for a, t in c["tallies"].items()} for c in chunks)
    counts = {
        "rows": sum(rows.values()),
        "controls": sum(n for key, n in rows.items() if key.endswith("/random_negative")),
        "rows_by_split": by_split,
        "split_fractions": {s: round(n / sum(rows.values()), 4) for s, n in by_split.items()},
        "bricks": sum(c["bricks"] for c in chunks),
        "chunks": len(chunks),
        "warnings": warnings_of(selection, by_split),
    }
    return counts, {"balance": balance_table(tallies), "selection": selection.report()}


def warnings_of(selection: Selection, rows_by_split: dict[str, int]) -> list[str]:
    """Return what is short in the selection, each with what to do."""
    injection, found = selection.experiment.injection, []
    for split, rows in rows_by_split.items():
        if not rows:
            found.append(
                f"split {split} is empty: no target lies in it; give stage 3 more of the sky, raise splits.{split}, or "
                "change the seed"
            )
        elif rows < 0.95 * injection.n_total_per_split:
            found.append(f"split {split} has {rows} of {injection.n_total_per_split} rows: its hosts ran out")
    if injection.match_total_magnitude:
        wanted, got = (int(selection.counts[n].sum()) for n in ("controls_wanted", "controls_taken"))
        if got < 0.95 * wanted:
            found.append(
                f"{got} of {wanted} controls as bright as host and arc were found; the bright end has too few hosts"
            )
    return found
