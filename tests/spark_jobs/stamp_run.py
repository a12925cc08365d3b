"""Run stage 4c as a process that a test may kill: python stamp_run.py FACTS (JSON; see `test_stamp_faults.Run`)."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from stage_cases import experiment_of, options

from spark_jobs import stamps

LONGEST_HOLD_S = 120


def holding(folder: str, brick: str):
    """`stamps_of_bricks` whose first attempt at a brick waits in the folder `folder` until `go` is there.

    It says so with the number of its process in `held`; a further attempt is seen as `again`.
    """
    original = stamps.stamps_of_bricks

    def wrapper(task, index, attempt, coadds, experiment):
        at = Path(folder)
        if any(b.name == brick for b in task.bricks):
            if attempt > 0:
                (at / "again").touch()
            else:
                (at / "held.new").write_text(str(os.getpid()))
                (at / "held.new").rename(at / "held")
                until = time.monotonic() + LONGEST_HOLD_S
                while not (at / "go").exists() and time.monotonic() < until:
                    time.sleep(0.02)
        return original(task, index, attempt, coadds, experiment)

    return wrapper


def dying(last: int):
    """`commit_chunk` that kills this driver as soon as a chunk is committed."""
    original = stamps.commit_chunk

    def wrapper(root, chunk, *args):
        original(root, chunk, *args)
        if chunk == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return wrapper


def main(facts: dict) -> None:
    """Run 4c with the given master."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(facts["master"])
    for name, value in facts["conf"].items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    stamps.stamps_of_bricks = holding(facts["folder"], facts["hold"])
    stamps.commit_chunk = dying(facts["die_after"])
    stamps.run(spark, experiment_of(Path(facts["sky"])), options(facts["root"]))
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
