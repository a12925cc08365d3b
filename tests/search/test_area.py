"""An area holds what it should, is as large as it is, and is refused where it is none."""

import astropy.units as u
import numpy as np
import pytest
from astropy_healpix import HEALPix

from darkhaloscope.search.area import AreaError, area_of, bricks_in, square_degrees, sweeps_in
from darkhaloscope.survey.bricks import (
    BrickTable,
    brick_at,
    brick_bounds,
    brick_centre,
    brick_name,
    names_at,
    parse_names,
)


@pytest.fixture(scope="module")
def bricks() -> BrickTable:
    """Every brick of two patches: around RA 0 at Dec 2, and at Dec -31."""
    ra, dec = (v.ravel() for v in np.meshgrid(np.r_[358:360:0.05, 0:2:0.05], np.r_[0.1:4:0.1]))
    far = (v.ravel() for v in np.meshgrid(np.r_[58:60:0.05], np.r_[-32:-30:0.1]))
    where = [np.concatenate(v) for v in zip((ra, dec), far, strict=True)]
    row, column = np.unique(np.stack(brick_at(*where), axis=1), axis=0).T
    centre = brick_centre(row, column)
    return BrickTable(
        {"brickname": brick_name(row, column), "ra": centre[0], "dec": centre[1]}, "bricks.fits"
    )


def test_boxes_cones_and_cells_hold_what_lies_in_them_across_ra_0():
    ra, dec = np.array([359.9, 0.1, 1.5, 0.0]), np.array([1.0, 1.0, 1.0, 3.0])
    assert area_of(box=(359.5, 0.5, 0, 2)).contains(ra, dec).tolist() == [True, True, False, False]
    assert area_of(cone=(0.0, 1.0, 0.2)).contains(ra, dec).tolist() == [True, True, False, False]
    cell = int(HEALPix(64, order="nested").lonlat_to_healpix([1.5] * u.deg, [1.0] * u.deg)[0])
    assert area_of(healpix=(64, cell)).contains(ra, dec).tolist() == [False, False, True, False]


def test_bricks_hold_what_the_grid_puts_into_them_borders_and_all(bricks):
    names = bricks.columns["brickname"][[0, 3, 40]]
    ra1, ra2, dec1, dec2 = brick_bounds(*parse_names(names))
    ra = np.concatenate([ra1, ra2, (ra1 + ra2) / 2, (ra1 + ra2) / 2])
    dec = np.concatenate([(dec1 + dec2) / 2, (dec1 + dec2) / 2, dec1, dec2])
    inside = area_of(bricks=names.tolist()).contains(ra, dec)
    assert inside.tolist() == np.isin(names_at(ra, dec), names).tolist() and 0 < inside.sum() < len(inside)


@pytest.mark.parametrize("area, size", [
    (dict(box=(359, 1, 1, 3)), 4 * np.cos(np.radians(2.0))),
    (dict(cone=(0.2, 2.0, 0.9)), np.pi * 0.9**2),
])  # fmt: skip
def test_the_size_of_an_area_is_that_of_the_sky_in_it(bricks, area, size):
    whole = np.ones(len(bricks), bool)
    assert square_degrees(area_of(**area), bricks, whole) == pytest.approx(size, rel=5e-3)


def test_bricks_with_bad_seeing_hold_no_targets_and_count_for_nothing(bricks):
    names = bricks.columns["brickname"][:2].tolist()
    area = area_of(bricks=names)
    both = square_degrees(area, bricks, np.ones(len(bricks), bool))
    one = square_degrees(area, bricks, bricks.columns["brickname"] != names[0])
    assert 0.4 * both < one < 0.6 * both


def test_an_area_touches_its_bricks_and_only_sweeps_that_can_hold_them(bricks):
    at = bricks_in(area_of(cone=(0.0, 2.0, 0.001)), bricks)
    assert bricks.columns["brickname"][at].tolist() == [str(bricks.names_at(0.0, 2.0)[0])]
    sweeps = [
        f"s/sweep-{n}.fits"
        for n in ("350p000-360p005", "000p000-010p005", "000m005-010p000", "350p005-360p010")
    ]
    chosen = bricks_in(area_of(box=(359.8, 0.2, 1, 2)), bricks)
    assert sweeps_in([*sweeps, "own.fits"], bricks, chosen) == [*sweeps[:2], "own.fits"]


@pytest.mark.parametrize("area, why", [
    ({}, "expected one area"),
    (dict(box=(1, 2, 3, 4), cone=(1, 2, 3)), "expected one area"),
    (dict(box=(10, 20, 5, 5)), "empty"),
    (dict(box=(10, 400, 0, 5)), "decimal degrees"),
    (dict(cone=(10, 95, 1)), "decimal degrees"),
    (dict(cone=(10, 5, 0)), "radius"),
    (dict(healpix=(65, 3)), "power of 2"),
    (dict(healpix=(64,)), "at least one cell"),
    (dict(healpix=(1, 12)), "0 to 11"),
    (dict(bricks=("nonsense",)), "nonsense"),
])  # fmt: skip
def test_what_is_no_area_is_refused_with_what_was_expected(area, why):
    with pytest.raises(AreaError, match=why):
        area_of(**area)


@pytest.mark.parametrize("area, why", [
    (dict(cone=(200.0, 80.0, 1.0)), "outside the footprint"),
    (dict(bricks=("2000p797",)), "outside the footprint"),
])  # fmt: skip
def test_an_area_outside_the_footprint_is_refused(bricks, area, why):
    with pytest.raises(AreaError, match=why):
        bricks_in(area_of(**area), bricks)
