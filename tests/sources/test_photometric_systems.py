import numpy as np
import pytest

from darkhaloscope.sources.photometric_systems import decam_from_hsc

# PS1 magnitudes, and by hand their HSC and DECam ones from the published terms
PS1 = {"g": 22.0, "r": 21.4, "i": 21.2, "z": 21.1, "y": 21.05}


def hsc_of(m):
    def term(a, b, c0, c1, c2):
        return m[a] + c0 + c1 * (m[a] - m[b]) + c2 * (m[a] - m[b]) ** 2

    return {
        "g": term("g", "r", 0.00730066, 0.06508481, -0.01510570),
        "r": term("r", "i", 0.00279757, 0.02093734, -0.01877566),
        "i": term("i", "z", 0.00166891, -0.13944659, -0.03034094),
        "z": term("z", "y", -0.00907517, -0.28840221, -0.00316369),
        "y": term("y", "z", -0.00156858, 0.14747401, 0.02880125),
    }


def test_hsc_magnitudes_become_decams_by_way_of_ps1():
    found = decam_from_hsc({b: np.array([m]) for b, m in hsc_of(PS1).items()})
    x = 0.8
    expected = {
        "g": 22.0 + 0.00062 + 0.03604 * x + 0.01028 * x**2 - 0.00613 * x**3,
        "r": 21.4 + 0.00495 - 0.08435 * x + 0.03222 * x**2 - 0.01140 * x**3,
        "z": 21.1 + 0.02583 - 0.07690 * x + 0.02824 * x**2 - 0.00898 * x**3,
    }
    for band, value in expected.items():
        assert found[band][0] == pytest.approx(value, abs=1e-6)


def test_beyond_the_valid_colours_the_terms_stay_those_of_the_end():
    blue = {b: np.array([22.0]) for b in "grizy"}  # g - i near 0
    found = decam_from_hsc(blue)
    assert all(abs(found[b][0] - 22.0) < 0.06 for b in "grz")


def test_a_band_that_was_not_measured_makes_the_galaxys_magnitudes_unknown():
    hsc = {b: np.array([22.0, 22.0]) for b in "grizy"}
    hsc["i"] = np.array([22.0, np.nan])
    found = decam_from_hsc(hsc)
    assert np.isfinite(found["g"][0]) and np.isnan([found[b][1] for b in "grz"]).all()
