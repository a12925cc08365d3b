import numpy as np
import pytest

from darkhaloscope.survey import extinction, photometry
from darkhaloscope.survey.maskbits import BITS, bad_pixels, bits_value


def test_one_nanomaggy_is_22_5_mag_and_fluxes_come_back():
    assert photometry.magnitude(np.array([1.0, 100.0])).tolist() == [22.5, 17.5]
    assert photometry.flux(photometry.magnitude(3.7)) == pytest.approx(3.7, rel=1e-14)
    assert np.isnan(photometry.magnitude(np.array([0.0, -1.0, np.nan]))).all()


def test_a_psfdepth_in_inverse_variance_becomes_the_5_sigma_magnitude():
    sigma = photometry.flux(24.5) / 5
    assert photometry.depth_magnitude(sigma**-2) == pytest.approx(24.5, abs=1e-12)
    assert photometry.depth_magnitude(553.2518) == pytest.approx(22.5 - 2.5 * np.log10(5 / 553.2518**0.5))
    assert np.isnan(photometry.depth_magnitude(np.array([0.0, np.nan, -3.0]))).all()


def test_extinction_is_the_surveys():
    assert extinction.extinction(0.12, "g") == pytest.approx(0.386, abs=1e-3)
    assert extinction.extinction(0.12, "r") == pytest.approx(0.260, abs=1e-3)
    ebv = np.array([0.0514118, 0.0])  # a real DR9 row and its MW_TRANSMISSION_G, R, Z
    expected = [[0.8588256, 0.9025627, 0.94426984], [1, 1, 1]]
    assert np.allclose(extinction.transmission(ebv, "grz"), expected, atol=1e-6)
    with pytest.raises(ValueError, match="band 'y'"):
        extinction.extinction(ebv, "y")


def test_maskbits_have_the_surveys_numbers():
    assert bits_value(["MEDIUM"]) == 2048 and bits_value(["NPRIMARY", "SUB_BLOB"]) == 1 + 65536
    some = {
        "BRIGHT": 1,
        "SATUR_G": 2,
        "ALLMASK_Z": 7,
        "BAILOUT": 10,
        "CLUSTER": 13,
        "SATUR_I": 14,
        "SUB_BLOB": 16,
    }
    assert some.items() <= BITS.items() and list(BITS.values()) == list(range(17))


def test_only_the_bits_named_make_a_pixel_bad():
    bits = np.array([[0, 1, 2048], [2, 2049, 65536]], np.int32)
    assert bad_pixels(bits, ["MEDIUM"]).tolist() == [[False, False, True], [False, True, False]]
    assert bad_pixels(bits, ["BRIGHT", "SATUR_R"]).tolist() == [[False] * 3, [True, False, False]]
    assert not bad_pixels(bits, []).any()
