"""Processes that take turns, so that what is compared ran in the same minute: the speed of a machine wanders.

A benchmark's script starts itself again for each way of doing a thing (`Worker`), pinned to its cores before anything
else starts, and asks them in turn to do the thing a number of times (`serve`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def pin(cores: int) -> None:
    """Keep this process, and what it starts, on so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))


def seconds_of(run: Callable[[int], Any], n: int) -> np.ndarray:
    """Time that `run(n)` takes: by the clock, and of this process on its core."""
    begun = np.array([time.perf_counter(), time.process_time()])
    run(n)
    return np.array([time.perf_counter(), time.process_time()]) - begun


class Worker:
    """A process of its own that does a thing as often as it is asked to.

    Args:
        script: the benchmark; called with `--worker FACTS` it must end in `serve`.
        facts: what it needs to know, of JSON.

    Attributes:
        start_up_s: all until it is ready.
    """

    def __init__(self, script: str, facts: Any) -> None:
        command, begun = [sys.executable, script, "--worker", json.dumps(facts)], time.perf_counter()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()
        self.start_up_s = time.perf_counter() - begun

    def seconds(self, n: int) -> np.ndarray:
        """Return `seconds_of` n times the thing."""
        print(n, file=self._process.stdin, flush=True)
        return np.array(self._answer())

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> list[float]:
        for line in self._process.stdout or ():
            if line.startswith("["):
                return json.loads(line)
        raise SystemExit("a worker of the benchmark died; its message is above")


def serve(run: Callable[[int], Any]) -> None:
    """Say that this worker is ready, and answer until its input ends."""
    print([], flush=True)
    for line in sys.stdin:
        print(seconds_of(run, int(line)).tolist(), flush=True)
