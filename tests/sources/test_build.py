import csv

import numpy as np
import pytest
from astropy.io import fits
from source_cases import PIXEL, disc, gaussian, noisy, real_galaxy_folder

from darkhaloscope.sources.build import build_bank, main, measure_source
from darkhaloscope.sources.isolate import NotAGalaxy
from darkhaloscope.sources.open import open_bank
from darkhaloscope.sources.realgalaxy import CatalogueBroken, open_catalogue

SIGMA = 0.0004


def stamps(n=12):
    good = [noisy(disc(96, 4.0 + 0.1 * i, 0.7, 0.1 * i), SIGMA, seed=i) for i in range(n)]
    star = noisy(np.pad(gaussian(), 32)[:96, :96] / 15, SIGMA, seed=99)
    return [*good, noisy(np.zeros((96, 96)), SIGMA), star, np.full((96, 96), np.nan)]


def test_a_catalogue_becomes_a_bank_and_a_list_of_the_refused(tmp_path, capsys):
    path = real_galaxy_folder(tmp_path, stamps())
    assert main([str(path), str(tmp_path / "bank.h5"), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "12 of 15 galaxies; 3 refused" in capsys.readouterr().out
    index = open_bank(str(tmp_path / "bank.h5")).index
    np.testing.assert_array_equal(index.index, np.arange(100, 112))
    truth = (4.0 + 0.1 * np.arange(12)) * PIXEL
    # the stamps were not blurred: with the PSF removed sizes come out smaller, as the image shows them
    np.testing.assert_allclose(index.hlr_image_arcsec, truth, rtol=0.1)
    assert (index.hlr_arcsec < index.hlr_image_arcsec).all()
    np.testing.assert_allclose(index.axis_ratio, 0.7, atol=0.12)
    np.testing.assert_allclose(index.redshift, 0.1 + 0.1 * np.arange(12), rtol=1e-5)
    assert abs(index.mag_r - (24.5 + 0.01 * np.arange(12))).max() < 0.06
    with (tmp_path / "bank.refused.csv").open() as file:
        refused = dict(list(csv.reader(file))[1:])
    assert set(refused) == {"112", "113", "114"}
    assert (
        "no object" in refused["112"] and "not resolved" in refused["113"] and "not finite" in refused["114"]
    )
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_sources_are_centred_in_their_stamps():
    source = measure_source(noisy(disc(90, 6.0, x=41.2, y=48.9), SIGMA), None, PIXEL)
    y, x = np.mgrid[:96, :96]
    total = source.image.sum()
    assert abs((source.image * x).sum() / total - 47.5) <= 0.51
    assert abs((source.image * y).sum() / total - 47.5) <= 0.51


def test_a_galaxy_that_does_not_fit_into_the_stamp_is_refused():
    with pytest.raises(NotAGalaxy, match="too large"):
        measure_source(noisy(disc(200, 18.0), 0.00005), None, PIXEL, stamp_size=64)


def test_a_sample_without_any_source_is_an_error(tmp_path, capsys):
    path = real_galaxy_folder(tmp_path, stamps(0))
    with pytest.raises(NotAGalaxy, match="none of 3 galaxies"):
        build_bank(open_catalogue(path).galaxies(), PIXEL, "x", tmp_path / "bank.h5")
    assert main([str(path), str(tmp_path / "bank.h5")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sources.build: ") and "none of 3 galaxies" in error
    assert not (tmp_path / "bank.h5").exists()


def test_without_photometry_and_psf_the_rest_is_still_there(tmp_path):
    catalogue = open_catalogue(real_galaxy_folder(tmp_path, stamps(20), psf=False, photometry=False))
    build_bank(catalogue.galaxies(), PIXEL, "x", tmp_path / "bank.h5")
    index = open_bank(str(tmp_path / "bank.h5")).index
    assert len(index) >= 20 and np.isnan([index.g_r, index.r_z, index.redshift]).all()


def no_images(folder):
    (folder / "images.fits").unlink()


def few_hdus(folder):
    fits.PrimaryHDU(disc()).writeto(folder / "images.fits", overwrite=True)


@pytest.mark.parametrize(
    ("spoil", "message"), [(no_images, r"images.fits: the catalogue names"), (few_hdus, "wants HDU 1")]
)
def test_missing_image_files_are_named(tmp_path, spoil, message):
    path = real_galaxy_folder(tmp_path, stamps(2))
    spoil(tmp_path)
    with pytest.raises(CatalogueBroken, match=message):
        list(open_catalogue(path).galaxies())


def test_a_file_that_is_no_catalogue_is_named(tmp_path, capsys):
    assert main([str(tmp_path / "none.fits"), str(tmp_path / "bank.h5")]) == 1
    assert "no FITS table" in capsys.readouterr().err
    with pytest.raises(CatalogueBroken, match="no FITS table"):
        open_catalogue(tmp_path / "none.fits")
    fits.BinTableHDU.from_columns([fits.Column("IDENT", "J", array=[1])]).writeto(tmp_path / "c.fits")
    with pytest.raises(CatalogueBroken, match=r"'GAL_FILENAME'.*missing"):
        open_catalogue(tmp_path / "c.fits")


@pytest.mark.real
def test_real_cosmos_galaxies_make_a_bank_of_small_galaxies(real_data, tmp_path):
    """Median half-light radius of faint COSMOS galaxies: 0.1 to 0.3 arcsec, where the noise bank had 1.08."""
    catalogue = open_catalogue(real_data / "hst/cosmos_f814w/real_galaxy_catalog.fits")
    refused = build_bank(catalogue.galaxies(), catalogue.pixel_arcsec, "real cosmos", tmp_path / "bank.h5")
    index = open_bank(str(tmp_path / "bank.h5")).index
    assert len(index) + len(refused) == 70 and len(refused) <= 8
    assert 0.1 < np.median(index.hlr_arcsec) < 0.3
    assert 0.1 < np.nanmedian(index.g_r) < 0.7 and 0.3 < np.nanmedian(index.r_z) < 1.0
