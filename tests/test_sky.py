import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from darkhaloscope import sky


def test_separations_are_astropys_also_at_the_poles_and_across_ra_zero():
    rng = np.random.default_rng(1)
    ra = np.concatenate([rng.uniform(0, 360, 50), [0.0001, 359.9999, 10.0, 190.0]])
    dec = np.concatenate([rng.uniform(-90, 90, 50), [0.0, 0.0, 89.9999, 89.9999]])
    index, arcsec = sky.nearest(ra[:-2], dec[:-2], ra[-2:], dec[-2:])
    here, there = SkyCoord(ra, dec, unit="deg"), SkyCoord(ra[-2:], dec[-2:], unit="deg")
    expected = np.stack([here[:-2].separation(one).arcsec for one in there])
    assert (index == expected.argmin(axis=0)).all()
    np.testing.assert_allclose(arcsec, expected.min(axis=0), rtol=1e-6)
    assert sky.nearest([359.9999], [0.0], [0.0001], [0.0])[1] == pytest.approx(0.72, rel=1e-6)


def test_nothing_is_infinitely_far_from_an_empty_list():
    assert sky.nearest([1.0], [2.0], [], [])[1].tolist() == [np.inf]


def test_groups_link_positions_step_by_step():
    ra, dec = np.full(5, 150.0), np.array([0.0, 0.9, 1.8, 3.0, 0.9]) / 3600
    found = sky.groups(ra, dec, 1.0)
    assert found[0] == found[1] == found[2] == found[4] != found[3]
    assert len(sky.groups(ra[:0], dec[:0], 1.0)) == 0


def test_galactic_latitudes_are_astropys():
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    np.testing.assert_allclose(
        sky.galactic_latitude(ra, dec), SkyCoord(ra, dec, unit="deg").galactic.b.deg, atol=1e-4
    )
