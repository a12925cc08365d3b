"""Stage 3: sweep catalogues -> target galaxies.

1. List the sweep files and read the survey's brick table.
2. One sweep file a task: read its needed columns in pieces, cut (`select_targets`), write one part.
3. A sweep that cannot be read is quarantined with its reason; the rest is counted, cut by cut.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, place
from darkhaloscope.storage import filesystem, is_local, join
from darkhaloscope.survey.bricks import BrickTable, read_brick_table
from darkhaloscope.survey.catalogue import read_chunks
from darkhaloscope.survey.errors import CatalogueError, TransferFailed
from darkhaloscope.survey.splits import region_splits
from darkhaloscope.survey.targets import good_bricks, select_targets
from spark_jobs.quarantine import Failure, refuse_too_many, write_failures
from spark_jobs.session import read_committed, run_tasks

SECTIONS = ("seed", "variant", "experiment_id", "survey", "targets", "splits")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Select the targets of an experiment; return the stage's record.

    Raises:
        DatasetError: no sweep files, a galaxy twice, or too many sweeps unreadable.
    """
    output = place(args.output_s3, "phase3", experiment)
    with StageRun(
        output, "3", experiment, SECTIONS, {}, {"test_limit": args.test_limit}, args.overwrite, args.take_over
    ) as stage:
        if not committed_chunks(output):
            sweeps = list_sweeps(experiment)[: args.test_limit]
            results = run_tasks(spark, sweeps, _select_task(spark, experiment, output))
            failures = [f for _, _, f in results if f is not None]
            write_failures(output, failures)
            counts = sum((Counter(c) for _, c, _ in results), Counter())
            facts = {"cuts": dict(counts), "sweeps": len(sweeps), "failed_sweeps": len(failures)}
            commit_chunk(output, 0, [p for p, _, _ in results if p is not None], facts)
        facts = committed_chunks(output)[0]
        _refuse_repeats(spark, output)
        refuse_too_many(stage, facts["failed_sweeps"], facts["sweeps"], "sweep files", experiment)
        return stage.finish(**{k: v for k, v in facts.items() if k != "parts"})


def list_sweeps(experiment: Experiment) -> list[str]:
    """Return the URLs of the release's sweep files, sorted.

    Raises:
        DatasetError: there are none.
    """
    folder = join(experiment.survey.source, experiment.survey.sweeps)
    fs, path = filesystem(folder)
    found = sorted(fs.glob(f"{path}/sweep-*.fits"))
    if not found:
        raise DatasetError(
            f"{folder}: no sweep-*.fits; check survey.source and survey.sweeps, or paint the simulated sky "
            "with `make smoke-local`"
        )
    scheme = "" if is_local(folder) or "://" in found[0] else folder.split("://")[0] + "://"
    return [scheme + f for f in found]


def _brick_table(experiment: Experiment) -> BrickTable:
    return read_brick_table(join(experiment.survey.source, experiment.survey.bricks_table))


def _select_task(spark: SparkSession, experiment: Experiment, output: str) -> Any:
    bricks = _brick_table(experiment)
    of_brick = None
    if experiment.splits.method == "region":
        names = bricks.columns["brickname"][good_bricks(bricks, experiment.targets)]
        of_brick = region_splits(names, experiment.splits, experiment.seed)
    shared = spark.sparkContext.broadcast((bricks, of_brick))

    def select(index: int, attempt: int, sweep: str) -> tuple[Any, dict[str, int], Failure | None]:
        table, brick_splits = shared.value
        counts: Counter[str] = Counter()
        batches: list[pa.RecordBatch] = []
        try:
            for piece in read_chunks(sweep):
                found = select_targets(
                    piece, experiment.targets, experiment.splits, experiment.seed, table, brick_splits
                )
                counts.update(found.counts)
                batches.append(to_batch(TARGETS, found.columns))
        except (CatalogueError, TransferFailed, FileNotFoundError) as error:
            return None, {}, Failure("3", sweep, 1, type(error).__name__, str(error))
        return write_part(output, 0, index, batches, TARGETS.arrow(), attempt), dict(counts), None

    return select


def _refuse_repeats(spark: SparkSession, output: str) -> None:
    hosts = read_committed(spark, output, TARGETS, columns=("host_id",))
    repeated = hosts.groupBy("host_id").count().where("count > 1").limit(3)
    if examples := [r.host_id for r in repeated.collect()]:
        raise DatasetError(f"{output}: galaxies that are in two sweep files, e.g. host_id {examples}")
