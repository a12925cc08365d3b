"""Effective PSFs: what psfsize means, kernels centred and normalised over the whole plane."""

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import j0

from darkhaloscope.lensing.psf import (
    Psf,
    kernel_psfsize,
    pixel_kernel,
    psf_profile,
    psf_transform,
    psfsize_to_fwhm,
)


@pytest.mark.parametrize(("beta", "factor"), [(2.5, 0.720), (2.7, 0.745), (3.5, 0.811)])
def test_psfsize_is_the_width_of_equal_noise_area_not_the_half_maximum(beta, factor):
    fwhm = psfsize_to_fwhm(1.3, "moffat", beta)
    assert fwhm / 1.3 == pytest.approx(factor, abs=6e-4)
    assert psf_profile(0.5 * fwhm, fwhm, "moffat", beta) == pytest.approx(
        0.5 * float(psf_profile(0.0, fwhm, "moffat", beta))
    )
    kernel = pixel_kernel(float(fwhm), "moffat", beta, size=255, pixel_scale=0.1)
    assert kernel_psfsize(kernel, 0.1) == pytest.approx(1.3, rel=2e-3)


def test_a_gaussians_psfsize_is_its_fwhm_and_legacy_mode_feeds_it_to_a_moffat():
    assert psfsize_to_fwhm(1.3, "gaussian") == pytest.approx(1.3)
    assert kernel_psfsize(pixel_kernel(1.3, "gaussian"), 0.262) == pytest.approx(1.3, rel=1e-4)
    assert psfsize_to_fwhm(1.3, "moffat", 3.5, legacy_psfsize_is_fwhm=True) == pytest.approx(1.3)


@pytest.mark.parametrize(("model", "beta"), [("gaussian", 0.0), ("moffat", 2.5), ("moffat", 4.5)])
def test_the_transform_is_the_profiles(model, beta):
    for k in (0.0, 0.1, 0.5, 1.2):
        hankel = quad(
            lambda r, k=k: 2 * np.pi * r * float(psf_profile(r, 1.2, model, beta)) * j0(2 * np.pi * k * r),
            0,
            80,
            limit=800,
            epsabs=1e-9,
        )[0]
        assert float(psf_transform(k, 1.2, model, beta)) == pytest.approx(hankel, abs=3e-5)


def test_kernels_are_centred_and_not_renormalised_on_truncation():
    kernel = pixel_kernel(2.5, "moffat", 2.5, size=63)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (31, 31)
    assert np.allclose(kernel, kernel[::-1, ::-1]) and np.allclose(kernel, kernel.T)
    assert kernel.sum() == pytest.approx(0.9868, abs=1e-4)  # a circle as wide loses 1.7 %
    with pytest.raises(ValueError, match="odd"):
        pixel_kernel(1.0, "gaussian", size=64)


def test_kernels_without_a_centre_or_without_light_are_refused():
    with pytest.raises(ValueError, match="odd"):
        Psf.from_kernel(np.ones((3, 64, 64)))
    with pytest.raises(ValueError, match="positive sum"):
        Psf.from_kernel(np.zeros((3, 63, 63)))


@pytest.mark.real
def test_the_surveys_own_psf_has_the_surveys_psfsize(real_data):
    folder = real_data / "real" / "dr9_brick_0591m305"
    facts = json.loads((folder / "facts.json").read_text())["psfsize_equivalent_arcsec"]
    for band, size in facts.items():
        assert kernel_psfsize(np.load(folder / f"coadd_psf_{band}.npy"), 0.262) == pytest.approx(
            size, rel=1e-4
        )
