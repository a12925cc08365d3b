"""Stage 4d: stamps -> completeness of the injections.

Each task counts one file's injections by bin, from the columns it needs and without the pixels; the driver
adds the counts and writes the tables: one quantity at a time, and (in `cells`) two.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from darkhaloscope.dataset import commit_chunk, committed_chunks, open_part, read_table, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.completeness import CELLS, NEEDED, cells_table, completeness_table, count
from darkhaloscope.stage import StageRun, input_hash, place
from darkhaloscope.storage import join
from spark_jobs.inputs import first_parts
from spark_jobs.tasks import run_tasks

SECTIONS = ("variant", "experiment_id", "completeness")


def run(spark: SparkSession, experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Make the completeness table of an experiment; return the stage's record."""
    source = place(args.output_s3, "phase4c", experiment)
    output = place(args.output_s3, "phase4d", experiment)
    inputs, options = {"stamps": input_hash(source)}, {"test_limit": args.test_limit}
    threshold = experiment.completeness.snr_threshold
    with StageRun(
        output, "4d", experiment, SECTIONS, inputs, options, args.overwrite, args.take_over
    ) as stage:
        if not committed_chunks(output):
            files = [join(source, part.key) for part in first_parts(source, args.test_limit)]
            counts = np.sum(run_tasks(spark, files, _count_task(threshold)), axis=0)
            _write(join(output, CELLS), cells_table(counts, threshold))
            _write(output, completeness_table(counts, threshold))
        table = read_table(output)
        injections = sum(
            r["n"] for r in table.to_pylist() if (r["axis"], r["rows"]) == ("theta_e_arcsec", "all")
        )
        empty = sum(n == 0 for n in table.column("n").to_pylist())
        return stage.finish(rows=table.num_rows, injections=injections, empty_bins=empty)


def _write(root: str, table: pa.RecordBatch) -> None:
    if not committed_chunks(root):
        commit_chunk(root, 0, [write_part(root, 0, 0, [table], table.schema)])


def _count_task(threshold: float) -> Any:
    def count_file(index: int, attempt: int, url: str) -> np.ndarray:
        with open_part(url) as part:
            return count(part.read(columns=list(NEEDED)), threshold)

    return count_file
