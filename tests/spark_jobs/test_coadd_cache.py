"""Stage 4b over several runs: what is asked of a server that misbehaves, and what a stopped run leaves."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from stage_cases import options
from survey_testing import Server

from darkhaloscope.dataset import DatasetError, committed_chunks
from darkhaloscope.sections import Fetch
from darkhaloscope.stage import place
from darkhaloscope.storage import StorageError
from darkhaloscope.survey.cache import read_assets
from darkhaloscope.survey.coadds import file_path
from spark_jobs import coadd_cache
from spark_jobs.coadd_cache import share_out

pytestmark = pytest.mark.xdist_group("spark")
FAST = Fetch(attempts=1, timeout_s=2, bricks_per_chunk=3, ask_again_days=30)


@pytest.fixture
def run(spark, sky, done, tmp_path):
    """Run stage 4b on a server of the small sky; (function, server, root, names of the sky's bricks)."""
    root, experiment, _ = done
    server = Server(sky[0])
    layout = Path(place(str(tmp_path), "phase4a", experiment))
    layout.parent.mkdir(parents=True)
    layout.symlink_to(place(root, "phase4a", experiment))

    def once(**fetch):
        survey = dataclasses.replace(experiment.survey, source=server.url)
        config = dataclasses.replace(experiment, survey=survey, fetch=dataclasses.replace(FAST, **fetch))
        return coadd_cache.run(spark, config, options(tmp_path))["counts"]

    yield SimpleNamespace(
        once=once, server=server, root=tmp_path, output=place(str(tmp_path), "phase4b", experiment)
    )
    server.stop()


def whole_files(root):
    return sorted(p for p in Path(root, "coadd_cache", "coadd").rglob("*") if p.is_file())


def test_a_second_run_asks_only_for_what_failed_and_an_old_answer_is_asked_for_again(run, sky):
    first_file = f"/{file_path(sky[1]['good'][1], 'image', 'r')}"
    run.server.faults[first_file] = [503]
    before = run.once()
    assert before["failed"] >= 1 and before["missing"] >= 1 and before["cached"] > 3
    assert before["rows"] == before["visited"] and before["reasons"]["failed: HTTP 503"] == 1
    asked = Counter(run.server.requests)
    run.server.requests.clear()
    after = run.once()
    again = Counter(run.server.requests)
    assert (after["cached"], after["missing"]) == (before["cached"] + 1, before["missing"])
    assert after["visited"] == before["failed"] and again[first_file] == 1
    truncated = file_path(sky[1]["truncated"][0], "image", "r")
    assert {p for p in again if not p.endswith("sha256sum")} == {first_file, f"/{truncated}"} & asked.keys()
    assert after["rows"] == before["rows"] == len(read_assets(run.output))
    run.server.requests.clear()
    run.once(ask_again_days=0)
    missing = sky[1]["missing"][0]
    assert any(missing in path for path in run.server.requests), "told to, it asks again"


def test_the_connections_of_all_tasks_together_are_no_more_than_agreed(run):
    run.once(connections=2, bricks_per_chunk=64)
    assert run.server.connections <= 2
    assert len(run.server.requests) > 20


@pytest.mark.parametrize(
    ("connections", "tasks", "bricks"), [(8, 2, 64), (3, 8, 64), (8, 4, 2), (1, 4, 9), (7, 3, 9)]
)
def test_connections_are_divided_between_tasks(connections, tasks, bricks):
    names = [f"{i:08d}" for i in range(bricks)]
    made = share_out(names, connections, tasks)
    assert sum(t.connections for t in made) <= connections and all(t.connections >= 1 for t in made)
    assert sorted(b for t in made for b in t.bricks) == names and len(made) <= min(tasks, connections)


def test_a_server_that_is_out_of_order_ends_the_run_and_is_asked_again_by_the_next(run):
    run.server.faults[".fz"] = [503] * 10_000
    with pytest.raises(DatasetError, match=r"every one of the last 3 bricks failed.*HTTP 503.*tried again"):
        run.once()
    assert len(committed_chunks(run.output)) == 1, "what is known is kept"
    run.server.faults.clear()
    assert run.once()["cached"] > 3


def test_a_disk_that_fills_half_way_ends_the_run_and_loses_nothing(run, monkeypatch):
    free = iter([10**12, 0])
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=next(free)))
    with pytest.raises(StorageError, match="what is cached and committed stays"):
        run.once()
    cached = whole_files(run.root)
    assert cached and len(committed_chunks(run.output)) == 1
    monkeypatch.undo()
    run.server.requests.clear()
    run.once()
    names = {p.name for p in cached}
    assert not [path for path in run.server.requests if path.rsplit("/", 1)[1] in names], (
        "none is fetched again"
    )


SCRIPT = """
import sys
from darkhaloscope.experiment import Fetch
from darkhaloscope.survey.fetch import fetch_brick
from darkhaloscope.survey.transfer import Client
print(fetch_brick(sys.argv[1], sys.argv[2], sys.argv[3], client=Client(Fetch(timeout_s=30)))["status"])
"""


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_no_half_file_and_the_next_completes_with_the_same_bytes(sky, tmp_path, kill):
    brick, server = sky[1]["good"][0], Server(sky[0])
    server.faults["image-r.fits.fz"] = ["stall"]
    command = [sys.executable, "-c", SCRIPT, server.url, str(tmp_path / "coadd_cache"), brick]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ)
    )
    try:
        deadline = time.monotonic() + 60
        while server.faults["image-r.fits.fz"] and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(kill)
        assert process.wait(30) != 0
        before = whole_files(tmp_path)
        assert all(
            p.read_bytes() == (sky[0] / p.relative_to(tmp_path / "coadd_cache")).read_bytes() for p in before
        )
        assert 0 < len(before) < 10
        assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip() == "cached"
        after = whole_files(tmp_path)
        assert all(
            p.read_bytes() == (sky[0] / p.relative_to(tmp_path / "coadd_cache")).read_bytes() for p in after
        )
        assert len(after) == 10
    finally:
        process.kill()
        server.stop()
