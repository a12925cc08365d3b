"""Names, cells and links belong to the position."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy_healpix import HEALPix

from darkhaloscope.search.names import designations, healpix_29, viewer_urls


def test_a_designation_is_the_truncated_position():
    assert designations(np.array([0.0, 150.25, 359.9999999]), np.array([-0.00001, 2.5, -89.99999])) == [
        "DHS J000000.00-000000.0", "DHS J100100.00+023000.0", "DHS J235959.99-895959.9",
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    for name, a, d in zip(designations(ra, dec), ra, dec, strict=True):
        back = SkyCoord(name[5:7] + " " + name[7:9] + " " + name[9:14] + " " + name[14:17] + " " + name[17:19] + " "
                        + name[19:], unit=(u.hourangle, u.deg))  # fmt: skip
        assert back.separation(SkyCoord(a * u.deg, d * u.deg)).arcsec < 0.2


def test_cells_are_those_of_order_29_nested_and_nest_in_coarser_ones():
    ra, dec = np.array([10.0, 200.0]), np.array([-30.0, 60.0])
    coarse = HEALPix(64, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg)
    assert (healpix_29(ra, dec) >> 2 * (29 - 6)).tolist() == coarse.tolist()


def test_a_link_leads_to_the_position():
    assert "ra=10.500000&dec=-3.250000&" in viewer_urls(np.array([10.5]), np.array([-3.25]))[0]
