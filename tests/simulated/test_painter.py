"""The painter paints what the library's profiles and the survey's psfsize say."""

import numpy as np
import pytest

from darkhaloscope.lensing.psf import kernel_psfsize, pixel_kernel, psfsize_to_fwhm
from darkhaloscope.simulated.noise import correlated_noise, noise_kernel
from darkhaloscope.simulated.observing import NOISE_CORRELATION, Conditions, noise_pixels, sky_sigma
from darkhaloscope.simulated.painter import paint_galaxies, paint_objects, paint_stars


def column(value):
    return np.array([value], dtype=np.float64)


def one_object(**changes):
    objects = {"kind": np.array(["lrg"]), "x": column(100.2), "y": column(99.7)}
    objects |= {f"mag_{b}": column(18.0) for b in ("g", "r", "z")}
    objects |= {"reff_arcsec": column(0.8), "q": column(0.7), "phi_rad": column(0.4), "n": column(4.0)}
    return objects | {k: np.array([v]) for k, v in changes.items()}


@pytest.mark.parametrize(
    "n, reff, q", [(0.6, 0.15, 0.4), (1.0, 0.5, 1.0), (1.55, 1.2, 0.5), (4.0, 0.9, 0.7), (5.5, 0.3, 1.0)]
)
def test_galaxies_agree_with_galsim(n, reff, q):
    galsim = pytest.importorskip("galsim")
    size, phi, fwhm = 256, 0.5, 0.9
    image = np.zeros((1, size, size), np.float32)
    x, y = size / 2 - 0.5 + 0.3, size / 2 - 0.5 - 0.2
    paint_galaxies(
        image, column(x), column(y), np.array([[100.0]]), column(reff), column(q), column(phi), column(n),
        np.array([[fwhm]]), 2.7, np.array([1e-4]),
    )  # fmt: skip
    galaxy = galsim.Sersic(n=n, half_light_radius=reff, flux=100.0).shear(q=q, beta=phi * galsim.radians)
    sky = galsim.Convolve(galaxy, galsim.Moffat(beta=2.7, fwhm=fwhm))
    truth = sky.drawImage(nx=size, ny=size, scale=0.262, method="no_pixel", offset=(0.3, -0.2)).array
    assert np.abs(image[0] - truth).max() < 1e-3 * truth.max()


def test_stamps_of_every_size_land_where_they_belong_and_clip_at_the_border():
    image = np.zeros((1, 200, 300), np.float32)
    args = (np.array([[50.0]]), column(0.6), column(1.0), column(0.0), column(1.0), np.array([[1.0]]), 2.7)
    paint_galaxies(image, column(150.0), column(40.0), *args, np.array([1e-4]))
    assert np.unravel_index(image[0].argmax(), image[0].shape) == (40, 150)
    whole = image.sum()
    assert whole == pytest.approx(50.0, rel=0.02)
    image[:] = 0
    paint_galaxies(image, column(-0.5), column(100.0), *args, np.array([1e-4]))
    assert image.sum() == pytest.approx(whole / 2, rel=0.01)
    paint_galaxies(image, column(-5000.0), column(100.0), *args, np.array([1e-4]))


@pytest.mark.parametrize("psfsize", [0.9, 1.3, 1.6])
def test_a_painted_star_has_the_psfsize_of_the_map(psfsize):
    maps = np.full((3, 201, 201), psfsize, np.float32)
    star = one_object(kind="star", x=100.0, y=100.0, reff_arcsec=0.0, n=0.0)
    image = paint_objects(star, maps, np.full(3, 1e-4), 2.7)
    for plane in image:
        assert kernel_psfsize(plane, 0.262) == pytest.approx(psfsize, rel=0.02)
        assert plane.sum() == pytest.approx(10 ** ((22.5 - 18.0) / 2.5), rel=0.02)


def test_stars_are_the_library_s_moffat_at_pixel_centres():
    image = np.zeros((1, 63, 63), np.float32)
    paint_stars(
        image, column(31.0), column(31.0), np.array([[7.0]]), np.array([[1.1]]), 2.7, np.array([1e-9])
    )
    np.testing.assert_allclose(image[0], 7.0 * pixel_kernel(1.1, "moffat", 2.7, 63), rtol=1e-5)


def test_a_bright_star_keeps_its_light_in_core_and_aureole():
    star = one_object(kind="star", x=400.0, y=400.0, mag_g=9.0, mag_r=9.0, mag_z=9.0, reff_arcsec=0.0)
    image = paint_objects(star, np.full((3, 801, 801), 1.3, np.float32), np.full(3, 1e-3), 2.7)
    flux = 10 ** ((22.5 - 9.0) / 2.5)
    assert 0.97 * flux < image[1].sum() < flux
    assert image[1, 400, 400 + 230] > 1e-3  # a minute of arc out, the halo is still above the sky's noise


def test_noise_has_unit_variance_and_the_stated_correlation():
    noise = correlated_noise(np.random.Generator(np.random.Philox(3)), (900, 1000), NOISE_CORRELATION)
    assert noise.shape == (900, 1000) and noise.dtype == np.float32
    assert noise.std() == pytest.approx(1.0, abs=0.005)
    for step, rho in enumerate((*NOISE_CORRELATION, 0.0), start=1):
        assert np.mean(noise[:, step:] * noise[:, :-step]) == pytest.approx(rho, abs=0.01)
        assert np.mean(noise[step:] * noise[:-step]) == pytest.approx(rho, abs=0.01)
    white = correlated_noise(np.random.Generator(np.random.Philox(3)), (300, 300), ())
    assert abs(np.mean(white[:, 1:] * white[:, :-1])) < 0.01


def test_an_impossible_correlation_is_refused():
    with pytest.raises(ValueError, match="power spectrum is negative"):
        noise_kernel((0.9,))


@pytest.mark.parametrize("psfsize, depth", [(0.9, 25.5), (1.3, 24.46), (1.6, 23.7)])
def test_sky_sigma_makes_a_point_source_of_the_depth_five_sigma(psfsize, depth):
    sigma = sky_sigma(psfsize, depth)
    kernel = pixel_kernel(float(psfsize_to_fwhm(psfsize, "moffat", 2.7)), "moffat", 2.7, 101)
    matched = 5.0 * sigma / np.sqrt(np.square(kernel).sum())
    assert 22.5 - 2.5 * np.log10(matched) == pytest.approx(depth, abs=0.02)
    assert 1.0 / np.square(kernel).sum() == pytest.approx(float(noise_pixels(psfsize)), rel=0.02)
    assert Conditions(0.0, {"r": psfsize}, {"r": depth}).sky_sigma("r") == sigma
