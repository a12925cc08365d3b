"""Run stage 4c as a process that a test may kill: python stamp_run.py FACTS (JSON; see `test_stamp_faults.Run`)."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from test_stages import experiment_of, options

from darkhaloscope.injection import task as tasking
from spark_jobs import stamps


def holding(hold: str):
    """`stamps_of_bricks` that waits, at the brick whose name is in a file, until the file is gone."""
    original = tasking.stamps_of_bricks

    def wrapper(task, index, attempt, coadds, experiment):
        file = Path(hold)
        if file.exists() and any(b.name == file.read_text() for b in task.bricks):
            file.with_suffix(".pid").write_text(str(os.getpid()))
            while file.exists():
                time.sleep(0.05)
            time.sleep(5.0)  # to be killed in, rather than after
        return original(task, index, attempt, coadds, experiment)

    return wrapper


def main(facts: dict) -> None:
    """Run 4c with the given master."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(facts["master"]).config("spark.ui.enabled", "false")
    for name, value in facts["conf"].items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    stamps.stamps_of_bricks = holding(facts["hold"])
    args: argparse.Namespace = options(facts["root"])
    print(json.dumps(stamps.run(spark, experiment_of(Path(facts["sky"])), args)["counts"]))
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
