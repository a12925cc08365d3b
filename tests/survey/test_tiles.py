"""Tiles decoded by us are those of fitsio, bit for bit; what we do not know is left to it."""

import fitsio
import numpy as np
import pytest

from darkhaloscope.survey.fits_headers import read_units
from darkhaloscope.survey.tiles import Tiles

SIDE = 230  # the last tiles are cut
WINDOWS = [(0, SIDE, 0, SIDE), (0, 1, 0, 1), (95, 159, 130, 194), (229, 230, 228, 230), (150, 214, 99, 101)]


def sources(rng):
    image = rng.normal(0, 0.003, (SIDE, SIDE)).astype(np.float32)
    image[40:60, 120:150] += 300.0  # steep: long codes
    image[100:200, 100:200] = 0  # exact zeros
    return image


def open_tiles(path):
    hdu = fitsio.FITS(str(path))[1]
    read = lambda xa, xb, ya, yb: np.ascontiguousarray(hdu[ya:yb, xa:xb])  # noqa: E731
    return Tiles.of(str(path), hdu.read_header(), hdu.get_offsets()["data_start"], read), read


def assert_same(tiles, read):
    for xa, xb, ya, yb in WINDOWS:
        out = np.zeros((3, yb - ya, xb - xa), np.float32)
        assert tiles.windows(np.array([[xa, ya], [0, 0], [xa, ya]]), out).all()
        assert out[0].tobytes() == out[2].tobytes() == read(xa, xb, ya, yb).tobytes(), (xa, ya)


def write(tmp_path, data, **options):
    path = tmp_path / "plane.fits.fz"
    fitsio.write(str(path), data, clobber=True, tile_dims=[100, 100], **options)
    return path


@pytest.mark.parametrize("method", ["NO_DITHER", "SUBTRACTIVE_DITHER_1", "SUBTRACTIVE_DITHER_2"])
@pytest.mark.parametrize("level", [16.0, 4.0, 0.5])
def test_rice_tiles_are_fitsios_bit_for_bit(tmp_path, method, level):
    data = sources(np.random.default_rng(1))
    path = write(tmp_path, data, compress="RICE_1", qlevel=level, qmethod=method, dither_seed=9_997)
    assert_same(*open_tiles(path))


def test_lossless_tiles_are_fitsios_bit_for_bit(tmp_path):
    data = sources(np.random.default_rng(2))
    assert_same(*open_tiles(write(tmp_path, data, compress="GZIP_1", qlevel=0.0)))


def test_equal_integer_tiles_are_decoded_once(tmp_path):
    bits = np.zeros((500, 500), np.int32)
    bits[210:280, 120:190] = 2
    path = write(tmp_path, bits, compress="HCOMPRESS_1")
    tiles, read = open_tiles(path)
    asked = []
    tiles._read = lambda *window: asked.append(window) or read(*window)
    out = np.zeros((1, 500, 500), np.int32)
    assert tiles.windows(np.zeros((1, 2), np.int64), out).all()
    assert np.array_equal(out[0], bits) and len(asked) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"NAXIS2": 8},
        {"ZTILE1": 10**9},
        {"ZTILE2": 0},
        {"ZNAXIS1": 10**9},
        {"ZCMPTYPE": None},
        {"TFIELDS": "x"},
    ],
)
def test_a_header_that_does_not_fit_its_table_is_left_to_fitsio(tmp_path, change):
    path = write(tmp_path, np.zeros((SIDE, SIDE), np.float32), compress="RICE_1")
    unit = read_units(path)[1]
    read = lambda *window: None  # noqa: E731
    assert Tiles.of(str(path), unit.cards, unit.data_start, read) is not None
    header = {k: v for k, v in (unit.cards | change).items() if v is not None}
    assert Tiles.of(str(path), header, unit.data_start, read) is None


@pytest.mark.parametrize("how", ["nan", "integers", "other codec", "cut off", "garbage"])
def test_what_is_odd_is_left_to_fitsio(tmp_path, how):
    data = sources(np.random.default_rng(3))
    if how == "nan":
        data[5, 5] = np.nan
    if how == "integers":
        data = (data * 1e4).astype(np.int16)
    path = write(tmp_path, data, compress="GZIP_2" if how == "other codec" else "RICE_1")
    tiles, read = open_tiles(path)
    if how == "cut off":
        tiles._lengths[0] -= 3_000
    if how == "garbage":
        tiles._offsets[0] = 10
    out = np.zeros((2, 100, 100), np.float32)
    assert tiles is None or tiles.windows(np.array([[0, 0], [100, 100]]), out).tolist() == [False, True]
    assert tiles is None or np.array_equal(out[1], np.ascontiguousarray(read(100, 200, 100, 200)))
