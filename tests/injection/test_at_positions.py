"""Stamps at positions: the coadd's own pixels, and a reason wherever there are none."""

import csv

import fitsio
import numpy as np
import pytest
from injection_cases import experiment
from survey_testing import SCALE, SIDE, Server, write_brick

from darkhaloscope.injection.at_positions import GIVE_UP_AFTER, stamps_at
from darkhaloscope.sections import Fetch
from darkhaloscope.survey.bricks import BrickTable, brick_centre, parse_names
from darkhaloscope.survey.coadds import file_path
from darkhaloscope.survey.positions import read_positions
from darkhaloscope.survey.transfer import Client

BRICKS = ("0591m305", "0594m305", "0597m305", "0600m305", "0603m305")  # the last two have no coadds


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    base = tmp_path_factory.mktemp("at") / "sky"
    for number, name in enumerate(BRICKS[:3]):
        write_brick(base, name, seed=number)
    return base


@pytest.fixture(scope="module")
def bricks() -> BrickTable:
    ra, dec = brick_centre(*parse_names(BRICKS))
    facts = {"ebv": 0.03, **{f"{k}_{b}": v for k, v in (("psfsize", 1.3), ("psfdepth", 24.5)) for b in "grz"}}
    columns = {k: np.full(len(BRICKS), v) for k, v in facts.items()}
    return BrickTable({"brickname": np.array(BRICKS), "ra": ra, "dec": dec, **columns})


def positions_of(tmp_path, rows):
    path = tmp_path / "positions.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ("name", "ra", "dec", "type"))
        writer.writeheader()
        writer.writerows(rows)
    return read_positions(str(path))


def at(brick, dx=0.0, dy=0.0, name="", type="lens"):
    """A position dx, dy pixels east and north of a brick's centre."""
    ra, dec = (float(v[0]) for v in brick_centre(*parse_names([brick])))
    return {
        "name": name,
        "ra": ra + dx * SCALE / np.cos(np.radians(dec)),
        "dec": dec + dy * SCALE,
        "type": type,
    }


def test_every_position_is_a_stamp_of_the_coadds_pixels_or_refused_with_its_reason(tmp_path, sky, bricks):
    rows = [
        at(BRICKS[1], 20.2, -10.3, "second brick"),
        at(BRICKS[0], name="first brick", type="ring"),
        at(BRICKS[1], 20.2, -10.3, "again"),
        {"name": "north", "ra": 200.0, "dec": 80.0, "type": "lens"},
        at(BRICKS[3], name="no coadd"),
        at(BRICKS[2], 400, 0, "beyond the small coadd"),
        {"name": "nowhere", "ra": "", "dec": 1.0, "type": "lens"},
    ]
    found = stamps_at(positions_of(tmp_path, rows), bricks, str(sky), experiment())
    assert found.row.tolist() == [0, 1]
    assert found.stamps.column("object_name").to_pylist() == ["second brick", "first brick"]
    assert found.stamps.column("label").to_pylist() == [1, 0]
    expected = (
        "",
        "",
        "duplicate",
        "outside the footprint",
        "no image or invvar",
        "outside brick",
        "not on the sky",
    )
    for reason, wanted in zip(found.refused.tolist(), expected, strict=True):
        assert wanted in reason and bool(wanted) == bool(reason)
    x, y = SIDE // 2 - 0.5 - 20.2, SIDE // 2 - 0.5 - 10.3  # RA runs to the left
    x0, y0 = (int(np.floor(v + 0.5)) - 32 for v in (x, y))
    plane = fitsio.read(str(sky / file_path(BRICKS[1], "image", "r")), ext=1)[y0 : y0 + 64, x0 : x0 + 64]
    stamp = np.frombuffer(found.stamps.column("stamp")[0].as_py(), "<f4").reshape(3, 64, 64)
    np.testing.assert_array_equal(stamp[1], plane)
    assert found.stamps.column("host_x")[0].as_py() == pytest.approx(x - x0, abs=0.02)
    assert found.stamps.schema.metadata[b"stamp_shape"] == b"3,64,64"


def test_a_position_near_the_border_of_a_split_is_not_refused(tmp_path, sky, bricks):
    whole_sky = experiment(splits={"guard_arcsec": 3600.0})
    found = stamps_at(positions_of(tmp_path, [at(BRICKS[0])]), bricks, str(sky), whole_sky)
    assert not found.refused[0] and found.stamps.column("region_split")[0].as_py() in ("train", "val", "test")


def test_no_position_is_a_table_of_no_stamps(tmp_path, sky, bricks):
    found = stamps_at(positions_of(tmp_path, [at(BRICKS[3])]), bricks, str(sky), experiment())
    assert found.stamps.num_rows == 0 and found.refused[0]


def test_what_a_server_gave_is_read_from_the_cache_when_it_is_down(tmp_path, sky, bricks):
    rows = [at(b, name=b) for b in BRICKS[:2]]
    positions, cache = positions_of(tmp_path, rows), str(tmp_path / "cache")
    server = Server(sky)
    try:
        there = stamps_at(positions, bricks, server.url, experiment(), cache)
    finally:
        server.stop()
    assert not there.refused.any()
    expected = repr(there.stamps.to_pylist())  # a repr, since NaN is not NaN
    assert repr(stamps_at(positions, bricks, cache, experiment()).stamps.to_pylist()) == expected
    again = stamps_at(positions, bricks, server.url, experiment(), cache)
    assert repr(again.stamps.to_pylist()) == expected, "whole files are not asked for"


def test_a_server_that_is_down_is_left_alone_after_a_few_bricks(tmp_path, sky, bricks):
    server = Server(sky)
    server.stop()
    waits = []
    client = Client(Fetch(attempts=2, timeout_s=1.0), sleep=waits.append)
    positions = positions_of(tmp_path, [at(b) for b in BRICKS])
    found = stamps_at(positions, bricks, server.url, experiment(), str(tmp_path / "cache"), client=client)
    assert found.stamps.num_rows == 0 and found.refused.all()
    assert ["not asked for" in r for r in found.refused] == [False] * GIVE_UP_AFTER + [True, True]
    assert "refused" in found.refused[-1] and len(waits) <= GIVE_UP_AFTER * 12
