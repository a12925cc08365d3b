import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from survey_testing import BRICK, SIDE, write_brick, write_plane

from darkhaloscope.sections import Fetch
from darkhaloscope.survey.coadds import BrickReader, file_path
from darkhaloscope.survey.errors import BandMissing, BrickMissing, BrickUnreadable
from darkhaloscope.survey.transfer import Client

CORNERS = [(0, 0), (118, 37), (SIDE - 64, SIDE - 64), (95, 100), (-20, 150), (SIDE - 10, -40), (-500, 20)]


def _whole(base, kind, band=""):
    with fits.open(base / file_path(BRICK, kind, band)) as file:
        return next(h.data for h in file if h.data is not None)


def _expected(plane, x0, y0, size):
    padded = np.pad(plane, 600)
    return padded[y0 + 600 : y0 + 600 + size, x0 + 600 : x0 + 600 + size]


@pytest.mark.parametrize("n_cuts", [0, 10_000])
def test_a_cut_equals_the_whole_plane_as_astropy_reads_it(sky, n_cuts):
    planes = {(k, b): _whole(sky, k, b) for k in ("image", "invvar") for b in "grz"}
    bits = _whole(sky, "maskbits")
    with BrickReader(str(sky), BRICK, n_cuts=n_cuts) as brick:
        for x0, y0 in CORNERS:
            cut = brick.cut(x0, y0, 64)
            for i, band in enumerate("grz"):
                assert np.array_equal(cut.image[i], _expected(planes["image", band], x0, y0, 64))
                assert np.array_equal(cut.invvar[i], _expected(planes["invvar", band], x0, y0, 64))
            assert np.array_equal(cut.maskbits, _expected(bits, x0, y0, 64))
            assert cut.padded == 64 * 64 - np.count_nonzero(_expected(np.ones((SIDE, SIDE)), x0, y0, 64))
            assert cut.has_maskbits and cut.nonfinite == 0
            assert (cut.image.dtype, cut.invvar.dtype, cut.maskbits.dtype) == ("f4", "f4", "i4")


def test_bands_come_in_the_order_asked_for(sky):
    with BrickReader(str(sky), BRICK, "zg") as brick:
        cut = brick.cut(10, 40, 32)
    assert np.array_equal(cut.image[0], _whole(sky, "image", "z")[40:72, 10:42])
    assert np.array_equal(cut.image[1], _whole(sky, "image", "g")[40:72, 10:42])


def test_sky_positions_are_those_of_the_header(sky):
    with BrickReader(str(sky), BRICK) as brick:
        x, y = brick.sky_to_pixel(*brick.wcs.crval)
    assert (x, y) == pytest.approx(((SIDE - 1) / 2,) * 2)


@pytest.mark.parametrize(
    "tile,n_cuts,whole", [((100, 100), 0, False), ((100, 100), 400, True), ((300, 300), 0, True)]
)
def test_planes_are_read_whole_where_that_is_cheaper(sky, tile, n_cuts, whole):
    for kind in ("image", "invvar"):
        write_plane(sky, kind, "r", np.ones((SIDE, SIDE), np.float32), tile=tile)
    with BrickReader(str(sky), BRICK, "r", n_cuts=n_cuts) as brick:
        assert brick._planes["image-r"].keep_whole is whole


def test_an_uncompressed_file_with_its_image_in_hdu_0_is_read_too(sky):
    data = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    path = write_plane(sky, "image", "r", data, compress=None)
    with fits.open(path) as file:
        assert file[0].data is not None
    with BrickReader(str(sky), BRICK) as brick:
        assert np.array_equal(brick.cut(30, 40, 50).image[1], data[40:90, 30:80])


def test_nan_and_negative_weights_are_counted_and_get_no_weight(sky):
    image, invvar = np.ones((2, SIDE, SIDE), np.float32)
    image[50, 60], invvar[51, 61], invvar[52, 62] = np.nan, -1, np.inf
    write_plane(sky, "image", "r", image, compress="GZIP")
    write_plane(sky, "invvar", "r", invvar, compress="GZIP")
    with BrickReader(str(sky), BRICK) as brick:
        cut = brick.cut(50, 40, 32)
    assert cut.nonfinite == 2
    assert np.isnan(cut.image[1, 10, 10]) and np.isnan(cut.image).sum() == 1
    assert [cut.invvar[1, 10 + i, 10 + i] for i in range(3)] == [0, 0, 0] and (
        cut.invvar[1] > 0
    ).sum() == 1021


def test_a_brick_that_is_not_there_says_where_it_was_sought(sky):
    with pytest.raises(
        BrickMissing, match=r"^0594m305: no image or invvar of bands grz in .*coadd/059/0594m305"
    ):
        BrickReader(str(sky), "0594m305").open()
    with pytest.raises(ValueError, match="brick name 'nonsense'"):
        BrickReader(str(sky), "nonsense")


@pytest.mark.parametrize("kind", ["image", "invvar"])
def test_a_missing_band_is_named_and_never_a_silent_zero(sky, kind):
    (sky / file_path(BRICK, kind, "r")).unlink()
    with pytest.raises(
        BandMissing, match=rf"^{BRICK}: {kind}-r not found.*bands with image and invvar: gz, expected grz"
    ):
        BrickReader(str(sky), BRICK).open()
    with BrickReader(str(sky), BRICK, "gz") as brick:
        assert brick.cut(0, 0, 8).image.shape == (2, 8, 8)


def test_a_truncated_plane_says_what_it_has_and_what_to_do(sky):
    path = sky / file_path(BRICK, "image", "r")
    path.write_bytes(path.read_bytes()[:20_000])
    message = rf"^{BRICK}: image-r has 20,000 bytes, header says [\d,]+; file is truncated; delete it"
    with pytest.raises(BrickUnreadable, match=message):
        BrickReader(str(sky), BRICK).open()


def spoil(path: Path, tiles: slice) -> None:
    """Overwrite what the table of tiles says of some of them."""
    data = bytearray(path.read_bytes())
    with fits.open(path, disable_image_compression=True) as file:
        start, width = file[1].fileinfo()["datLoc"], file[1].header["NAXIS1"]
        first, last, _ = tiles.indices(file[1].header["NAXIS2"])
    data[start + first * width : start + last * width] = b"\x7f" * ((last - first) * width)
    path.write_bytes(data)


@pytest.mark.parametrize("n_cuts", [0, 400])
def test_tiles_that_do_not_decompress_cost_their_own_cuts_however_a_plane_is_read(sky, n_cuts):
    with BrickReader(str(sky), BRICK) as brick:
        whole = brick.cut(110, 110, 64)
    spoil(sky / file_path(BRICK, "image", "r"), slice(0, 1))
    with BrickReader(str(sky), BRICK, n_cuts=n_cuts) as brick:
        broken, good, also_broken = brick.cuts(np.array([[10, 10], [110, 110], [60, 90]]), 64)
        assert good.image.tobytes() == whole.image.tobytes() and good.maskbits.any() == whole.maskbits.any()
        for cut in (broken, also_broken):
            assert isinstance(cut, BrickUnreadable) and f"{BRICK}: image-r cannot be read" in str(cut)
        with pytest.raises(BrickUnreadable, match=f"{BRICK}: image-r cannot be read"):
            brick.cut(10, 10, 64)


def test_a_psf_map_with_a_broken_tile_gives_way_to_the_brick_table_there_only(sky):
    spoil(sky / file_path(BRICK, "psfsize", "g"), slice(0, 1))
    with BrickReader(str(sky), BRICK, brick_row={f"psfsize_{b}": 1.5 for b in "grz"}) as brick:
        found = brick.psfsizes(np.array([10.0, 150.0]), np.array([10.0, 150.0]))
    assert [source for _, source in found] == ["brick_table", "map"]


def test_a_file_of_another_brick_or_size_is_refused(sky, tmp_path):
    write_brick(tmp_path / "other", "0594m305", side=200)
    source, target = (
        base / file_path(name, "invvar", "r")
        for base, name in ((tmp_path / "other", "0594m305"), (sky, BRICK))
    )
    shutil.copy(source, target)
    with pytest.raises(BrickUnreadable, match=r"invvar-r is 200 x 200 pixels, image-g is 300 x 300"):
        BrickReader(str(sky), BRICK).open()
    write_plane(sky, "invvar", "r", np.ones((SIDE, SIDE), np.float32), **{"BRICK": "0594m305"})
    with pytest.raises(BrickUnreadable, match=r"the header of invvar-r says brick 0594m305"):
        BrickReader(str(sky), BRICK).open()


def test_without_maskbits_the_cut_says_so(sky):
    (sky / file_path(BRICK, "maskbits")).unlink()
    with BrickReader(str(sky), BRICK) as brick:
        cut = brick.cut(0, 0, 16)
    assert not brick.has_maskbits and not cut.has_maskbits and not cut.maskbits.any()


def test_psf_size_comes_from_the_maps_at_the_pixel(sky):
    size = np.full((SIDE, SIDE), 1.3, np.float32)
    size[120, 77] = 1.9
    write_plane(sky, "psfsize", "z", size, compress="GZIP")
    with BrickReader(str(sky), BRICK, brick_row={f"psfsize_{b}": 9.0 for b in "grz"}) as brick:
        (g, r, z), source = brick.psfsize(77.4, 119.6)
        assert (g, r) == pytest.approx((1.1, 1.2), abs=1e-4) and z == pytest.approx(1.9) and source == "map"
        assert brick.psfsize(-50.0, 1e4)[0][2] == pytest.approx(1.3), "beyond the brick: its nearest pixel"


@pytest.mark.parametrize("spoil", ["missing", "zero"])
def test_psf_size_falls_back_to_the_brick_table_and_says_so(sky, spoil):
    path = sky / file_path(BRICK, "psfsize", "r")
    path.unlink()
    if spoil == "zero":
        write_plane(sky, "psfsize", "r", np.zeros((SIDE, SIDE), np.float32), compress="GZIP")
    with BrickReader(
        str(sky), BRICK, brick_row={"psfsize_g": 1.5, "psfsize_r": 1.4, "psfsize_z": 1.3}
    ) as brick:
        values, source = brick.psfsize(10, 10)
    assert values == pytest.approx([1.5, 1.4, 1.3]) and source == "brick_table"
    for row in (None, {"psfsize_g": 1.5, "psfsize_r": 0.0, "psfsize_z": 1.3}):
        with (
            BrickReader(str(sky), BRICK, brick_row=row) as brick,
            pytest.raises(BrickUnreadable, match="PSF size per band"),
        ):
            brick.psfsize(10, 10)


def test_a_brick_over_http_is_the_brick_on_disk_and_its_copies_go(web, sky, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (sky / file_path(BRICK, "maskbits")).unlink()
    with BrickReader(web.url, BRICK, scratch=scratch) as remote, BrickReader(f"file://{sky}", BRICK) as local:
        assert len(list(scratch.rglob("*.fz"))) == 9 and not remote.has_maskbits
        a, b = remote.cut(-5, 40, 64), local.cut(-5, 40, 64)
        assert (
            np.array_equal(a.image, b.image) and np.array_equal(a.invvar, b.invvar) and a.padded == b.padded
        )
        assert remote.psfsize(3, 3)[1] == "map" and remote.wcs == local.wcs
    assert not list(scratch.iterdir())


def test_a_brick_that_fails_over_http_leaves_no_copies(web, tmp_path, monkeypatch):
    patient = Client(Fetch(), sleep=lambda s: None)
    monkeypatch.setattr("darkhaloscope.survey.files.client_of", lambda: patient)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    web.faults["invvar-z.fits.fz"] = ["short"]
    with pytest.raises(BrickUnreadable, match=f"^{BRICK}: invvar-z has .*truncated"):
        BrickReader(web.url, BRICK, scratch=scratch).open()
    web.faults["image-g.fits.fz"] = [503] * 9
    with pytest.raises(BrickUnreadable, match=f"^{BRICK}: fetching image-g failed: .*503"):
        BrickReader(web.url, BRICK, scratch=scratch).open()
    web.faults.clear()
    with pytest.raises(BrickMissing):
        BrickReader(web.url, "0594m305", scratch=scratch).open()
    assert not list(scratch.iterdir())
