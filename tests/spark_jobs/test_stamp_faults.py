"""Stage 4c when things die: every row once, the bytes of an undisturbed run, no orphan left.

What is to be killed runs in a process of its own (`stamp_run.py`), in workspaces whose stages before it have run.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stage_cases import COMPARED, options

from darkhaloscope.dataset import (
    DatasetError,
    committed_chunks,
    committed_files,
    committed_parts,
    gc,
    open_part,
)
from darkhaloscope.stage import OWNER_NAME, place
from local_spark.cluster import Cluster, Plan
from local_spark.steps import environment
from spark_jobs import stamps

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.xdist_group("spark")
WAIT_S = 240
QUICK = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.default.parallelism": "2"}


@pytest.fixture
def workspace(done, tmp_path):
    """A root with the manifest and coadds of `done`, on which 4c has not run."""
    for stage in ("phase4a", "phase4b", "coadd_cache"):
        (tmp_path / stage).symlink_to(f"{done[0]}/{stage}")
    return str(tmp_path)


class Run:
    """A run of 4c in a process of its own.

    hold: a brick whose task waits, the first time, until `go_on`. die_after: a chunk after whose commit the driver
    is killed. However a test ends, everything that the run started ends with it.
    """

    def __init__(self, root, sky, master="local[2]", hold="", die_after=-1, conf=None):
        self.folder = Path(root, f"run-{time.monotonic_ns()}")
        self.folder.mkdir()
        facts = {"root": root, "sky": str(sky), "master": master, "conf": QUICK | (conf or {}),
                 "folder": str(self.folder), "hold": hold, "die_after": die_after}  # fmt: skip
        path = os.pathsep.join([str(HERE), str(HERE.parent / "survey"), os.environ.get("PYTHONPATH", "")])
        self.log = self.folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "stamp_run.py"), json.dumps(facts)],
                env=environment() | {"PYTHONPATH": path}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()

    def wait_for(self, name: str) -> Path:
        """Wait until a file is there (see `stamp_run.holding`)."""
        until = time.monotonic() + WAIT_S
        while not (self.folder / name).exists():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, f"no {name}: {self.log.read_text()[-3000:]}"
            time.sleep(0.02)
        return self.folder / name

    def held(self) -> int:
        """Wait until the task waits at its brick; return the process id of its Python worker."""
        return int(self.wait_for("held").read_text())

    def go_on(self) -> None:
        (self.folder / "go").touch()

    def end(self, status: int = 0) -> None:
        """Wait for the end, which must have this status."""
        assert self.process.wait(WAIT_S) == status, self.log.read_text()[-3000:]

    def kill(self) -> None:
        """Kill the driver, its JVM and its Python workers, as a machine does that loses its power."""
        for pid in of_session(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(WAIT_S)


def stat(pid: int) -> list[str]:
    """What the system says of a process, from its state on; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def of_session(session: int) -> list[int]:
    """The processes of a session that are alive."""
    pids = [int(f.name) for f in Path("/proc").iterdir() if f.name.isdigit()]
    facts = {pid: stat(pid) for pid in pids}
    return [pid for pid, fact in facts.items() if fact and fact[3] == str(session) and fact[0] != "Z"]


def parent_named(pid: int, name: str) -> int:
    """The nearest ancestor of a process that runs a program of that name."""
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        pid = int(stat(pid)[1])
        assert pid > 1
    return pid


def as_if_long_dead(output: str) -> None:
    """Let the heartbeat of a killed driver expire."""
    os.utime(Path(output, OWNER_NAME), (0, 0))


def rows_in_order(output: str) -> list[tuple]:
    """Every column of every row, in their order; of a reason, which names paths, only whether there is one."""
    rows = []
    for url in committed_files(output):
        with open_part(url) as part:
            rows += part.read().to_pylist()
    return [(*(r[n] for n in COMPARED), bool(r["failure_reason"])) for r in rows]


def check(root, done) -> None:
    """Every row of the manifest once, an undisturbed run's bytes and order, no orphan on disk."""
    output, undisturbed = (place(r, "phase4c", done[1]) for r in (root, done[0]))
    on_disk = {
        str(f.relative_to(output)) for f in Path(output).glob("chunk=*/*") if "_manifest" not in f.name
    }
    assert on_disk == {p.key for p in committed_parts(output)} and gc(output) == []
    expected = rows_in_order(undisturbed)
    assert rows_in_order(output) == expected
    ids, ok, failed = (list(v) for v in zip(*((r[COMPARED.index("task_id")], r[COMPARED.index("cutout_ok")], r[-1])
                                             for r in expected), strict=True))  # fmt: skip
    assert len(set(ids)) == len(ids) == done[2]["4a"]["counts"]["rows"]
    assert failed == [not good for good in ok]


def brick_of_chunk(done, number: int) -> str:
    """A brick of a chunk of the undisturbed run that can be read."""
    output = place(done[0], "phase4c", done[1])
    names = set()
    for part in committed_chunks(output)[number]["parts"]:
        with open_part(f"{output}/{part['key']}") as file:
            table = file.read(columns=["brickname", "cutout_ok"])
            names |= {r["brickname"] for r in table.to_pylist() if r["cutout_ok"]}
    return min(names)


def test_a_driver_killed_in_a_chunk_and_then_between_chunks_is_resumed_where_it_was(
    spark, done, workspace, sky
):
    output = place(workspace, "phase4c", done[1])
    with Run(workspace, sky[0], hold=brick_of_chunk(done, 1)) as run:
        run.held()
    assert set(committed_chunks(output)) == {0}
    first = {p.key for p in committed_parts(output)}
    as_if_long_dead(output)
    with Run(workspace, sky[0], die_after=1) as run:
        run.end(-signal.SIGKILL)
    assert set(committed_chunks(output)) == {0, 1}
    as_if_long_dead(output)
    stamps.run(spark, done[1], options(workspace))
    assert set(committed_chunks(output)) == {0, 1, 2}
    assert first < {p.key for p in committed_parts(output)}, "a committed chunk was made again"
    check(workspace, done)


@pytest.mark.slow
def test_a_python_worker_that_is_killed_costs_nothing(done, workspace, sky):
    with Run(workspace, sky[0], master="local[2,4]", hold=brick_of_chunk(done, 0)) as run:
        os.kill(run.held(), signal.SIGKILL)
        run.end()
        run.wait_for("again")
    check(workspace, done)


def test_too_many_failures_stop_the_stage_and_lose_nothing(spark, done, workspace):
    limits = dataclasses.replace(done[1].limits, max_failed_fraction=0.0)
    with pytest.raises(DatasetError, match=r"failed, more than the fraction 0\.0"):
        stamps.run(spark, dataclasses.replace(done[1], limits=limits), options(workspace))
    check(workspace, done)


@pytest.mark.slow
def test_an_executor_that_is_killed_costs_nothing(done, workspace, sky):
    with (
        Cluster(Plan(memory="1g")) as cluster,
        Run(workspace, sky[0], cluster.url, hold=brick_of_chunk(done, 0)) as run,
    ):
        os.kill(parent_named(run.held(), "java"), signal.SIGKILL)
        run.end()
        run.wait_for("again")
    check(workspace, done)


@pytest.mark.slow
def test_a_slow_task_and_its_speculative_copy_give_its_rows_once(done, workspace, sky):
    eager = {"spark.speculation": "true", "spark.speculation.interval": "100ms",
             "spark.speculation.multiplier": "1.1", "spark.speculation.quantile": "0.5"}  # fmt: skip
    with (
        Cluster(Plan(memory="1g")) as cluster,
        Run(workspace, sky[0], cluster.url, hold=brick_of_chunk(done, 0), conf=eager) as run,
    ):
        run.held()
        run.wait_for("again")
        run.go_on()  # both write now
        run.end()
    check(workspace, done)


def hanging(brick: str):
    """`stamps_of_bricks` on a machine where opening a brick's files never ends."""
    original = stamps.stamps_of_bricks

    def wrapper(task, index, attempt, coadds, experiment):
        from darkhaloscope.survey import plane

        read_units = plane.read_units

        def hang(path):
            if brick in str(path):
                time.sleep(3600)
            return read_units(path)

        plane.read_units = hang
        try:
            return original(task, index, attempt, coadds, experiment)
        finally:
            plane.read_units = read_units

    return wrapper


@pytest.mark.slow
def test_a_brick_whose_read_hangs_costs_its_own_rows(spark, done, workspace, monkeypatch):
    brick = brick_of_chunk(done, 0)
    monkeypatch.setattr(stamps, "stamps_of_bricks", hanging(brick))
    limits = dataclasses.replace(done[1].limits, brick_seconds=5.0)
    stamps.run(spark, dataclasses.replace(done[1], limits=limits), options(workspace))
    output, undisturbed = (rows_in_order(place(r, "phase4c", done[1])) for r in (workspace, done[0]))
    at, ok = COMPARED.index("brickname"), COMPARED.index("cutout_ok")
    lost = [r for r in output if r[at] == brick]
    assert lost and not any(r[ok] for r in lost) and all(r[-1] for r in lost)
    assert [r for r in output if r[at] != brick] == [r for r in undisturbed if r[at] != brick]
    reasons = committed_chunks(place(workspace, "phase4c", done[1]))[0]["reasons"]
    assert any("took more than 5 s" in reason for reason in reasons)
    assert gc(place(workspace, "phase4c", done[1])) == []
