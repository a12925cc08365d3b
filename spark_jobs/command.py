"""A stage as a command: what it prints, its exit status, and which errors are told in one line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from spark_jobs.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

EXPECTED = (Explained, FileNotFoundError, PermissionError)  # the system's own messages name the file, too


def run_stage(
    name: str,
    experiment: Callable[[], Experiment],
    stage: Callable[[SparkSession, Experiment, argparse.Namespace], dict[str, Any]],
    args: argparse.Namespace,
) -> int:
    """Run a stage and print its record's counts; return 0, or after one line that says why 1, or 130 on Ctrl-C."""
    try:
        config = experiment()
        spark = spark_session(f"dark halo scope {name} {config.variant}/{config.experiment_id}")
        record = stage(spark, config, args)
    except KeyboardInterrupt:
        print(f"{name}: stopped; what is committed is kept: the same command goes on", file=sys.stderr)
        return 130
    except EXPECTED as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if (cause := _executor_error(error)) is None:
            raise
        print(f"{name}: in a task: {cause}", file=sys.stderr)
        return 1
    print(f"{name}: done in {record['seconds']} s: {json.dumps(record['counts'])}")
    return 0


def _executor_error(error: Exception) -> str | None:
    """Return the line with which one of our expected errors ended a task, or None for any other failure."""
    for line in reversed(str(error).splitlines()):
        kind = line.strip().split(":")[0].split(".")[-1]
        if kind in set().union(*(_names(e) for e in EXPECTED)):
            return line.strip()
    return None


def _names(kind: type[BaseException]) -> set[str]:
    """Return the names of an exception class and of all that are made of it."""
    return {kind.__name__}.union(*(_names(made) for made in kind.__subclasses__()))
