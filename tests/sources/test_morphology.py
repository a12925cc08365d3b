import numpy as np
import pytest
from source_cases import disc, noisy

from darkhaloscope.sources.isolate import NotAGalaxy, isolate
from darkhaloscope.sources.morphology import clumpiness, half_light_radius, moments, without_psf


@pytest.mark.parametrize(("q", "phi"), [(1.0, 0.0), (0.5, 0.4), (0.4, -1.2)])
def test_the_half_light_radius_is_that_of_the_product_averaged_axis(q, phi):
    image = disc(240, 8.0, q, phi, x=117.3, y=121.8)
    shape = moments(image)
    np.testing.assert_allclose([shape.x, shape.y], [117.3, 121.8], atol=0.05)
    np.testing.assert_allclose(shape.q, q, atol=0.02)
    if q < 1:
        np.testing.assert_allclose(shape.phi, phi, atol=0.02)
    np.testing.assert_allclose(half_light_radius(image, shape), 8.0, rtol=0.01)


@pytest.mark.parametrize("reff", [0.08, 0.1, 0.15, 0.2, 0.3, 0.5])
def test_the_psf_is_removed_from_the_size_of_a_disc(reff):
    galsim = pytest.importorskip("galsim")
    psf = galsim.Convolve(galsim.Moffat(beta=3, fwhm=0.1), galsim.Pixel(0.03))
    seen = galsim.Convolve(
        galsim.Sersic(n=1, half_light_radius=reff).shear(q=0.7, beta=0.3 * galsim.radians), psf
    )

    def radius(profile):
        image = np.maximum(profile.drawImage(nx=200, ny=200, scale=0.03, method="no_pixel").array, 0)
        return half_light_radius(image, moments(image)) * 0.03

    found = without_psf(radius(seen), radius(psf))
    assert abs(found / reff - 1) < (0.04 if reff >= 0.1 else 0.07)
    assert radius(seen) > 1.005 * reff  # the correction was needed


def test_no_galaxy_is_smaller_than_the_floor():
    assert without_psf(0.06, 0.075) == 0.03
    assert without_psf(0.06, 0.075, floor=0.01) == 0.01


def test_clumps_make_a_galaxy_clumpy():
    smooth = disc(96, 10.0)
    rng = np.random.default_rng(2)
    clumpy = smooth.copy()
    y, x = np.mgrid[:96, :96]
    for cx, cy in 47.5 + 10 * rng.standard_normal((8, 2)):
        clumpy += 0.004 * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 1.5**2)
    assert clumpiness(smooth, 10.0) < 0.02 < 0.05 < clumpiness(clumpy, 10.0)


@pytest.mark.parametrize("background", [0.0, 3.0, -1.0])
@pytest.mark.parametrize("peak_over_sigma", [6, 15, 50])
def test_a_galaxy_is_found_again_under_noise_and_background(background, peak_over_sigma):
    truth = disc(120, 8.0, 0.7, 0.5)
    sigma = truth.max() / peak_over_sigma
    found = isolate(noisy(truth, sigma, background=background))
    assert abs(found.background - background) < 0.3 * sigma
    assert found.sigma == pytest.approx(sigma, rel=0.05)
    tolerance = 0.15 if peak_over_sigma < 10 else 0.07
    assert found.image.sum() == pytest.approx(truth.sum(), rel=tolerance)
    assert half_light_radius(found.image, moments(found.image)) == pytest.approx(8.0, rel=tolerance)
    assert found.snr > 4 * peak_over_sigma
    corners = found.image[:8].sum() + found.image[-8:].sum()
    assert corners == 0 and (found.image >= 0).all()


def test_noise_outside_the_galaxy_does_not_make_it_large():
    """What a bank of stamps clipped at zero had: a half-light radius of 1.08 arcsec in a 2.88 arcsec stamp."""
    stamp = noisy(disc(96, 5.0), 0.0008)
    clipped = np.maximum(stamp, 0)
    naive = half_light_radius(clipped, moments(clipped))
    kept = isolate(stamp).image
    assert naive > 15 and half_light_radius(kept, moments(kept)) == pytest.approx(5.0, rel=0.12)


def test_a_neighbour_is_cut_out():
    truth = disc(96, 6.0)
    both = truth + disc(96, 3.0, x=76, y=60, flux=0.6)
    found = isolate(noisy(both, 0.0004))
    assert found.image.sum() == pytest.approx(1.0, rel=0.12)
    assert found.image[60, 76] < 0.05 * both[60, 76]


def blended():
    return noisy(disc(96, 5.0) + disc(96, 5.0, x=64, y=47, flux=1.2), 0.0002)


@pytest.mark.parametrize(
    ("stamp", "reason"),
    [
        (np.where(np.arange(96) == 40, np.nan, noisy(disc(), 0.001)), "not finite in 96"),
        (np.zeros((96, 96)), "all pixels are zero"),
        (np.ones((96, 96)), "no noise"),
        (noisy(np.zeros((96, 96)), 1.0), "no object in the middle"),
        (noisy(disc(x=80, y=80), 0.0005), "no object in the middle"),
        (noisy(disc(reff_px=6.0), 0.01), "S/N|no object"),
        (noisy(disc(size=48, reff_px=8.0, y=8), 0.0002), "cut off"),
        (blended(), "blended: objects that touch it have"),
    ],
)
def test_what_is_no_galaxy_is_refused_with_the_reason(stamp, reason):
    with pytest.raises(NotAGalaxy, match=reason):
        isolate(stamp)
