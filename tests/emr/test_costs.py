"""The scale model's formulas, by cases that can be worked out by hand."""

import json
import math

import pytest

from emr import costs, scale_model
from emr.costs import Costs, Job
from emr.definitions import InstanceType, Prices

# A brick: 100 MB at 50 MB/s is 2 s, 1 s to open, 7 stamps of 1 s: 10 s.
COSTS = Costs(
    per_brick_s=1, per_stamp_s=1, bytes_per_stamp=1e6, bytes_per_brick=100e6, start_up_s=20, cluster_start_s=80,
    s3_bytes_per_s_core=50e6, commit_s=2, task_s=0.5, skew=3,
)  # fmt: skip
JOB = Job("by hand", bricks=80, stamps=560, bricks_per_chunk=40)
NODE = InstanceType("x", vcpus=4, memory_gib=16, ec2_usd_h=1.0, emr_usd_h=0.2)
PRICES = Prices("2020-01-01", "us-east-1", 0.5, 5.0, 0.4, 0.02, 0.1, 0.01)
FIGURES = {"per_brick_s": {"median": 0.5, "n": 3}, "per_stamp_s": 0.002, "bytes_per_stamp": 45e3,
           "bytes_per_brick": 80e6, "start_up_s": 15.0,
           "stamps": {"gzip_float32": {"stamps_per_s_core": 300.0}}}  # fmt: skip


def test_a_brick_is_its_transfer_its_opening_and_its_stamps():
    assert costs.brick_s(JOB, COSTS) == 10


@pytest.mark.parametrize(
    ("cores", "seconds", "limit"),
    [
        (4, 40 * 10 / 4 + 2 + 4 * 0.5, "cores"),
        (20, 30 + 2 + 20 * 0.5, "start-up"),  # the work would take 20 s, the largest brick takes 30
        (40, 30 + 2 + 40 * 0.5, "start-up"),
        (400, 30 + 2 + 40 * 0.5, "start-up"),  # more cores than bricks: no faster
    ],
)
def test_a_chunk_is_its_share_of_work_or_its_largest_brick(cores, seconds, limit):
    assert costs.chunk_s(JOB, COSTS, cores) == seconds
    assert costs.wall_s(JOB, COSTS, cores) == 80 + 20 + 2 * seconds
    assert costs.limit_of(JOB, COSTS, cores) == limit


@pytest.mark.parametrize(
    ("change", "cores", "limit"),
    [
        ({"cluster_start_s": 0, "start_up_s": 0, "commit_s": 0, "task_s": 0}, 4, "cores"),
        ({"cluster_start_s": 0, "start_up_s": 0, "commit_s": 0, "task_s": 0}, 100, "the largest brick of a chunk"),
        ({"cluster_start_s": 0, "start_up_s": 0, "commit_s": 0, "task_s": 0, "skew": 1}, 400,
         "bricks of a chunk fewer than cores"),
        ({"cluster_start_s": 0, "start_up_s": 0, "commit_s": 900}, 40, "the driver's commits"),
        ({"bytes_per_brick": 0, "per_brick_s": 1e-4, "per_stamp_s": 0, "commit_s": 0, "task_s": 0}, 10, "S3 requests"),
    ],
)  # fmt: skip
def test_what_stops_the_scaling_is_named(change, cores, limit):
    assert costs.limit_of(JOB, Costs(**{**vars(COSTS), **change}), cores) == limit


def test_an_estimate_adds_up():
    found = costs.estimate(JOB, COSTS, NODE, nodes=5, prices=PRICES)
    assert (found.cores, found.wall_s, found.core_s) == (20, 184, 800)
    assert found.efficiency == pytest.approx(800 / (20 * 184))
    assert (found.bytes_read, found.bytes_written, found.memory_gib) == (80 * 100e6, 560 * 1e6, 80)
    assert found.gets == 80 * 10  # 3 bands of image, invvar and psfsize, and maskbits
    assert (found.puts, found.files) == (40 + 6, 42)  # 20 parts a chunk, and 3 puts and 1 manifest
    assert found.gets_per_s == pytest.approx(800 / 84)
    nodes = 5 * (0.5 * 1.0 + 0.2) * 184 / 3600
    assert found.usd == pytest.approx(nodes + 0.8 * 0.4 + 0.046 * 5 + 0.56 * 0.02)
    dear = costs.estimate(JOB, COSTS, NODE, nodes=5, prices=PRICES, spot=False)
    assert dear.usd - found.usd == pytest.approx(5 * 0.5 * 184 / 3600)


def test_serverless_pays_vcpus_and_memory_and_no_cluster_start():
    seconds = 20 + 2 * 42
    found = costs.serverless_usd(JOB, COSTS, cores=20, gib_per_core=4, prices=PRICES)
    s3 = 0.8 * 0.4 + 0.046 * 5 + 0.56 * 0.02
    assert found == pytest.approx(20 * seconds / 3600 * (0.1 + 4 * 0.01) + s3)


def test_a_large_part_is_several_puts():
    job = Job("x", bricks=4, stamps=400, bricks_per_chunk=4)  # 4 parts of 100 MB: 2 pieces, begin and end
    assert costs.requests_of(job, COSTS, 4) == (40, 4 * 4 + 3, 5)


def test_bricks_of_an_area_and_those_that_hold_a_host():
    assert costs.bricks_of_area(14000) == 224000
    assert costs.occupied_bricks(1000, 10) == 10
    assert costs.occupied_bricks(1000, 1000) == round(1000 * (1 - math.exp(-1)))
    assert costs.occupied_bricks(1000, 10**6) == 1000


def test_more_cores_never_take_longer_while_the_driver_is_quick():
    quick = Costs(**{**vars(COSTS), "task_s": 0.0})
    times = [costs.wall_s(JOB, quick, c) for c in (1, 2, 4, 8, 16, 64, 256)]
    assert times == sorted(times, reverse=True)


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "stamps.json"
    versions = {"commit": "abc"}
    machine = {"cpu": "a core"}
    path.write_text(
        json.dumps({"date": "2020-01-01", "machine": machine, "versions": versions, "figures": FIGURES})
    )
    return path


def test_the_command_writes_a_page_with_every_preset(results, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        scale_model.main(["--results", str(results), "--out", str(out), "--bricks", "10", "--stamps", "100"])
        == 0
    )
    table = json.loads((out / "scale_model.json").read_text())["sections"]["What it takes"]["tables"]
    (rows,) = table.values()
    assert [r["job"] for r in rows] == [
        "your job", "11.75 M stamps", "whole DR10 footprint", "100 M stamps", "search of 43 M galaxies",
    ]  # fmt: skip
    assert all(r["hours"] > 0 and r["USD, spot"] > 0 for r in rows)
    page = (out / "index.html").read_text()
    assert "not checked against a price page" in page and page.count("data:image/png") == 5
    assert "11.75 M stamps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--bricks", "10"], ["--stamps", "10"], ["--bricks", "0", "--stamps", "1"]]
)
def test_half_a_job_is_refused(results, flags, capsys):
    with pytest.raises(SystemExit):
        scale_model.main(["--results", str(results), *flags])
    assert "--bricks" in capsys.readouterr().err


def test_without_a_measurement_it_says_which_benchmark_to_run(tmp_path, results, capsys):
    assert scale_model.main(["--results", str(tmp_path / "none.json")]) == 1
    assert "benchmarks/stamps.py" in capsys.readouterr().err
    text = results.read_text().replace("per_stamp_s", "other")
    results.write_text(text)
    assert scale_model.main(["--results", str(results)]) == 1
    assert "no figure 'per_stamp_s'" in capsys.readouterr().err
