"""The oracle itself: GalSim's images of unlensed light, lenstronomy's deflection."""

import numpy as np
import oracle
import pytest

ROW = {
    "x_lens": 31.7, "y_lens": 32.2, "theta_e_arcsec": 0.0, "lens_q": 1.0, "lens_phi_rad": 0.0, "shear": 0.0,
    "shear_phi_rad": 0.0, "src_x_arcsec": 0.1, "src_y_arcsec": -0.2, "src_reff_arcsec": 0.3, "src_q": 0.7,
    "src_phi_rad": 0.4, "src_n": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(("n", "reff"), [(1.0, 0.3), (4.0, 0.05), (0.5, 0.1)])
def test_unlensed_truth_is_galsims_no_pixel_image(n, reff):
    galsim = pytest.importorskip("galsim")
    fine = galsim.GSParams(
        folding_threshold=1e-4, maxk_threshold=1e-5, kvalue_accuracy=1e-7, maximum_fft_size=16384
    )
    galaxy = galsim.Sersic(n, half_light_radius=reff, flux=1, gsparams=fine)
    galaxy = galaxy.shear(q=0.7, beta=0.4 * galsim.radians).shift(0.1, -0.2)
    image, flux = oracle.truth(
        {**ROW, "src_n": n, "src_reff_arcsec": reff}, [oracle.moffat(1.2, 2.7), oracle.gaussian(0.7)]
    )
    for ours, psf in zip(image, [galsim.Moffat(2.7, fwhm=1.2), galsim.Gaussian(fwhm=0.7)], strict=True):
        theirs = galsim.Convolve(galaxy, psf.withGSParams(fine)).drawImage(
            nx=64, ny=64, scale=0.262, method="no_pixel", offset=(0.2, 0.7), dtype=float
        )
        assert np.sqrt(((ours - theirs.array) ** 2).sum() / (theirs.array**2).sum()) < 5e-5
    assert flux == pytest.approx(1.0, abs=2e-5)


def test_the_oracles_rays_are_lenstronomys():
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model")
    q, phi = 0.6, 0.9
    e = (1 - q) / (1 + q)
    model = lens_model.LensModel(["SIE", "SHEAR"])
    kwargs = [
        {"theta_E": 1.3, "e1": e * np.cos(2 * phi), "e2": e * np.sin(2 * phi), "center_x": 0, "center_y": 0},
        {"gamma1": 0.05 * np.cos(0.8), "gamma2": 0.05 * np.sin(0.8)},
    ]
    # a Gaussian (n = 0.5) source of unit width: its brightness gives back the distance
    p = (
        1.3,
        q,
        phi,
        0.05 * np.cos(0.8),
        0.05 * np.sin(0.8),
        0.2,
        -0.1,
        1.0,
        1.0,
        0.0,
        0.5,
        1.0,
        1.0,
        1.0,
        1.0,
    )
    for x, y in np.random.default_rng(2).uniform(-2, 2, (20, 2)):
        bx, by = model.ray_shooting(np.array([x]), np.array([y]), kwargs)
        distance = np.hypot(bx[0] - 0.2, by[0] + 0.1)
        found = np.sqrt(-np.log(oracle._brightness(x, y, p, np.zeros((0, 0)))))
        assert found == pytest.approx(distance, abs=1e-7)
