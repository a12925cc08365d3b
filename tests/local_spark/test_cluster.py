"""The local cluster: what it starts, what it leaves, and a real stage on it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packing_cases import write_stamps

from darkhaloscope.dataset import committed_chunks
from darkhaloscope.experiment import load
from darkhaloscope.pack.packing import Layout
from darkhaloscope.stage import place, read_record
from local_spark.cluster import Cluster, ClusterError, Plan, parser, plan_of
from local_spark.steps import REPOSITORY, environment, spark

pytestmark = pytest.mark.xdist_group("spark")
EXPERIMENT = REPOSITORY / "experiments" / "smoke.toml"


def java_of(session: int) -> list[int]:
    """Processes of a session that are still alive."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def test_two_workers_on_this_machine_are_two_hosts_and_elsewhere_they_are_its_own_address():
    assert plan_of(parser().parse_args([])).workers == ("127.0.0.2", "127.0.0.3")
    far = plan_of(
        parser().parse_args(["--host", "10.0.0.5", "--join", "spark://10.0.0.4:7077", "--workers", "1"])
    )
    assert (far.workers, far.join) == (("10.0.0.5",), "spark://10.0.0.4:7077")
    assert "--join spark://FIRST:7077" in parser().format_help()
    assert all(a.help for a in parser()._actions)


def test_a_cluster_that_cannot_start_says_what_its_process_said():
    with (
        pytest.raises(ClusterError, match=r"master ended with status 1.*(?s:.*)"),
        Cluster(Plan(host="127.0.0.9", port=1)),
    ):
        pass


@pytest.mark.slow
def test_a_stage_on_the_cluster_runs_on_both_workers_and_nothing_is_left(tmp_path):
    experiment = load(EXPERIMENT)
    source = place(str(tmp_path), "phase4c", experiment)
    ids = write_stamps(source, [200] * 6, Layout("float32", 64), codec="none")
    Path(source, "_stage_config.json").write_text(json.dumps({"hash": "x", "state": "done"}))
    with Cluster(Plan(memory="1g")) as cluster:
        assert cluster.alive_workers() == ["127.0.0.2", "127.0.0.3"]
        script, *flags = spark("phase4_pipeline.py", "--stage", "pack", "--experiment", str(EXPERIMENT))
        command = [script, "--master", cluster.url, *flags, "--output-s3", str(tmp_path)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-3000:]
        sessions = [p.pid for p in cluster.processes.values()]
        ran = [sorted((cluster.folder / f"worker-{n}").glob("app-*/*/stderr")) for n in range(2)]
        assert all(ran), "each worker had an executor"
    output = place(str(tmp_path), "pack", experiment)
    assert read_record(output)["counts"]["rows"] == len(ids)
    assert committed_chunks(f"{output}/split=train")
    assert [java_of(s) for s in sessions] == [[], [], []]
    assert not cluster.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_how_to_submit_and_stops_everything_on_a_signal(number):
    command = [sys.executable, "-m", "local_spark.cluster", "--port", "0", "--ui-port", "0"]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, text=True)
    said = ""
    while "Ctrl-C" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    assert re.search(r"spark-submit --master spark://127\.0\.0\.1:\d+ spark_jobs", said)
    assert "127.0.0.2, 127.0.0.3" in said
    children = [int(c) for c in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(children) == 3
    os.kill(process.pid, number)
    assert process.wait(60) == 0
    time.sleep(0.2)
    assert [java_of(c) for c in children] == [[], [], []]
