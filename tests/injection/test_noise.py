import numpy as np
import pytest
from fake_brick import GAIN, SIGMA, FakeBrick
from scipy.stats import theilslopes

from darkhaloscope.injection.noise import (
    _theil_sen,
    brick_gain,
    fit_gain,
    photon_noise,
    sky_gain,
    stamp_gain,
    with_photon_noise,
)
from darkhaloscope.survey.coadds import BrickReader

INVVAR = np.full((3, 64, 64), 1e5)


def test_the_gain_is_recovered_from_a_bricks_inverse_variance():
    np.testing.assert_allclose(brick_gain(FakeBrick(), 0), GAIN, rtol=0.1)


def test_regions_of_another_depth_do_not_pass_for_photon_noise():
    """Half the brick is noisier and its galaxies brighter: unlevelled, the gain would be 20 to 40 % off."""
    brick = FakeBrick()
    brick.image[:, :, 450:] *= 4
    depth = np.where(np.arange(900) < 450, 1.0, 2.0)
    light = np.maximum(brick.image, 0)
    brick.invvar = (1 / ((depth * SIGMA[:, None, None]) ** 2 + light / GAIN[:, None, None])).astype(
        np.float32
    )
    np.testing.assert_allclose(brick_gain(brick, 0), GAIN, rtol=0.05)


def test_masked_and_broken_parts_are_left_out():
    brick = FakeBrick()
    brick.maskbits[:, :500] = 2
    brick.image[:, :, :500] *= 3  # pixels that would give another slope
    brick.broken = lambda x0, y0: (x0, y0) == (800, 200)
    np.testing.assert_allclose(brick_gain(brick, 2), GAIN, rtol=0.15)


@pytest.mark.parametrize("empty", ["faint", "no data"])
def test_without_bright_pixels_the_gain_is_that_of_the_sky(empty):
    brick = FakeBrick()
    brick.image[:] = np.random.default_rng(1).standard_normal(brick.image.shape) * SIGMA[:, None, None]
    if empty == "no data":
        brick.invvar[:] = 0
    gains = brick_gain(brick, 0)
    assert np.isnan(gains).all()
    invvar = np.broadcast_to(SIGMA[:, None, None] ** -2.0, (3, 8, 8))
    # the DR9 brick these sigmas are from has 35,000 and 41,500 electrons per nmgy in g and r
    np.testing.assert_allclose(stamp_gain(gains, invvar)[:2], [35_000, 41_500], rtol=0.3)


def test_the_sky_gain_makes_the_skys_photons_its_variance():
    assert sky_gain(0.0025**2, "r") == pytest.approx(10 ** ((22.5 - 20.91) / 2.5) * 0.262**2 / 0.0025**2)


def test_a_fit_needs_a_rising_variance_and_enough_bright_pixels():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1.0, 4000)
    assert fit_gain(image, 1e-4 + image / 4e4, 1e-4) == pytest.approx(4e4, rel=1e-6)
    assert np.isnan(fit_gain(image, 1e-4 - image / 4e5, 1e-4))
    assert np.isnan(fit_gain(image[:100], 1e-4 + image[:100] / 4e4, 1e-4))
    assert np.isnan(fit_gain(image / 10, 1e-4 + image / 4e4, 1e-4))
    assert np.isnan(fit_gain(np.array([]), np.array([]), 1e-4))


def test_the_slope_is_scipys_of_theil_and_sen_with_ties_too():
    rng = np.random.default_rng(4)
    for x in (np.sort(rng.random(10)), np.sort(rng.integers(0, 4, 11)).astype(float)):
        y = 2 * x + rng.normal(0, 0.3, len(x))
        assert _theil_sen(x, y) == pytest.approx(theilslopes(y, x)[0], rel=1e-12)


def test_photon_noise_has_the_variance_of_the_light_and_none_where_it_is_dark():
    arc = np.zeros((3, 64, 64), np.float32)
    arc[:, 10:50] = np.array([0.01, 0.02, 0.05])[:, None, None]
    noise = photon_noise(arc, GAIN, INVVAR, "5" * 32)
    assert not noise[arc == 0].any()
    variance = noise[:, 10:50].var((1, 2)) / (np.array([0.01, 0.02, 0.05]) / GAIN)
    np.testing.assert_allclose(variance, 1, atol=4 * np.sqrt(2 / 2560))
    assert abs(noise[:, 10:50].mean((1, 2)) / noise[:, 10:50].std((1, 2)) * np.sqrt(2560)).max() < 4
    assert (photon_noise(arc, GAIN, INVVAR, "5" * 32) == noise).all()
    assert (photon_noise(arc, GAIN, INVVAR, "6" * 32) != noise)[arc > 0].all()
    assert np.corrcoef(noise[0, 10:50].ravel(), noise[1, 10:50].ravel())[0, 1] < 0.1


def test_noise_far_below_the_pixels_own_is_not_drawn():
    arc = np.geomspace(1e-9, 1, 3 * 64 * 64).reshape(3, 64, 64)
    drawn = photon_noise(arc, GAIN, INVVAR, "5" * 32) != 0
    assert np.array_equal(drawn, arc / GAIN[:, None, None] * INVVAR >= 1e-4)
    assert 0.3 < drawn.mean() < 0.7
    assert (photon_noise(arc, GAIN, np.zeros(arc.shape), "5" * 32) != 0).all()


def test_more_gain_is_less_noise_down_to_none():
    arc = np.full((3, 8, 8), 0.01)
    loud, quiet = (photon_noise(arc, np.full(3, g), np.zeros(arc.shape), "5" * 32) for g in (1e2, 1e14))
    np.testing.assert_allclose(loud, quiet * 1e6)
    assert abs(quiet).max() < 1e-5 * arc.max()


def test_the_inverse_variance_holds_the_arcs_photons_afterwards():
    invvar = np.full((3, 4, 4), 1e5)
    invvar[:, 0] = 0
    arc = np.full((3, 4, 4), 0.1)
    arc[:, :, 0] = 0
    found = with_photon_noise(invvar, arc, GAIN)
    assert (found[:, 0] == 0).all() and (found[:, 1:, 0] == 1e5).all()
    np.testing.assert_allclose(1 / found[:, 1:, 1:], (1e-5 + 0.1 / GAIN)[:, None, None] * np.ones((3, 3, 3)))


@pytest.mark.real
def test_the_gain_of_the_real_dr9_brick_is_that_of_its_photons(real_data):
    """Measured on it before, over the whole exposed region: 35,000 in g and 41,500 in r."""
    with BrickReader(real_data / "real/dr9_brick_0591m305", "0591m305") as brick:
        np.testing.assert_allclose(brick_gain(brick, 0)[:2], [35_000, 41_500], rtol=0.25)


def test_the_noise_of_a_pixel_is_the_same_whatever_else_is_lit():
    arc = np.random.default_rng(0).uniform(0, 1, (3, 64, 64))
    few = np.where(arc < 0.01, arc, 0.0)
    whole, some = (photon_noise(light, GAIN, np.zeros(arc.shape), "0" * 31 + "7") for light in (arc, few))
    assert np.array_equal(some, np.where(few > 0, whole, 0.0)) and np.count_nonzero(some) > 50
