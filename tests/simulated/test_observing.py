"""A brick in memory: noise, depth and masks as the survey has them, and a plan that serves every split."""

import numpy as np
import pytest

from darkhaloscope.sections import Splits
from darkhaloscope.simulated.brick import _mark_neighbours, observe
from darkhaloscope.simulated.observing import (
    NOISE_CORRELATION,
    NOISE_OVER_INVVAR,
    draw_conditions,
)
from darkhaloscope.simulated.sky_plan import PLAN, SkyConfig, brick_wcs, generator
from darkhaloscope.survey.bricks import brick_bounds, parse_names
from darkhaloscope.survey.maskbits import BITS
from darkhaloscope.survey.splits import cell_split, sky_cell

PLAIN = PLAN[0].name


def test_the_neighbour_s_pixels_are_marked():
    wcs = brick_wcs(PLAIN, 3600)
    ra1, _, _, _ = (float(v[0]) for v in brick_bounds(*parse_names([PLAIN])))
    x, _ = wcs.sky_to_pixel(np.array([ra1]), np.array([wcs.crval[1]]))
    assert 3400 < x[0] < 3599  # smaller RA lies to the right; beyond this x the neighbour begins
    bits = np.zeros((3600, 3600), np.int32)
    _mark_neighbours(bits, wcs, PLAIN)
    row = bits[1800] & (1 << BITS["NPRIMARY"])
    assert row[int(x[0]) + 2] and not row[int(x[0]) - 2] and not row[1800]


def test_sky_noise_is_as_the_depth_and_the_dr9_field_say():
    """Empty sky, in memory: pixel scatter is 0.92 of 1/sqrt(invvar), invvar is that of the drawn depth."""
    config = SkyConfig(bricks=1, size="small", faint_r=14.5)
    image, invvar, observed, _ = observe(config, config.plan[0])
    for i, band in enumerate("grz"):
        sigma = observed.conditions.sky_sigma(band)
        assert np.median(invvar[i]) == pytest.approx(sigma**-2, rel=0.05)
        x = image[i] * np.sqrt(invvar[i])
        quiet = np.abs(x) < 5
        assert quiet.mean() > 0.99
        assert 1.4826 * np.median(np.abs(x[quiet])) == pytest.approx(NOISE_OVER_INVVAR, rel=0.02)
        lag1 = np.mean((x[:, 1:] * x[:, :-1])[quiet[:, 1:] & quiet[:, :-1]]) / np.var(x[quiet])
        assert lag1 == pytest.approx(NOISE_CORRELATION[0], abs=0.03)


def test_invvar_holds_the_sources_own_photon_noise():
    """As on the DR9 field: in r, a pixel of 0.26 nmgy has twice the sky's variance."""
    config = SkyConfig(bricks=1, size="small", faint_r=22.0)
    image, invvar, observed, _ = observe(config, config.plan[0])
    for i, sky in enumerate((0.140, 0.259, 4.51)):
        bright = (image[i] > 0.4 * sky) & (invvar[i] > 0)
        assert bright.sum() > 30
        extra = observed.sky_invvar[i][bright] / invvar[i][bright] - 1
        assert np.median(extra / image[i][bright]) == pytest.approx(1 / sky, rel=0.05)


def test_drawn_conditions_pass_the_brick_cuts_and_follow_the_real_ones():
    rng = np.random.Generator(np.random.Philox(5))
    drawn = [draw_conditions(rng) for _ in range(800)]
    psfsize, depth = np.array([c.psfsize["r"] for c in drawn]), np.array([c.depth["r"] for c in drawn])
    assert psfsize.max() < 1.6 and depth.min() > 23.6 and max(c.ebv for c in drawn) < 0.12
    assert np.median(psfsize) == pytest.approx(1.31, abs=0.04)
    assert np.median(depth) == pytest.approx(24.57, abs=0.15)
    assert np.corrcoef(psfsize, depth)[0, 1] < -0.15


def test_the_plan_populates_every_split_and_has_a_pair_of_neighbours():
    rows, columns = parse_names([plan.name for plan in PLAN])
    assert (rows[1], columns[1]) == (rows[0], columns[0] + 1)
    for splits in (Splits(), Splits(train=0.5, val=0.25, test=0.25)):
        for plan, wanted in zip(PLAN, ("train", "train", "val", "test", "", "test"), strict=True):
            ra1, ra2, dec1, dec2 = (float(v[0]) for v in brick_bounds(*parse_names([plan.name])))
            cells = sky_cell(np.array([ra1, ra2, ra1, ra2]), np.array([dec1, dec1, dec2, dec2]))
            assert len(set(cells.tolist())) == 1
            if wanted:
                assert cell_split(cells, splits, 42)[0] == wanted


def test_draws_have_their_own_generators():
    config = SkyConfig()
    a, b = generator(config, "noise", PLAIN, "g"), generator(config, "noise", PLAIN, "r")
    assert a.random() != b.random()
