"""What every rendered image keeps: conventions, flux, place, bands, and good company for bad rows."""

import numpy as np
import oracle
import pytest
from draws import draw, relative_rms, render_rows, scene_of

from darkhaloscope.lensing.psf import Psf, pixel_kernel, psfsize_to_fwhm
from darkhaloscope.lensing.render import render
from darkhaloscope.lensing.scene import Scene

SCALE = 0.262
LENS = {"theta_e_arcsec": 1.3, "lens_q": 0.7, "lens_phi_rad": 0.6, "shear": 0.05, "shear_phi_rad": 2.0}
NO_LENS = {"theta_e_arcsec": 0.0, "lens_q": 1.0, "lens_phi_rad": 0.0, "shear": 0.0, "shear_phi_rad": 0.0}
SOURCE = {"src_x_arcsec": 0.3, "src_y_arcsec": -0.2, "src_reff_arcsec": 0.2, "src_q": 0.6, "src_phi_rad": 1.0}


def scene(lens=LENS, flux=((1.0,),), **changes):
    return Scene(**{"x_lens": 31.7, "y_lens": 32.2, **lens, **SOURCE, "src_n": 1.0, "flux": flux, **changes})


def truth(profiles, lens=LENS, shape=(64, 64), **changes):
    row = {"x_lens": 31.7, "y_lens": 32.2, **lens, **SOURCE, "src_n": 1.0, **changes}
    return oracle.truth(row, profiles, shape)


def rms(image, reference):
    return float(relative_rms(np.asarray(image, float), np.asarray(reference, float)).max())


@pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 6.0])
@pytest.mark.parametrize("x_lens", [31.5, 31.93, 32.4])
def test_unlensed_light_is_galsims_no_pixel_image(n, x_lens):
    galsim = pytest.importorskip("galsim")
    made = render(scene(NO_LENS, src_n=n, x_lens=x_lens, flux=[[5.0]]), Psf.moffat([[1.1]], 2.7))
    galaxy = galsim.Sersic(n, half_light_radius=0.2, flux=5.0).shear(q=0.6, beta=1.0 * galsim.radians)
    theirs = galsim.Convolve(galaxy.shift(0.3, -0.2), galsim.Moffat(2.7, fwhm=1.1)).drawImage(
        nx=64, ny=64, scale=SCALE, method="no_pixel", offset=(x_lens - 31.5, 32.2 - 31.5), dtype=float
    )
    assert rms(made.image[0, 0], theirs.array) < (1e-3 if n <= 2 else 5e-3)


def test_an_einstein_radius_without_the_root_of_q_is_far_from_the_truth():
    right = truth([oracle.gaussian(1.0)])[0]
    assert rms(render(scene(), Psf.gaussian([[1.0]])).image[0], right) < 1e-3
    wrong = scene(theta_e_arcsec=1.3 / np.sqrt(0.7))
    assert rms(render(wrong, Psf.gaussian([[1.0]])).image[0], right) > 0.1


def test_psfsize_fed_as_fwhm_is_far_from_the_truth():
    right = truth([oracle.moffat(float(psfsize_to_fwhm(1.3, "moffat", 2.7)), 2.7)])[0]
    assert rms(render(scene(), Psf.from_psfsize([[1.3]], "moffat", 2.7)).image[0], right) < 1e-3
    legacy = Psf.from_psfsize([[1.3]], "moffat", 2.7, legacy_psfsize_is_fwhm=True)
    assert rms(render(scene(), legacy).image[0], right) > 0.1


def test_each_band_gets_its_own_psf_and_flux():
    fwhm, flux = [0.9, 1.3, 2.0], [1.0, 10.0, 100.0]
    made = render(scene(flux=[flux]), Psf.moffat([fwhm], 3.0))
    profiles, _ = truth([oracle.moffat(f, 3.0) for f in fwhm])
    for band in range(3):
        assert rms(made.image[0, band], flux[band] * profiles[band]) < 1e-3
    swapped = render(scene(flux=[flux]), Psf.moffat([fwhm[::-1]], 3.0))
    assert rms(swapped.image[0, 0], flux[0] * profiles[0]) > 0.1


def test_a_pixel_kernel_gives_the_image_of_the_profile_it_samples():
    fwhm = [1.0, 1.4]
    kernel = np.stack([pixel_kernel(f, "moffat", 4.0) for f in fwhm])
    sampled = render(scene(flux=[[1.0, 1.0]]), Psf.from_kernel(kernel))
    analytic = render(scene(flux=[[1.0, 1.0]]), Psf.moffat([fwhm], 4.0))
    assert rms(sampled.image[0], analytic.image[0]) < 2e-3
    for axis in (1, 2):
        shifted = render(scene(flux=[[1.0, 1.0]]), Psf.from_kernel(np.roll(kernel, 1, axis)))
        assert rms(shifted.image[0], analytic.image[0]) > 0.1


@pytest.mark.real
def test_the_surveys_coadd_psf_as_a_kernel(real_data):
    folder = real_data / "real" / "dr9_brick_0591m305"
    kernel = np.stack([np.load(folder / f"coadd_psf_{band}.npy") for band in "grz"])
    point = scene(
        NO_LENS, x_lens=32.0, y_lens=32.0, src_x_arcsec=0.0, src_y_arcsec=0.0, src_reff_arcsec=0.002
    )
    made = render(Scene(**{**vars(point), "flux": [[1.0, 1.0, 1.0]]}), Psf.from_kernel(kernel))
    # a point source on a pixel's centre is the kernel itself (the hardest light for the lattice)
    assert rms(made.image[0, :, 1:, 1:], kernel) < 4e-3


def test_unlensed_centroid_is_where_the_source_is():
    for fwhm, x_lens, y_lens in [(0.8, 31.5, 32.49), (1.3, 32.0, 31.8), (2.4, 31.77, 32.1)]:
        made = render(scene(NO_LENS, x_lens=x_lens, y_lens=y_lens), Psf.gaussian([[fwhm]])).image[0, 0]
        y, x = np.indices(made.shape)
        assert (made * x).sum() / made.sum() == pytest.approx(x_lens + 0.3 / SCALE, abs=0.01)
        assert (made * y).sum() / made.sum() == pytest.approx(y_lens - 0.2 / SCALE, abs=0.01)


def test_flux_is_the_unlensed_flux_and_lensing_adds_to_it():
    unlensed = render(scene(NO_LENS, flux=[[3.0]]), Psf.gaussian([[1.0]]))
    assert unlensed.image.sum() == pytest.approx(3.0, rel=1e-3)
    assert unlensed.magnification[0] == pytest.approx(1.0, rel=1e-3)
    lensed = render(scene(flux=[[3.0]]), Psf.gaussian([[1.0]]))
    assert lensed.magnification[0] > 3
    assert lensed.image.sum() == pytest.approx(3.0 * lensed.magnification[0], rel=2e-3)


@pytest.mark.parametrize("offset", [0.1, 0.5, 0.9])
def test_magnification_of_a_small_source_in_a_round_lens_is_the_analytic_one(offset):
    # SIS: two images, mu = 2 theta_e / beta inside the Einstein radius
    small = scene(
        {**NO_LENS, "theta_e_arcsec": 1.3}, src_x_arcsec=1.3 * offset, src_y_arcsec=0.0, src_reff_arcsec=0.01
    )
    made = render(small, Psf.gaussian([[1.0]]))
    assert made.magnification[0] == pytest.approx(2 / offset, rel=0.01)


def test_magnification_counts_light_outside_the_stamp():
    wide = scene(NO_LENS, src_reff_arcsec=3.0, src_n=4.0)
    made = render(wide, Psf.gaussian([[1.0]]))
    assert made.magnification[0] == pytest.approx(1.0, abs=0.01)
    assert made.image.sum() < 0.95


def test_a_round_lens_is_the_limit_of_an_elliptical_one():
    exact = render(scene({**LENS, "lens_q": 1.0}), Psf.gaussian([[1.0]]))
    close = render(scene({**LENS, "lens_q": 1.0 - 1e-6}), Psf.gaussian([[1.0]]))
    assert np.isfinite(exact.image).all()
    assert rms(exact.image[0], close.image[0]) < 1e-4


def test_convolution_does_not_come_round_the_stamps_edge():
    edge = scene(NO_LENS, x_lens=62.0, y_lens=32.0, src_x_arcsec=0.0, src_y_arcsec=0.0)
    wide = pixel_kernel(8.0, "gaussian", size=63)[None]
    for psf in (Psf.moffat([[2.5]], 2.5), Psf.gaussian([[2.5]]), Psf.from_kernel(wide)):
        image = render(edge, psf).image[0, 0]
        assert np.abs(image[:, :24]).max() < 1.5e-3 * image.max()


@pytest.mark.parametrize("shape", [(64, 64), (101, 101), (48, 80)])
def test_any_stamp_shape_and_pixel_scale(shape):
    right, _ = truth([oracle.gaussian(1.2)], shape=shape)
    assert rms(render(scene(), Psf.gaussian([[1.2]]), shape).image[0], right) < 1e-3
    fine = oracle.truth(
        {"x_lens": 31.7, "y_lens": 32.2, **LENS, **SOURCE, "src_n": 1.0},
        [oracle.gaussian(1.2)],
        (64, 64),
        0.2,
    )[0]
    assert rms(render(scene(), Psf.gaussian([[1.2]]), (64, 64), 0.2).image[0], fine) < 1e-3


def test_a_row_does_not_depend_on_its_company():
    rows = draw(24, seed=3)
    together, _ = render_rows(rows)
    for i in (0, 7, 23):
        alone, _ = render_rows({k: v[i : i + 1] for k, v in rows.items()})
        assert np.array_equal(alone[0], together[i])


def test_zero_flux_is_an_empty_image():
    assert not render(scene(flux=[[0.0, 0.0]]), Psf.gaussian([[1.0, 1.2]])).image.any()


BAD = [
    ("theta_e_arcsec", np.nan),
    ("theta_e_arcsec", -0.1),
    ("lens_q", 0.0),
    ("lens_q", 1.01),
    ("src_n", 20.0),
    ("src_reff_arcsec", 0.0),
    ("src_x_arcsec", np.inf),
    ("x_lens", np.nan),
    ("shear", 0.9),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_row_is_flagged_with_its_parameter_and_the_others_are_drawn(name, value):
    values = np.full(3, float(vars(scene())[name][0]))
    values[1] = value
    made = render(scene(**{name: values}), Psf.gaussian([[1.0]]))
    assert made.ok.tolist() == [True, False, True]
    assert "row 1" in made.reason[1] and name in made.reason[1] and made.reason[0] == ""
    assert not made.image[1].any() and np.isnan(made.magnification[1])
    assert made.image[0].any() and np.array_equal(made.image[0], made.image[2])


@pytest.mark.parametrize("fwhm", [np.nan, 0.0, -1.0, 0.3, 99.0])
def test_a_bad_psf_is_flagged_with_its_row(fwhm):
    made = render(scene(x_lens=[31.0, 32.0]), Psf.moffat([[1.0], [fwhm]], 2.7))
    assert made.ok.tolist() == [True, False]
    assert "row 1: fwhm_arcsec" in made.reason[1]


def test_a_bad_flux_is_flagged():
    made = render(scene(flux=[[1.0, np.nan], [1.0, 1.0]]), Psf.gaussian([[1.0, 1.0]]))
    assert made.ok.tolist() == [False, True] and "row 0: flux" in made.reason[0]


def test_a_psf_that_does_not_fit_is_refused_before_any_work():
    with pytest.raises(ValueError, match="bands"):
        render(scene(flux=[[1.0, 1.0]]), Psf.gaussian([[1.0]]))
    with pytest.raises(ValueError, match="wider than the stamp"):
        render(scene(), Psf.from_kernel(np.ones((1, 65, 65))))
    with pytest.raises(ValueError, match="rows"):
        render(scene(x_lens=[1.0, 2.0, 3.0]), Psf.gaussian([[1.0], [1.0]]))


def test_an_empty_batch_is_an_empty_batch():
    rows = {k: v[:0] for k, v in draw(1, 0).items()}
    made = render(scene_of(rows), Psf.gaussian(np.zeros((0, 1))))
    assert made.image.shape == (0, 1, 64, 64) and made.reason == ()
