import numpy as np
import pytest
from astropy.wcs import WCS
from survey_testing import brick_header

from darkhaloscope.survey import bricks
from darkhaloscope.survey.wcs import TanWcs, tangent_plane, tangent_plane_to_sky

NAMES = ["0591m305", "0001p000", "3598m002", "0959p805", "1800m900", "1214p192", "0299m875"]


def _oracle(name):
    wcs = WCS(naxis=2)
    header = brick_header(name, 3600)
    wcs.wcs.ctype = [header["CTYPE1"], header["CTYPE2"]]
    wcs.wcs.crval = [header["CRVAL1"], header["CRVAL2"]]
    wcs.wcs.crpix = [header["CRPIX1"], header["CRPIX2"]]
    wcs.wcs.cd = [[header["CD1_1"], 0], [0, header["CD2_2"]]]
    return wcs


@pytest.mark.parametrize("name", NAMES)
def test_pixels_agree_with_astropy_to_1e_4_and_go_back(name):
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-100, 3700, (2, 500))
    oracle = _oracle(name)
    ra, dec = oracle.all_pix2world(x, y, 0)
    wcs = TanWcs.from_header(brick_header(name, 3600), 3600, 3600)
    assert np.abs(np.stack(wcs.sky_to_pixel(ra, dec)) - [x, y]).max() < 1e-4
    ours_ra, ours_dec = wcs.pixel_to_sky(x, y)
    assert np.abs(np.stack(_oracle(name).all_world2pix(ours_ra, ours_dec, 0)) - [x, y]).max() < 1e-4
    assert (ours_ra >= 0).all() and (ours_ra < 360).all()
    (ra0,), (dec0,) = bricks.brick_centre(*bricks.parse_names([name]))
    assert TanWcs.of_brick(float(ra0), float(dec0)) == wcs, "the survey's own layout"
    small, corner = TanWcs.of_brick(float(ra0), float(dec0), 600), (3600 - 600) / 2
    assert np.allclose(small.sky_to_pixel(ra, dec), np.stack([x, y]) - corner, atol=1e-4)


def test_a_rotated_wcs_is_honoured():
    header = brick_header("0591m305", 200)
    c, s = np.cos(0.3) * header["CD2_2"], np.sin(0.3) * header["CD2_2"]
    header |= {"CD1_1": -c, "CD1_2": s, "CD2_1": s, "CD2_2": c}
    wcs = TanWcs.from_header(header, 200, 200)
    oracle = _oracle("0591m305")
    oracle.wcs.crpix, oracle.wcs.cd = [100.5, 100.5], [[-c, s], [s, c]]
    ra, dec = wcs.pixel_to_sky(17.25, 150.5)
    assert np.allclose(oracle.all_world2pix(ra, dec, 0), (17.25, 150.5), atol=1e-4)
    assert wcs.pixel_scale_arcsec == pytest.approx(0.262)


def test_the_other_hemisphere_has_no_pixel():
    assert np.isnan(tangent_plane(180.0, 0.0, 0.0, 0.0)).all()
    assert tangent_plane_to_sky(0.0, 0.0, 359.9, -45.0) == pytest.approx((359.9, -45.0))


@pytest.mark.parametrize(
    "change,message", [({"CTYPE1": "RA---SIN"}, "RA---SIN"), ({"CD1_2": None}, "no CD1_2")]
)
def test_a_header_that_is_no_tan_wcs_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TanWcs.from_header({**brick_header(), **change}, 300, 300)
