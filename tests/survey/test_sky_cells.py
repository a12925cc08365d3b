"""Cells of the sky are HEALPix's: the numpy formula against astropy-healpix."""

import astropy.units as u
import numpy as np
import pytest
from astropy_healpix import HEALPix

from darkhaloscope.survey.splits import _located, sky_cell


@pytest.mark.parametrize("nside", [1, 64, 1 << 20])
def test_cells_and_places_in_them_are_those_of_astropy_healpix(nside):
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(-360, 720, 20_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    ra, dec = np.append(ra, [0.0, 90.0, 180.0, 360.0]), np.append(dec, [90.0, -90.0, 0.0, 0.0])
    grid = HEALPix(nside=nside, order="nested")
    cell, dx, dy = grid.lonlat_to_healpix(ra % 360 * u.deg, dec * u.deg, return_offsets=True)
    assert (sky_cell(ra, dec, nside) == cell).all()
    _, x, y = _located(ra[:-4], dec[:-4], nside)
    np.testing.assert_allclose([x, y], [dx[:-4], dy[:-4]], atol=1e-8)
