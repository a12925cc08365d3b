"""The painted folder is a DR10 release in small: layout, headers, masks, determinism."""

import hashlib
from dataclasses import replace

import fitsio
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from darkhaloscope.sections import Splits, Targets
from darkhaloscope.simulated.catalogue import sweep_name
from darkhaloscope.simulated.observing import (
    star_mask_radius_arcsec,
)
from darkhaloscope.simulated.sky_plan import PLAN, SkyConfig, brick_wcs
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.catalogue import read_catalogue
from darkhaloscope.survey.coadds import BrickReader, file_path
from darkhaloscope.survey.errors import BandMissing
from darkhaloscope.survey.maskbits import BITS
from darkhaloscope.survey.targets import good_bricks, select_targets
from darkhaloscope.survey.wcs import TanWcs
from local_spark.compare_sky import compare
from local_spark.mini_sky import BRICK_TABLE, STATE, main, paint_sky, parser

PLAIN, NEXT, STAR, EDGE, NO_G = (plan.name for plan in PLAN[:5])


def plane(sky, brick, kind, band=""):
    return fitsio.read(str(sky / file_path(brick, kind, band)), ext=1)


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != STATE)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_seed_same_bytes_whatever_the_number_of_processes(small_sky, tmp_path):
    two = SkyConfig(bricks=2, size="small")
    paint_sky(tmp_path / "again", two, processes=2)
    again, before = digests(tmp_path / "again"), digests(small_sky)
    coadds = [name for name in again if name.startswith("coadd")]
    assert len(coadds) == 20
    assert all(again[name] == before[name] for name in coadds)
    other = paint_sky(tmp_path / "other", replace(two, bricks=1, seed=9), processes=1)
    assert other["painted"]
    name = file_path(PLAIN, "image", "r")
    assert digests(tmp_path / "other")[name] != before[name]


def test_a_finished_sky_is_not_painted_again_and_a_changed_one_is(tmp_path):
    one = SkyConfig(bricks=1, size="small")
    assert paint_sky(tmp_path / "sky", one, 1)["painted"]
    image = tmp_path / "sky" / file_path(PLAIN, "image", "r")
    stamp = image.stat().st_mtime_ns
    again = paint_sky(tmp_path / "sky", one, 1)
    assert not again["painted"] and image.stat().st_mtime_ns == stamp
    assert again["bricks"][0]["brickname"] == PLAIN and again["sweeps"]
    assert paint_sky(tmp_path / "sky", replace(one, lrg_boost=3.0), 1)["painted"]
    assert image.stat().st_mtime_ns != stamp


def test_an_unfinished_sky_is_painted_anew(tmp_path):
    one = SkyConfig(bricks=1, size="small")
    paint_sky(tmp_path, one, 1)
    (tmp_path / STATE).write_text(
        (tmp_path / STATE).read_text().replace('"finished": true', '"finished": false')
    )
    assert paint_sky(tmp_path, one, 1)["painted"]


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a mini sky"):
        paint_sky(tmp_path, SkyConfig(bricks=1, size="small"), 1)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("wrong", [{"bricks": 0}, {"bricks": 99}, {"size": "huge"}, {"lrg_boost": 0.0}])
def test_a_wrong_config_says_what_was_expected(wrong):
    with pytest.raises(ValueError, match="expected"):
        SkyConfig(**wrong)


def test_files_are_compressed_and_headed_as_the_survey_s(small_sky):
    for kind, scheme in (
        ("image", "RICE_1"),
        ("invvar", "RICE_1"),
        ("psfsize", "GZIP_1"),
        ("maskbits", "HCOMPRESS_1"),
    ):
        path = small_sky / file_path(STAR, kind, "" if kind == "maskbits" else "r")
        with fitsio.FITS(str(path)) as fits:
            header = fits[1].read_header()
        assert header["ZCMPTYPE"].strip() == scheme
        assert (header["ZTILE1"], header["ZTILE2"]) == (100, 100)
        if scheme == "RICE_1":
            assert header["ZQUANTIZ"].strip() == "SUBTRACTIVE_DITHER_2"
        assert (header["CTYPE1"].strip(), header["CRPIX1"]) == ("RA---TAN", 300.5)


def test_a_smoke_brick_has_the_survey_s_geometry():
    wcs = brick_wcs(PLAIN, 3600)
    assert wcs == TanWcs.of_brick(*wcs.crval)


def test_the_library_reads_the_sky(small_sky):
    table = read_brick_table(str(small_sky / BRICK_TABLE))
    assert set(table.columns["brickname"]) == {PLAIN, NEXT, STAR, EDGE, NO_G}
    assert 23.6 < table.row(PLAIN)["psfdepth_r"] < 26.8
    with BrickReader(str(small_sky), PLAIN, "grz", brick_row=table.row(PLAIN)) as reader:
        wanted = brick_wcs(PLAIN, 600)
        np.testing.assert_allclose(reader.wcs.cd, wanted.cd, rtol=1e-12)
        assert (reader.wcs.crval, reader.wcs.crpix, reader.wcs.width) == (wanted.crval, wanted.crpix, 600)
        cut = reader.cut(100, 120, 64)
        size, origin = reader.psfsize(300.0, 300.0)
    assert cut.has_maskbits and cut.padded == 0 and cut.nonfinite == 0
    np.testing.assert_array_equal(cut.image[1], plane(small_sky, PLAIN, "image", "r")[120:184, 100:164])
    assert origin == "map"
    assert size[1] == pytest.approx(table.row(PLAIN)["psfsize_r"], rel=0.03)


def test_catalogue_depths_are_inverse_variances_and_the_table_s_are_magnitudes(small_sky):
    table = read_brick_table(str(small_sky / BRICK_TABLE))
    for path in (small_sky / "sweep" / "10.1").iterdir():
        raw, read = fitsio.read(str(path)), read_catalogue(str(path))
        assert np.median(raw["PSFDEPTH_R"]) > 100
        for name in np.unique(raw["BRICKNAME"]):
            mine = (raw["BRICKNAME"] == name) & (raw["PSFDEPTH_R"] > 0)
            depth = np.median(read.columns["psfdepth_r"][mine])
            assert depth == pytest.approx(table.row(str(name))["psfdepth_r"], abs=0.3)
        assert path.name == sweep_name(raw["RA"][0], raw["DEC"][0])


def test_targets_can_be_selected_from_the_sweeps(small_sky):
    table, cuts = read_brick_table(str(small_sky / BRICK_TABLE)), Targets()
    good = dict(zip(table.columns["brickname"], good_bricks(table, cuts), strict=True))
    assert good[PLAIN] and good[STAR]
    found = 0
    for path in (small_sky / "sweep" / "10.1").iterdir():
        found += select_targets(read_catalogue(str(path)), cuts, Splits(), 42, table).counts["targets"]
    assert found > 5


def centroid_offset(image, x, y):
    """Centroid of the squared light around (x, y), minus (x, y)."""
    x0, y0 = int(x + 0.5), int(y + 0.5)
    light = np.clip(image[y0 - 5 : y0 + 6, x0 - 5 : x0 + 6], 0, None) ** 2
    dy, dx = np.mgrid[-5:6, -5:6]
    return (light * dx).sum() / light.sum() + x0 - x, (light * dy).sum() / light.sum() + y0 - y


def test_positions_match_pixels_through_the_wcs(small_sky):
    offsets = []
    for brick in (PLAIN, NEXT, EDGE):
        truth = fitsio.read(str(small_sky / "truth" / f"truth-{brick}.fits"))
        image, invvar = (plane(small_sky, brick, kind, "r") for kind in ("image", "invvar"))
        x, y = brick_wcs(brick, 600).sky_to_pixel(truth["ra"], truth["dec"])
        np.testing.assert_allclose(x, truth["x"], atol=1e-6)
        inside = (x > 20) & (x < 579) & (y > 20) & (y < 579) & (truth["mag_r"] < 21.5)
        for row in np.flatnonzero(inside):
            near = np.hypot(x - x[row], y - y[row]) < 15
            alone = (truth["mag_r"][near] < truth["mag_r"][row] + 2.5).sum() == 1
            if alone and invvar[int(y[row]), int(x[row])] > 0:
                offsets.append(centroid_offset(image, x[row], y[row]))
    assert len(offsets) >= 8
    assert np.abs(np.median(offsets, axis=0)).max() < 0.1


def test_a_bright_star_has_halo_bits_and_a_saturated_core(small_sky):
    bits = plane(small_sky, STAR, "maskbits")
    x, y = int(0.62 * 600), int(0.45 * 600)
    radius = star_mask_radius_arcsec(8.5) / 0.262
    assert radius == pytest.approx(365, rel=0.02)
    medium, bright = 1 << BITS["MEDIUM"], 1 << BITS["BRIGHT"]
    assert bits[y, x - int(0.45 * radius)] & bright and bits[y, x - int(0.45 * radius)] & medium
    assert not bits[y, x - int(0.55 * radius)] & bright and bits[y, x - int(0.55 * radius)] & medium
    for band in "grz":
        wanted = 1 << BITS[f"SATUR_{band.upper()}"] | 1 << BITS[f"ALLMASK_{band.upper()}"]
        assert bits[y, x] & wanted == wanted
        assert plane(small_sky, STAR, "invvar", band)[y, x] == 0
        assert plane(small_sky, STAR, "image", band)[y, x] > 10  # masked, but filled: only invvar tells
    assert not bits[y + 250, 5] & bright
    assert not plane(small_sky, PLAIN, "maskbits")[300, 300] & bright


def test_the_edge_brick_ends_with_exact_zeros(small_sky):
    for band in "grz":
        image, invvar = (plane(small_sky, EDGE, kind, band) for kind in ("image", "invvar"))
        missing = (invvar == 0).mean()
        assert 0.25 < missing < 0.5
        assert (image[:, -60:] == 0).all() and (invvar[:, -60:] == 0).all()
        assert (plane(small_sky, EDGE, "psfsize", band)[:, -60:] == 0).all()
        assert (image[:, :200] != 0).mean() > 0.99


def test_a_brick_without_g_has_no_g_anywhere(small_sky):
    assert not list(small_sky.rglob(f"*{NO_G}*-g.fits.fz"))
    row = read_brick_table(str(small_sky / BRICK_TABLE)).row(NO_G)
    assert (row["psfsize_g"], row["psfdepth_g"], row["nexp_g"]) == (0, 0, 0)
    with pytest.raises(BandMissing), BrickReader(str(small_sky), NO_G, "grz"):
        pass
    for path in (small_sky / "sweep" / "10.1").iterdir():
        rows = fitsio.read(str(path))
        rows = rows[rows["BRICKNAME"] == NO_G]
        for name in ("FLUX_G", "FLUX_IVAR_G", "PSFSIZE_G", "PSFDEPTH_G", "NOBS_G"):
            assert (rows[name] == 0).all()


def test_command_line_paints_and_teaches(tmp_path, capsys):
    assert "survey-bricks-dr10-south.fits.gz" in parser().format_help()
    args = ["--out", str(tmp_path / "sky"), "--size", "small", "--bricks", "1"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert PLAIN in out and "painted in" in out
    assert (tmp_path / "sky" / file_path(PLAIN, "maskbits")).exists()
    (tmp_path / "mine").write_text("not a sky")
    assert main(["--out", str(tmp_path)]) == 1
    assert "give an empty or new folder with --out" in capsys.readouterr().err


def masked_sky_correlation(images, invvars, steps=3):
    """Scatter over 1/sqrt(invvar), and correlation at 1..steps pixels, of what lies between the sources."""
    significance = [image * np.sqrt(invvar) for image, invvar in zip(images, invvars, strict=True)]
    sources = binary_dilation(gaussian_filter(np.sum(significance, axis=0), 1.5) > 1.0, iterations=5)
    result = []
    for plane_, invvar in zip(significance, invvars, strict=True):
        sky = ~sources & (invvar > 0)
        x = plane_ - np.median(plane_[sky])
        rho = [
            0.5 * (np.mean((x[:, k:] * x[:, :-k])[sky[:, k:] & sky[:, :-k]])
                   + np.mean((x[k:] * x[:-k])[sky[k:] & sky[:-k]])) / np.var(x[sky])
            for k in range(1, steps + 1)
        ]  # fmt: skip
        result.append([np.std(x[sky]), *rho])
    return np.mean(result, axis=0)


@pytest.mark.real
def test_noise_correlates_as_on_the_real_dr9_field(small_sky, real_data):
    """One estimator on both skies. (It reads 0.12 for neighbours; a 3 sigma clip that leaves sources in, 0.17.)"""
    base = real_data / "real" / "dr9_brick_0591m305"
    kinds = [[fitsio.FITS(str(base / file_path("0591m305", kind, band)))[1][1880:2136, 2540:2796] for band in "grz"]
             for kind in ("image", "invvar")]  # fmt: skip
    real = masked_sky_correlation(*kinds)
    mini = masked_sky_correlation(
        *([plane(small_sky, NEXT, kind, b) for b in "grz"] for kind in ("image", "invvar"))
    )
    np.testing.assert_allclose(mini, real, atol=0.035)


@pytest.mark.real
def test_pictures_of_the_mini_sky_and_of_real_fields_go_side_by_side(small_sky, real_data, tmp_path):
    out = tmp_path / "compare.png"
    assert compare(small_sky, real_data / "real", out, 0.2, 6.0) == []
    assert out.stat().st_size > 100_000
    assert compare(small_sky, tmp_path, out, 0.2, 6.0) == ["real: galaxies", "real: fields"]
