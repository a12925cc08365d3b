"""Running the pipeline's own commands one after the other, as a person would, and what they recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from darkhaloscope.errors import Explained

REPOSITORY = Path(__file__).resolve().parents[1]


class StepFailed(Explained, RuntimeError):
    """A command of a run ended with an error."""


@dataclass(frozen=True)
class Step:
    """One command of a run: its name in the summary, what it does, and the command line."""

    name: str
    what: str
    command: tuple[str, ...]


def spark(script: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of a Spark stage."""
    submit = shutil.which("spark-submit") or str(Path(sys.executable).with_name("spark-submit"))
    return (submit, str(REPOSITORY / "spark_jobs" / script), *arguments)


def python(*arguments: str) -> tuple[str, ...]:
    """Return the command line of a Python entry point."""
    return (sys.executable, *arguments)


def run_steps(steps: list[Step]) -> dict[str, float]:
    """Run commands in order, saying each; return their seconds by name.

    Raises:
        StepFailed: a command's exit status is not 0 (later steps are not run), it was stopped, or there is no Java.
    """
    seconds = {}
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.name}: {step.what}", flush=True)
        start = time.perf_counter()
        try:
            status = subprocess.run(step.command, env=environment(), check=False).returncode
        except KeyboardInterrupt:
            raise StepFailed(
                f"stopped in step {step.name}; stages that are done are kept: start again"
            ) from None
        seconds[step.name] = round(time.perf_counter() - start, 1)
        if status:
            raise StepFailed(f"step {step.name} ended with status {status}; it was: {' '.join(step.command)}")
    return seconds


def environment() -> dict[str, str]:
    """Return this environment, completed as .venv/env.sh does for a shell that did not source it."""
    if not os.environ.get("JAVA_HOME") and shutil.which("java") is None:
        raise StepFailed(
            "no Java for Spark: enter the environment with `. .venv/env.sh` (`make setup` writes it)"
        )
    folder = str(Path(sys.executable).parent)
    defaults = {
        "SPARK_HOME": str(spark_home()),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONF_DIR": str(REPOSITORY / "local_spark" / "conf"),
    }
    return {**defaults, **os.environ, "PATH": folder + os.pathsep + os.environ.get("PATH", "")}


def spark_home() -> Path:
    """Return the folder of the installed pyspark."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise StepFailed("pyspark is not installed; run `make setup`")
    return Path(spec.origin).parent
