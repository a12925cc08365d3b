"""Headers are astropy's, card for card, and a file that does not hold what they announce is found."""

import numpy as np
import pytest
from astropy.io import fits
from survey_testing import BRICK, write_plane

from darkhaloscope.survey.errors import FitsBroken
from darkhaloscope.survey.fits_headers import check_fits, read_units

IMAGE = f"coadd/059/{BRICK}/legacysurvey-{BRICK}-image-r.fits.fz"
ODD = ["A'B / not a comment", "", "  led", "x" * 66, True, False, -3, 7.25e-12, 1.0, None]
RAW = ["DEXP    =            1.5D-03 / Fortran's exponent", "WIDE    = '/ in a string' / and behind it"]


@pytest.fixture
def plane(sky):
    return sky / IMAGE


def same_as_astropys(path):
    """Compare every card with a value of every unit."""
    with fits.open(path, disable_image_compression=True) as hdus:
        units = read_units(path)
        assert len(units) == len(hdus)
        for unit, hdu in zip(units, hdus, strict=True):
            theirs = {
                c.keyword: c.value for c in hdu.header.cards if c.keyword not in ("COMMENT", "HISTORY", "")
            }
            theirs = {k: None if isinstance(v, fits.card.Undefined) else v for k, v in theirs.items()}
            assert unit.cards == theirs
            assert [type(unit.cards[k]) for k in theirs] == [type(v) for v in theirs.values()]
            assert unit.data_start == hdu._data_offset
    return units


def test_headers_are_astropys_card_for_card(tmp_path, plane):
    assert len(same_as_astropys(plane)) == 2
    header = fits.Header([(f"ODD{i}", value, "a comment / with more") for i, value in enumerate(ODD)])
    header.extend([fits.Card.fromstring(text) for text in RAW])
    header["COMMENT"], header["HISTORY"] = "none = of this", "nor = this"
    header.extend([(f"MANY{i}", i) for i in range(80)])  # more than one block
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(7.0))])
    path = tmp_path / "odd.fits"
    fits.HDUList([fits.PrimaryHDU(np.zeros((3, 5), np.int16), header), table]).writeto(path)
    units = same_as_astropys(path)
    assert [u.data_bytes for u in units] == [30, 28]


def test_headers_of_the_real_survey_are_astropys(real_data):
    found = sorted((real_data / "real").rglob("*.fits.fz"))
    assert len([same_as_astropys(path) for path in found]) >= 10


def test_a_header_that_does_not_say_how_long_its_data_are_is_no_fits(plane):
    for old, new in (
        (b"BITPIX  =", b"BITPIY  ="),
        (b"NAXIS1  =", b"NAXIS9  ="),
        (b"NAXIS   =   ", b"NAXIS   = T "),
    ):
        broken = plane.with_name("broken.fits")
        broken.write_bytes(plane.read_bytes().replace(old, new))
        with pytest.raises(FitsBroken, match="does not say how long its data are"):
            read_units(broken)


@pytest.mark.parametrize("compress", ["RICE", "GZIP", None])
def test_a_whole_file_passes_and_its_headers_account_for_it(tmp_path, compress):
    path = write_plane(tmp_path, "image", "r", np.zeros((210, 210), np.float32), compress=compress)
    size = path.stat().st_size
    assert size - 2880 < check_fits(path) <= size


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_a_file_cut_off_anywhere_is_found_without_reading_its_data(plane, share):
    whole = plane.read_bytes()
    cut = int(check_fits(plane) * share) - 1
    plane.write_bytes(whole[:cut])
    with pytest.raises(FitsBroken, match=rf"has {cut:,} bytes.*(header says [\d,]+; )?.*file is truncated"):
        check_fits(plane)


def test_cut_inside_the_second_header_is_truncated_too(plane):
    plane.write_bytes(plane.read_bytes()[: 2880 + 1440])
    with pytest.raises(FitsBroken, match="ends inside a header; file is truncated"):
        check_fits(plane)


def test_an_error_page_and_an_empty_file_are_no_fits(tmp_path):
    path = tmp_path / "page.fits"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(FitsBroken, match=r"22 bytes and begins with b'<html>.*not a FITS file"):
        check_fits(path)
    path.write_bytes(b"")
    with pytest.raises(FitsBroken, match="file is empty"):
        check_fits(path)
