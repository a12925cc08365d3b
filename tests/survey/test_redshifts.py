"""The colour-redshift relation, and redshifts that catalogues have."""

import csv

import numpy as np
import pytest

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.survey.extinction import extinction
from darkhaloscope.survey.redshifts import HOST_REDSHIFTS, host_redshifts, red_sequence, redshift_of_colours

N = 4_000
U = uniforms([digest("relations", i) for i in range(N)], 1, 1)


def robust(x):
    return 1.4826 * np.median(np.abs(x - np.median(x)))


def test_a_galaxy_on_the_red_sequence_gets_its_redshift_back():
    line = red_sequence()
    at = np.searchsorted(HOST_REDSHIFTS, [0.25, 0.45, 0.65, 0.8])
    g_r, r_z = line["g_r"][at], line["r_z"][at]
    found = redshift_of_colours(g_r, r_z, np.full(4, 0.5))
    np.testing.assert_allclose(found, [0.25, 0.45, 0.65, 0.8], atol=0.02)
    without_g = redshift_of_colours(np.full(4, np.nan), r_z, np.full(4, 0.5))
    np.testing.assert_allclose(without_g, [0.25, 0.45, 0.65, 0.8], atol=0.07)
    assert np.isnan(redshift_of_colours(g_r, np.full(4, np.nan), np.full(4, 0.5))).all()
    spread = redshift_of_colours(np.full(N, g_r[1]), np.full(N, r_z[1]), U[:, 0])
    assert 0.01 < spread.std() < 0.05


def test_an_absurd_colour_does_not_outvote_the_other():
    line = red_sequence()
    at = np.searchsorted(HOST_REDSHIFTS, 0.65)
    found = redshift_of_colours(np.array([-9.0]), line["r_z"][at : at + 1], np.array([0.5]))
    assert found[0] == pytest.approx(0.65, abs=0.07)


def test_a_galaxy_has_one_redshift_whatever_it_comes_with():
    ids = np.arange(300) << 16
    line = red_sequence()
    mags = {"r": np.full(300, 20.5), "z": 20.5 - line["r_z"][90], "g": 20.5 + line["g_r"][90]}
    mags = {band: np.broadcast_to(m, 300) for band, m in mags.items()}
    redshift, source = host_redshifts(ids, mags, {})
    assert set(source) == {"lrg_colours"} and 0.01 < redshift.std() < 0.05
    assert np.median(redshift) == pytest.approx(HOST_REDSHIFTS[90], abs=0.01)
    some = np.array([250, 3, 17])
    again, _ = host_redshifts(ids[some], {b: m[some] for b, m in mags.items()}, {})
    assert np.array_equal(again, redshift[some])


def test_a_spectrum_wins_over_a_photometric_redshift_and_that_over_colours():
    mags = {"g": np.full(4, 22.0), "r": np.full(4, 20.5), "z": np.full(4, 19.5)}
    known = {"z_spec": np.array([0.3, -99, np.nan, 0.0]), "z_phot": np.array([0.5, 0.5, 5.0, -99])}
    redshift, source = host_redshifts(np.arange(4), mags, known)
    assert redshift[:2].tolist() == [0.3, 0.5] and np.isfinite(redshift).all()
    assert source.tolist() == ["spectrum", "photometric", "lrg_colours", "lrg_colours"]


def test_no_galaxies_no_redshifts():
    redshift, source = host_redshifts(np.empty(0, int), dict.fromkeys("grz", np.empty(0)), {})
    assert len(redshift) == len(source) == 0


@pytest.mark.real
def test_redshifts_of_real_lens_galaxies_are_found_from_their_colours(real_data):
    rows = []
    for name in ("training", "new"):
        with (real_data / f"catalogs/stein2022_{name}_lenses.tsv").open() as file:
            rows += list(csv.DictReader(file, delimiter="\t"))
    columns = {n: np.array([float(r[n]) for r in rows]) for n in ("mag_g", "mag_r", "mag_z", "ebv", "z_spec")}
    g, r, z = (columns[f"mag_{b}"] - extinction(columns["ebv"], b) for b in "grz")
    truth = columns["z_spec"]
    use = (truth > 0.1) & (truth < 1) & np.isfinite(g + r + z) & (r - z > 0.4) & (z < 20.4)
    assert use.sum() > 500
    found = redshift_of_colours((g - r)[use], (r - z)[use], np.full(use.sum(), 0.5))
    offset = found - truth[use]
    assert abs(np.median(offset)) < 0.015 and robust(offset) < 0.03
    assert (np.abs(offset) > 0.1).mean() < 0.12
