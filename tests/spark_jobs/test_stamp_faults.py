"""Stage 4c when things die: every row once, the bytes of an undisturbed run, no orphan left.

The stage runs in a process of its own (`stamp_run.py`), on workspaces whose stages before it have run once.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_stages import experiment_of, options, stamps_by_id

from darkhaloscope.dataset import committed_chunks, committed_parts, gc, open_part
from darkhaloscope.stage import OWNER_NAME, place
from local_spark.steps import _environment
from spark_jobs import coadd_cache, manifest, stamps, targets

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.xdist_group("spark"), pytest.mark.slow]
WAIT_S = 240


@pytest.fixture(scope="module")
def ready(spark, sky, tmp_path_factory):
    """(experiment, root whose 4c has run undisturbed, its rows): what disturbed runs are compared with."""
    root, experiment = tmp_path_factory.mktemp("undisturbed"), experiment_of(sky[0])
    for stage in (targets, manifest, coadd_cache, stamps):
        stage.run(spark, experiment, options(root))
    return experiment, str(root), stamps_by_id(place(str(root), "phase4c", experiment))


@pytest.fixture
def workspace(ready, tmp_path):
    """A root with the same manifest and coadds, on which 4c has not run."""
    root = ready[1]
    for stage in ("phase4a", "phase4b", "coadd_cache"):
        (tmp_path / stage).symlink_to(f"{root}/{stage}")
    return str(tmp_path)


class Run:
    """A run of 4c in a process of its own; `hold` names a brick at which its task waits for a file to go."""

    def __init__(self, root, sky, master="local[2]", hold="", conf=None):
        self.hold = Path(root, "hold")
        if hold:
            self.hold.write_text(hold)
        facts = {"root": root, "sky": str(sky), "master": master, "hold": str(self.hold), "conf": conf or {}}
        command = [sys.executable, str(HERE / "stamp_run.py"), json.dumps(facts)]
        path = os.pathsep.join([str(HERE), str(HERE.parent / "survey"), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command,
            env=_environment() | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def held(self) -> int:
        """Wait until the task waits at its brick; return the process id of its Python worker."""
        seen = self.hold.with_suffix(".pid")
        wait_for(lambda: seen.exists() or self.process.poll() is not None)
        assert seen.exists(), self.process.communicate()[0][-3000:]
        return int(seen.read_text())

    def go_on(self) -> None:
        self.hold.unlink()

    def end(self) -> str:
        """Wait for the end; return what it said."""
        said = self.process.communicate(timeout=WAIT_S)[0]
        assert self.process.returncode == 0, said[-3000:]
        return said

    def kill(self) -> None:
        """Kill the driver, as a machine that dies does; its JVM and workers end with it."""
        self.process.kill()
        self.process.communicate()


def wait_for(true, seconds=WAIT_S) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def forget_owner(output: str) -> None:
    """As if the dead driver's heartbeat had expired."""
    Path(output, OWNER_NAME).unlink(missing_ok=True)


def check(root, ready) -> None:
    """Every row once, the undisturbed bytes, and nothing on disk that no manifest names."""
    experiment, _, undisturbed = ready
    output = place(root, "phase4c", experiment)
    assert stamps_by_id(output) == undisturbed
    gc(output)
    on_disk = {
        str(f.relative_to(output)) for f in Path(output).glob("chunk=*/*") if f.name != "_manifest.json"
    }
    assert on_disk == {p.key for p in committed_parts(output)}


def bricks_of_chunk(ready, number: int) -> list[str]:
    """The bricks of a chunk of the undisturbed run, sorted."""
    experiment, root, _ = ready
    output = place(root, "phase4c", experiment)
    keys = [p["key"] for p in committed_chunks(output)[number]["parts"]]
    names: set[str] = set()
    for key in keys:
        with open_part(f"{output}/{key}") as part:
            names |= set(part.read(columns=["brickname"]).column(0).to_pylist())
    return sorted(names)


def test_a_driver_killed_in_a_chunk_leaves_the_chunks_before_it_and_a_second_run_makes_the_rest(
    ready, workspace, sky
):
    experiment = ready[0]
    output = place(workspace, "phase4c", experiment)
    second = bricks_of_chunk(ready, 1)[0]
    run = Run(workspace, sky[0], hold=second)
    run.held()
    run.kill()
    assert set(committed_chunks(output)) == {0}
    first = {p.key for p in committed_parts(output)}
    (Path(workspace) / "hold").unlink()
    forget_owner(output)
    Run(workspace, sky[0]).end()
    assert first < {p.key for p in committed_parts(output)}, "a committed chunk was made again"
    check(workspace, ready)


def test_a_python_worker_that_is_killed_costs_nothing(ready, workspace, sky):
    brick = bricks_of_chunk(ready, 0)[0]
    run = Run(workspace, sky[0], master="local[2,4]", hold=brick)
    worker = run.held()
    run.go_on()
    os.kill(worker, signal.SIGKILL)
    run.end()
    check(workspace, ready)


def test_an_executor_that_is_killed_costs_nothing(ready, workspace, sky):
    brick = bricks_of_chunk(ready, 0)[0]
    run = Run(workspace, sky[0], master="local-cluster[2,1,1024]", hold=brick)
    worker = run.held()
    executor = parent_named(worker, "java")
    run.go_on()
    os.kill(executor, signal.SIGKILL)
    run.end()
    check(workspace, ready)


def parent_named(pid: int, name: str) -> int:
    """The nearest ancestor of a process that runs a program of that name."""
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        assert pid > 1
    return pid
