"""Painting onto large images: the same light as a stamp's, at its place, clipped at the edge."""

import numpy as np
import pytest

from darkhaloscope.lensing.paint import paint_galaxies, paint_points
from darkhaloscope.lensing.psf import Psf


def test_a_painted_galaxy_is_galsims():
    galsim = pytest.importorskip("galsim")
    image = np.zeros((1, 120, 150), np.float32)
    paint_galaxies(image, [70.3], [55.8], [[5.0]], 0.5, 0.6, 0.4, 1.0, Psf.moffat([[1.1]], 2.7), floor=1e-5)
    galaxy = galsim.Sersic(1.0, half_light_radius=0.5, flux=5.0).shear(q=0.6, beta=0.4 * galsim.radians)
    theirs = galsim.Convolve(galaxy, galsim.Moffat(2.7, fwhm=1.1)).drawImage(
        nx=150, ny=120, scale=0.262, method="no_pixel", offset=(70.3 - 74.5, 55.8 - 59.5), dtype=float
    )
    assert np.abs(image[0] - theirs.array).max() < 2e-3 * theirs.array.max()
    assert image.sum() == pytest.approx(theirs.array.sum(), rel=0.01)


def test_bright_galaxies_get_larger_stamps():
    faint, bright = (np.zeros((1, 600, 600), np.float32) for _ in range(2))
    psf = Psf.gaussian([[1.0]])
    paint_galaxies(faint, [300], [300], [[0.01]], 2.0, 1.0, 0.0, 4.0, psf)
    paint_galaxies(bright, [300], [300], [[1e4]], 2.0, 1.0, 0.0, 4.0, psf)
    assert (faint > 0).sum() < 100**2 < (bright > 0).sum()


def test_light_beyond_the_edge_is_clipped_and_bad_rows_are_named():
    image = np.zeros((1, 50, 50), np.float32)
    reasons = paint_galaxies(
        image, [-2.0, 49.0, 25.0], [10.0, 52.0, 25.0], np.ones((3, 1)), [0.4, 0.4, -1.0], 1.0, 0.0, 1.0,
        Psf.gaussian(np.full((3, 1), 1.0)),
    )  # fmt: skip
    assert reasons[:2] == ("", "") and "src_reff_arcsec" in reasons[2]
    assert image[0, 10, 0] > 0 and image[0, 49, 49] > 0
    assert 0 < image.sum() < 1.0


def test_points_have_their_flux_and_place():
    image = np.zeros((2, 101, 101), np.float32)
    paint_points(image, [50.25], [40.75], [[3.0, 6.0]], Psf.moffat([[1.0, 1.4]], 3.5), floor=1e-7)
    y, x = np.indices(image.shape[1:])
    for band, flux in enumerate((3.0, 6.0)):
        assert image[band].sum() == pytest.approx(flux, rel=0.01)
        assert (image[band] * x).sum() / image[band].sum() == pytest.approx(50.25, abs=0.02)
        assert (image[band] * y).sum() / image[band].sum() == pytest.approx(40.75, abs=0.02)
    with pytest.raises(ValueError, match="kernel"):
        paint_points(image, [5.0], [5.0], [[1.0, 1.0]], Psf.from_kernel(np.ones((2, 3, 3))))
