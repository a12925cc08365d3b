import dataclasses

import astropy.units as u
import numpy as np
import pytest
from astropy_healpix import HEALPix
from scipy.spatial import cKDTree

from darkhaloscope.sections import Splits
from darkhaloscope.sky import unit_vectors
from darkhaloscope.survey import bricks
from darkhaloscope.survey.splits import assign_splits, cell_split, connected_regions, region_splits, sky_cell

HALF = Splits(train=0.5, val=0.25, test=0.25)


def _sky(n, seed, dec=90.0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n) * np.sin(np.radians(dec))))


def _near_borders(n, spread_arcsec, seed):
    """Positions scattered about points of cells' borders (corners among them), poles included."""
    rng = np.random.default_rng(seed)
    grid = HEALPix(nside=64, order="nested")
    cells = rng.integers(0, grid.npix, n)
    along = rng.uniform(0, 1, n) ** 4 * 0.5
    dx, dy = np.where(rng.random(n) < 0.5, 0.0, 1.0), np.where(rng.random(n) < 0.5, along, 1 - along)
    swap = rng.random(n) < 0.5
    lon, lat = grid.healpix_to_lonlat(cells, np.where(swap, dy, dx), np.where(swap, dx, dy))
    dec = lat.to_value(u.deg)
    step = rng.normal(0, spread_arcsec / 3600, (2, n))
    ra = lon.to_value(u.deg) + step[0] / np.maximum(np.cos(np.radians(dec)), 1e-3)
    return ra, np.clip(dec + step[1], -90, 90)


def test_cells_are_healpix_nside_64_nested():
    ra, dec = _sky(2000, 1)
    expected = HEALPix(nside=64, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg)
    cell, _ = assign_splits(ra, dec, HALF, 1)
    assert np.array_equal(cell, expected) and np.array_equal(sky_cell(ra - 360, dec), expected)


def test_a_cell_is_in_one_split_and_fractions_are_as_asked():
    cell = np.arange(49152)
    split = cell_split(cell, HALF, 42)
    shares = [np.mean(split == name) for name in ("train", "val", "test")]
    assert np.allclose(shares, (0.5, 0.25, 0.25), atol=0.01)
    assert np.array_equal(cell_split(cell[::-1], HALF, 42)[::-1], split), "a function of the cell alone"
    assert np.mean(cell_split(cell, HALF, 43) != split) > 0.5, "another seed, another division"
    ra, dec = _sky(20_000, 2)
    cell, split = assign_splits(ra, dec, HALF, 42)
    inside = split != "guard"
    assert np.array_equal(split[inside], cell_split(cell, HALF, 42)[inside])
    assert np.mean(~inside) < 0.03


def test_the_division_of_the_sky_never_changes():
    golden = "train train val val val train val train train val test train train val train train"
    assert " ".join(cell_split(np.arange(16), Splits(), 42)) == golden


def test_no_two_galaxies_of_different_splits_are_within_the_guard():
    for seed, spread in ((3, 10.0), (4, 4.0)):
        ra, dec = _near_borders(40_000, spread, seed)
        # a partner at up to the guard from each, so that close pairs across borders abound
        rng = np.random.default_rng(seed)
        angle, radius = rng.uniform(0, 2 * np.pi, len(ra)), 9.99 / 3600 * rng.uniform(0.5, 1, len(ra))
        ra2 = ra + radius * np.sin(angle) / np.maximum(np.cos(np.radians(dec)), 1e-3)
        dec2 = np.clip(dec + radius * np.cos(angle), -90, 90)
        split, split2 = (assign_splits(r, d, HALF, 42)[1] for r, d in ((ra, dec), (ra2, dec2)))
        close = np.linalg.norm(unit_vectors(ra, dec) - unit_vectors(ra2, dec2), axis=1) < np.radians(
            10 / 3600
        )
        kept = close & (split != "guard") & (split2 != "guard")
        assert np.count_nonzero(kept) > 8_000 and (split[kept] == split2[kept]).all()
        off = Splits(train=0.5, val=0.25, test=0.25, guard_arcsec=0)
        without = assign_splits(ra, dec, off, 42)[1] != assign_splits(ra2, dec2, off, 42)[1]
        assert np.count_nonzero(without & close) > 1_300, "pairs that the guard must break are there"


def test_the_guard_takes_only_what_lies_near_another_split():
    ra, dec = _near_borders(4000, 15.0, 5)
    cell, split = assign_splits(ra, dec, HALF, 42)
    turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)  # the 16 directions of the guard among them
    reach = np.zeros(len(ra), dtype=bool)
    own = cell_split(cell, HALF, 42)
    for radius in (5.0, 10.2):
        for t in turns:
            step = np.radians(radius / 3600)
            unit = unit_vectors(ra, dec)
            east = np.stack([-np.sin(np.radians(ra)), np.cos(np.radians(ra)), 0 * ra], axis=-1)
            north = np.cross(unit, east)
            at = unit + step * (np.sin(t) * east + np.cos(t) * north)
            at /= np.linalg.norm(at, axis=1, keepdims=True)
            other = sky_cell(np.degrees(np.arctan2(at[:, 1], at[:, 0])), np.degrees(np.arcsin(at[:, 2])))
            reach |= cell_split(other, HALF, 42) != own
    assert not (split == "guard")[~reach].any()
    assert np.mean((split == "guard")[reach]) > 0.97


def test_no_galaxies_no_splits():
    cell, split = assign_splits(np.empty(0), np.empty(0), HALF, 1)
    assert len(cell) == len(split) == 0


def _names(row_column):
    row, column = np.array(row_column).T
    return bricks.brick_name(row, column)


def test_bricks_that_touch_are_one_region_across_ra_0_and_rows():
    last = int(bricks.brick_id(361, 0) - bricks.brick_id(360, 0)) - 1
    chain = _names([(360, 0), (360, last), (361, 1), (362, 2)])
    island = _names([(360, 10), (364, 2), (361, 700)])
    region = connected_regions(np.concatenate([chain, island]))
    assert len(set(region[:4])) == 1 and len(set(region)) == 4


def test_regions_equal_a_brute_force_search():
    rng = np.random.default_rng(6)
    row, column = rng.integers(500, 520, 150), rng.integers(0, 25, 150)
    names = np.unique(bricks.brick_name(row, column))
    row, column = bricks.parse_names(names)
    a1, a2, d1, d2 = bricks.brick_bounds(row, column)
    touch = (a1[:, None] <= a2 + 1e-9) & (a1 <= a2[:, None] + 1e-9)
    touch &= (d1[:, None] <= d2) & (d1 <= d2[:, None])
    for _ in range(8):
        touch = touch @ touch
    region = connected_regions(names)
    assert np.array_equal(region[:, None] == region, touch) and 5 < len(set(region)) < len(names)


def test_a_region_is_in_one_split_and_bricks_of_two_splits_never_touch():
    rng = np.random.default_rng(7)
    names = np.unique(bricks.brick_name(rng.integers(330, 390, 2000), rng.integers(0, 200, 2000)))
    parts = region_splits(names, HALF, 42)
    region = connected_regions(names)
    split = np.array([parts[n] for n in names])
    assert all(len(set(split[region == r])) == 1 for r in set(region))
    assert np.mean(split == "train") == pytest.approx(0.5, abs=0.1)
    centres = unit_vectors(*bricks.brick_centre(*bricks.parse_names(names)))
    pairs = cKDTree(centres).query_pairs(np.radians(0.26), output_type="ndarray")
    assert (split[pairs[:, 0]] == split[pairs[:, 1]]).all() and len(pairs)
    assert region_splits(names[::-1], HALF, 42) == parts
    assert (
        region_splits(names, dataclasses.replace(HALF, train=0.0, val=0.0, test=1.0), 42).keys()
        == parts.keys()
    )


def test_an_empty_part_of_the_sky_has_no_region():
    assert region_splits([], HALF, 42) == {}
