"""One run of one stage on one output: who may write, whether it continues an earlier run, what it records.

    with StageRun(root, "4c", experiment, sections=(...), inputs={...}) as run:
        ... write parts, commit chunks ...
        run.finish(counts)

writes `_stage_config.json` beside the output: effective config, its hash, code version, input hashes, row
counts, timings, state. A second run with the same hash continues; one with another hash is refused.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from darkhaloscope.dataset import DatasetError
from darkhaloscope.draws import digest
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.provenance import code_version, package_facts
from darkhaloscope.storage import filesystem, join, read_bytes
from darkhaloscope.writing import age_s, create_exclusive, remove, replace_file

RECORD_NAME = "_stage_config.json"
OWNER_NAME = "_owner.json"
HEARTBEAT_S = 10.0
EXPIRY_S = 60.0


class OutputRefused(Explained, RuntimeError):
    """The output cannot be written by this run; the message says why and which flag would allow it."""


def place(root: str, stage: str, experiment: Experiment) -> str:
    """Return `<root>/<stage>/<variant>/<experiment_id>`, where a stage's table is."""
    return join(root, stage, experiment.variant, experiment.experiment_id)


def read_record(root: str) -> dict[str, Any] | None:
    """Return the `_stage_config.json` of an output, or None where there is none."""
    try:
        return json.loads(read_bytes(join(root, RECORD_NAME), 16 << 20))
    except FileNotFoundError:
        return None


def seed_tiers(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Return what the seed's `_stage_config.json` says of its manifest, under the seed's names."""
    injection = experiment.injection
    names = ("grid", "n_total_per_split", "control_frac")
    return {injection.tier: {name: getattr(injection, name) for name in names}}


class Owner:
    """The right to write to one output: a file with a heartbeat, so that a dead run blocks nobody long.

    A heartbeat that cannot be written (a server that fails for a while) is tried again at the next; `check`, before
    every commit, finds out whether the output was taken over meanwhile.
    """

    def __init__(self, root: str, expiry_s: float = EXPIRY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.url, self.expiry_s, self.heartbeat_s = join(root, OWNER_NAME), expiry_s, heartbeat_s
        self.token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, take_over: bool) -> None:
        """Become the owner, or raise `OutputRefused` while another run's heartbeat is fresh."""
        if not create_exclusive(self.url, self._content()):
            held, age = self._read(), age_s(self.url)
            if age < self.expiry_s and not take_over:
                raise OutputRefused(
                    f"{self.url}: process {held.get('pid')} on {held.get('host')} is writing here (heard of "
                    f"{age:.0f} s ago); wait for it, or seize the output with --take-over if it is dead"
                )
            replace_file(self.url, self._content())
        if self._read().get("token") != self.token:
            raise OutputRefused(f"{self.url}: another run took this output at the same moment; start again")
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop the heartbeat and remove the file if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._read().get("token") == self.token:
            remove(self.url)

    def check(self) -> None:
        """Raise `OutputRefused` when the output was taken over; call before a commit.

        Raises:
            StorageError: the owner file cannot be read, so that nobody knows.
        """
        if self._read().get("token") != self.token:
            raise OutputRefused(f"{self.url}: the output was taken over by another run; this one stops")

    def _content(self) -> bytes:
        facts = {"token": self.token, "pid": os.getpid(), "host": socket.gethostname(), "beat": time.time()}
        return json.dumps(facts).encode()

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(read_bytes(self.url, 1 << 16))
        except FileNotFoundError:
            return {}

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat_s):
            try:
                if self._read().get("token") != self.token:
                    return
                replace_file(self.url, self._content())
            except (OSError, ValueError) as error:
                print(f"{self.url}: heartbeat missed, will be tried again: {error}", file=sys.stderr)


class StageRun:
    """A stage's hold on its output, as a context manager."""

    def __init__(
        self,
        root: str,
        stage: str,
        experiment: Experiment,
        sections: tuple[str, ...],
        inputs: Mapping[str, str],
        options: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        take_over: bool = False,
    ) -> None:
        """Describe the run.

        Args:
            root: URL of the stage's output.
            stage: its name.
            experiment: effective config.
            sections: names of the experiment's fields that decide the output; the hash covers these.
            inputs: name -> content hash of every table that is read.
            options: further values that decide the output (`--test-limit`).
            overwrite: remove an output of another config instead of refusing.
            take_over: seize an output whose owner is thought dead.
        """
        self.root, self.stage, self.overwrite, self.take_over = root, stage, overwrite, take_over
        self.owner = Owner(root)
        self.hash = digest(stage, experiment.digest(*sections), sorted(inputs.items()),
                           sorted((options or {}).items()))[:16]  # fmt: skip
        self.record: dict[str, Any] = {
            "stage": stage,
            "variant": experiment.variant,
            "experiment_id": experiment.experiment_id,
            "tiers": seed_tiers(experiment),
            "state": "running",
            "hash": self.hash,
            "code_version": code_version(),
            "package": package_facts(),
            "inputs": dict(inputs),
            "options": dict(options or {}),
            "decided_by": list(sections),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "experiment": experiment.as_dict(),
        }
        self._clock = time.perf_counter()

    def __enter__(self) -> StageRun:
        self.owner.acquire(self.take_over)
        try:
            found = read_record(self.root)
            if found is not None and found["hash"] != self.hash:
                if not self.overwrite:
                    raise OutputRefused(
                        f"{self.root} holds the output of another config (its hash is {found['hash']}, this "
                        f"run's {self.hash}); give another --experiment-id or --output-s3, or --overwrite to "
                        "replace it"
                    )
                self._clear()
            if found is None or found["hash"] != self.hash or found["state"] != "done":
                self._write()
        except BaseException:
            self.owner.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.owner.release()

    def finish(self, **counts: Any) -> dict[str, Any]:
        """Write the final record with row counts and timing; return it."""
        self.owner.check()
        self.record |= {"state": "done", "counts": counts,
                        "seconds": round(time.perf_counter() - self._clock, 3),
                        "finished": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
        self._write()
        return self.record

    def _write(self) -> None:
        replace_file(join(self.root, RECORD_NAME), json.dumps(self.record, indent=1).encode())

    def _clear(self) -> None:
        fs, path = filesystem(self.root)
        for entry in fs.ls(path, detail=False):
            name = entry.rsplit("/", 1)[-1]
            if name != OWNER_NAME:
                remove(join(self.root, name), recursive=True)


def input_hash(root: str) -> str:
    """Return the hash of a finished stage's output, for the record of the stage that reads it.

    Raises:
        DatasetError: that stage has not finished there.
    """
    record = read_record(root)
    if record is None or record["state"] != "done":
        state = "has not run" if record is None else f"is {record['state']}, not done"
        raise DatasetError(f"{root}: the stage that writes this table {state}; run it (again) first")
    return record["hash"]
