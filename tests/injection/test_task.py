"""Tasks of equal cost, and what one does with bricks that hang or are far away."""

import dataclasses
import threading

import numpy as np
import pyarrow as pa
import pytest
from injection_cases import experiment, target_table
from survey_testing import Server, write_brick

from darkhaloscope.dataset import open_part, write_part
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.task import (
    TASK_COST,
    BrickRows,
    StampTask,
    imbalance,
    share_out,
    stamps_of_bricks,
)
from darkhaloscope.records import MANIFEST
from darkhaloscope.schema import to_batch
from darkhaloscope.survey.bricks import brick_bounds, brick_centre, parse_names
from darkhaloscope.survey.coadds import file_path
from darkhaloscope.survey.wcs import BRICK_PIXELS, TanWcs

BRICKS = ("0591m305", "0594m305")


def test_tasks_cost_the_same_within_a_few_per_cent():
    rng = np.random.default_rng(1)
    bricks = [BrickRows(f"b{i:04d}", int(n), ()) for i, n in enumerate(rng.lognormal(3.9, 0.8, 1024))]
    for n in (32, 100):
        tasks = share_out(bricks, n)
        dearest = max(b.cost for b in bricks) * n / sum(b.cost for b in bricks)  # a brick is not divided
        assert len(tasks) == n and imbalance(tasks) < max(1.03, dearest * (1 + 1e-9))
        assert sorted(b.name for t in tasks for b in t) == [b.name for b in bricks]
    many_small = [BrickRows("large", 1000, ())] + [BrickRows(f"s{i}", 10, ()) for i in range(100)]
    load = [(sum(b.rows for b in t), len(t)) for t in share_out(many_small, 4)]
    assert max(load)[1] < min(load)[1], "a brick costs something beside its rows"
    assert len(share_out(bricks[:3], 16)) == 3 and share_out([], 4) == []
    dear = share_out(bricks, 1)
    assert len(dear) > 20 and sum(b.cost for b in bricks) / len(dear) <= TASK_COST


def test_no_primary_host_is_nearer_to_its_coadds_edge_than_half_a_stamp():
    """So no stamp of the survey (dec -85 to 85) needs a neighbour's pixels: they would be resampled ones."""
    nearest = np.inf
    for row in range(20, 701):
        ra1, ra2, dec1, dec2 = (float(v[0]) for v in brick_bounds(np.array([row]), np.array([0])))
        t = np.linspace(0, 1, 9)
        ra = np.concatenate([ra1 + (ra2 - ra1) * t] * 2 + [np.full(9, ra1), np.full(9, ra2)])
        dec = np.concatenate([np.full(9, dec1), np.full(9, dec2)] + [dec1 + (dec2 - dec1) * t] * 2)
        (ra0,), (dec0,) = brick_centre(np.array([row]), np.array([0]))
        x, y = TanWcs.of_brick(ra0, dec0).sky_to_pixel(ra, dec)
        nearest = min(nearest, *(min(v.min() + 0.5, BRICK_PIXELS - 0.5 - v.max()) for v in (x, y)))
    assert 62 < nearest < 64


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """(sky, manifest rows by brick) of two small bricks."""
    base, rows = tmp_path_factory.mktemp("task"), []
    for number, name in enumerate(BRICKS):
        write_brick(base / "sky", name, seed=number)
        ra, dec = (np.repeat(v, 4) for v in brick_centre(*parse_names([name])))
        hosts = target_table(4, 1 + 4 * number, ra=ra, dec=dec + np.arange(4) * 1e-3, brickname=[name] * 4)
        made = lay_out_injections(hosts, experiment())
        batch = to_batch(MANIFEST, {n: made.column(n) for n in MANIFEST.names})
        part = write_part(str(base), 0, number, [batch], MANIFEST.arrow())
        rows.append(BrickRows(name, batch.num_rows, (f"{base}/{part.key}",)))
    return base / "sky", tuple(rows)


def made(bricks, sky, output, **limits):
    how = experiment()
    how = dataclasses.replace(how, limits=dataclasses.replace(how.limits, **limits))
    result = stamps_of_bricks(StampTask(bricks, str(output), 0), 0, 0, str(sky), how)
    with open_part(f"{output}/{result.part.key}") as part:
        return result, part.read()


def test_a_remote_brick_gives_the_bytes_of_a_local_one_and_leaves_no_copies(work, tmp_path, monkeypatch):
    sky, bricks = work
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("LOCAL_DIRS", str(scratch))
    _, local = made(bricks, sky, tmp_path / "local")
    server = Server(sky)
    try:
        result, remote = made(bricks, server.url, tmp_path / "remote")
    finally:
        server.stop()
    assert result.ok == sum(b.rows for b in bricks) and remote.equals(local)
    assert not list(scratch.iterdir())


def test_a_brick_whose_read_hangs_costs_its_own_rows(work, tmp_path, monkeypatch):
    sky, bricks = work
    hanging, gate = tmp_path / "sky", threading.Event()
    hanging.symlink_to(sky)
    from darkhaloscope.survey import plane

    check = plane.read_units

    def hang(path):
        if file_path(BRICKS[0], "invvar", "g") in str(path):
            gate.wait()
        return check(path)

    monkeypatch.setattr(plane, "read_units", hang)
    result, table = made(bricks, hanging, tmp_path / "out", brick_seconds=3.0)
    gate.set()
    ok = {
        name: table.filter(pa.compute.field("brickname") == name)["cutout_ok"].to_pylist() for name in BRICKS
    }
    assert ok == {BRICKS[0]: [0] * bricks[0].rows, BRICKS[1]: [1] * bricks[1].rows}
    ((name, rows, error, reason),) = result.failures
    assert (name, rows, error) == (
        BRICKS[0],
        bricks[0].rows,
        "BrickTooSlow",
    ) and "took more than 3 s" in reason
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["chunk=00000"]


def test_float16_stamps_are_the_float32_ones_rounded_and_too_large_a_pixel_fails_its_row(work, tmp_path):
    sky, bricks = work
    _, whole = made(bricks[:1], sky, tmp_path / "whole")
    how = experiment(stamps={"dtype": "float16", "codec": "zstd"})
    result = stamps_of_bricks(StampTask(bricks[:1], str(tmp_path / "half"), 0), 0, 0, str(sky), how)
    with open_part(f"{tmp_path}/half/{result.part.key}") as part:
        half = part.read()
    assert half.schema.metadata[b"stamp_dtype"] == b"float16"
    for a, b in zip(whole["stamp"].to_pylist(), half["stamp"].to_pylist(), strict=True):
        assert np.frombuffer(a, "<f4").astype("<f2").tobytes() == b
    assert half.drop_columns("stamp").equals(whole.drop_columns("stamp"))
