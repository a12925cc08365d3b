"""A standalone Spark cluster from the installed pyspark: python -m local_spark.cluster (or `make local-cluster`).

Starts a master and two workers on 127.0.0.2 and 127.0.0.3 (two hosts to Spark, so that speculation and lost executors
can be tried on one machine), waits until both are registered, prints the master's URL and how to submit to it, and
stops everything on Ctrl-C or SIGTERM.

Several machines: on the first  python -m local_spark.cluster --host ITS_ADDRESS
                  on others     python -m local_spark.cluster --host THEIR_ADDRESS --join spark://FIRST:7077
Each needs this repository and its .venv at the same path, and must see the same data (a shared folder or S3).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkhaloscope.errors import Explained
from local_spark.steps import environment, spark_home

LOOPBACK = "127.0.0.1"
LOOPBACK_WORKERS = ("127.0.0.2", "127.0.0.3")
PORT, UI_PORT = 7077, 8080
WAIT_S = 120.0
STOP_S = 15.0


class ClusterError(Explained, RuntimeError):
    """A cluster that did not come up, or lost a process; the message has the end of that process's log."""


@dataclass(frozen=True)
class Plan:
    """What to start.

    Attributes:
        host: address of the master, which other machines must reach.
        workers: address of each worker to start here.
        cores: of a worker.
        memory: of a worker, as Spark writes it (2g).
        port: of the master; 0: a free one.
        ui_port: of the master's page; 0: a free one.
        join: URL of a master that runs elsewhere; none is started here.
    """

    host: str = LOOPBACK
    workers: tuple[str, ...] = LOOPBACK_WORKERS
    cores: int = 1
    memory: str = "2g"
    port: int = 0
    ui_port: int = 0
    join: str = ""


class Cluster:
    """A running cluster, as a context manager.

    Attributes:
        url: of the master, for `spark-submit --master`.
        processes: name -> the Java process of the master and of each worker.
        folder: logs and work folders of the processes; removed at the end.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.url = plan.join or f"spark://{plan.host}:{plan.port or free_port(plan.host)}"
        self.ui = f"http://{plan.host}:{plan.ui_port or free_port(plan.host)}"
        self.processes: dict[str, subprocess.Popen] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="local-cluster-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)

    def __enter__(self) -> Cluster:
        try:
            if not self.plan.join:
                port, ui_port = self.url.rsplit(":", 1)[1], self.ui.rsplit(":", 1)[1]
                flags = ("--host", self.plan.host, "--port", port, "--webui-port", ui_port)
                self._start("master", "org.apache.spark.deploy.master.Master", self.plan.host, *flags)
                self._wait("the master's page", lambda: self.state() is not None)
            for number, host in enumerate(self.plan.workers):
                self._start_worker(f"worker-{number}", host)
            if not self.plan.join:
                expected = len(self.plan.workers)
                self._wait(f"{expected} workers", lambda: len(self.alive_workers()) >= expected)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def state(self) -> dict[str, Any] | None:
        """Return what the master says of itself (workers, applications), or None while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.ui}/json/", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def alive_workers(self) -> list[str]:
        """Return the addresses of the workers that are registered and alive."""
        workers = (self.state() or {}).get("workers", [])
        return sorted(w["host"] for w in workers if w["state"] == "ALIVE")

    def check(self) -> None:
        """Raise `ClusterError` when a process of the cluster has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                log = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
                said = "\n".join(log[-15:])
                raise ClusterError(f"{name} ended with status {process.returncode}; its log ends:\n{said}")

    def stop(self) -> None:
        """Stop workers (which stop their executors), then the master; kill what does not stop."""
        for process in reversed(self.processes.values()):
            process.terminate()
        until = time.monotonic() + STOP_S
        for process in reversed(self.processes.values()):
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _kill_group(process.pid)
        self.processes.clear()
        self._folder.cleanup()

    def _start_worker(self, name: str, host: str) -> None:
        work = self.folder / name
        flags = ("--host", host, "--webui-port", "0", "--cores", str(self.plan.cores))
        flags += ("--memory", self.plan.memory, "--work-dir", str(work), self.url)
        self._start(name, "org.apache.spark.deploy.worker.Worker", host, *flags)

    def _start(self, name: str, java_class: str, host: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [str(spark_home() / "bin" / "spark-class"), java_class, *flags],
                env=environment() | {"SPARK_LOCAL_IP": host, "SPARK_LOCAL_DIRS": str(self.folder),
                                     "SPARK_DAEMON_MEMORY": "512m"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone: we stop them, in order
            )  # fmt: skip

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_S
        while not ready():
            self.check()
            if time.monotonic() > until:
                raise ClusterError(f"{what} not there after {WAIT_S:.0f} s; logs are in {self.folder}")
            time.sleep(0.2)


def _kill_group(group: int) -> None:
    """Kill what is left of a worker's process group: executors that outlived it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def free_port(host: str) -> int:
    """Return a port of `host` that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def plan_of(args: argparse.Namespace) -> Plan:
    """Return what the flags ask for: on this machine's loopback two hosts, else workers on --host."""
    on_loopback = args.host == LOOPBACK and not args.join
    hosts = [LOOPBACK_WORKERS[i] if on_loopback and i < len(LOOPBACK_WORKERS) else args.host
             for i in range(args.workers)]  # fmt: skip
    return Plan(args.host, tuple(hosts), args.cores, args.memory, args.port, args.ui_port, args.join)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        "python -m local_spark.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--host", default=LOOPBACK, help="address of this machine (default: %(default)s)")
    made.add_argument("--workers", type=int, default=2, help="workers to start here (default: %(default)s)")
    made.add_argument("--cores", type=int, default=1, help="cores of a worker (default: %(default)s)")
    made.add_argument("--memory", default="2g", help="memory of a worker (default: %(default)s)")
    made.add_argument("--port", type=int, default=PORT, help="of the master (default: %(default)s; 0: any)")
    made.add_argument(
        "--ui-port", type=int, default=UI_PORT, help="of the master's page (default: %(default)s; 0: any)"
    )
    made.add_argument("--join", default="", metavar="URL", help="start workers only, for the master there")
    return made


def main(argv: list[str] | None = None) -> int:
    """Start a cluster, say how to use it, wait for Ctrl-C or SIGTERM; return the exit status."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Cluster(plan_of(parser().parse_args(argv))) as cluster:
            joined = ", ".join(cluster.plan.workers if cluster.plan.join else cluster.alive_workers())
            page = "" if cluster.plan.join else f"\npage     {cluster.ui}"
            print(
                f"master   {cluster.url}{page}\nworkers  {joined}: {cluster.plan.cores} cores, "
                f"{cluster.plan.memory} each\nsubmit   spark-submit --master {cluster.url} "
                "spark_jobs/phase4_pipeline.py --stage 4c\nCtrl-C stops it",
                flush=True,
            )
            while not stop.wait(2.0):
                cluster.check()
    except Explained as error:
        print(f"local-cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
