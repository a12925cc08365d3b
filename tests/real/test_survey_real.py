"""The survey package on real files of DR6, DR8, DR9 and DR10."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.stats import mad_std
from astropy.wcs import WCS

from darkhaloscope.sections import Splits, Targets
from darkhaloscope.survey import bricks, extinction
from darkhaloscope.survey.catalogue import read_catalogue
from darkhaloscope.survey.coadds import BrickReader, file_name, file_path
from darkhaloscope.survey.errors import BandMissing, BrickUnreadable, CatalogueError, FitsBroken
from darkhaloscope.survey.fits_headers import check_fits
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.targets import VARIANTS, colour_cuts, select_targets

pytestmark = pytest.mark.real

DR9, DR6 = "0591m305", "0959p805"


@pytest.fixture
def dr9(real_data):
    return real_data / "real" / "dr9_brick_0591m305"


@pytest.fixture
def dr6(real_data, tmp_path):
    """The DR6 brick, put into the directory layout."""
    folder = tmp_path / file_path(DR6, "image", "g")
    folder.parent.mkdir(parents=True)
    for path in (real_data / "real" / "dr6_brick_0959p805").glob("*.fz"):
        shutil.copy(path, folder.parent / path.name)
    return tmp_path


def test_a_section_of_the_dr9_brick_is_the_whole_plane_there(dr9):
    with BrickReader(str(dr9), DR9) as brick:
        for kind in ("image", "invvar"):
            for i, band in enumerate("grz"):
                with fits.open(dr9 / file_path(DR9, kind, band)) as file:
                    whole = file[1].data
                for x0, y0 in ((2540, 1880), (2651, 2003), (2500, 1850)):
                    cut = getattr(brick.cut(x0, y0, 64), kind)[i]
                    expected = whole[y0 : y0 + 64, x0 : x0 + 64]
                    if kind == "invvar":  # quantised to values below 0 where nothing was exposed
                        expected = np.maximum(expected, 0)
                    assert np.array_equal(cut, expected)


def test_the_dr9_brick_says_that_it_has_no_maskbits_and_takes_psf_size_from_a_table(dr9):
    facts = json.loads((dr9 / "facts.json").read_text())
    row = {f"psfsize_{b}": v for b, v in facts["psfsize_equivalent_arcsec"].items()}
    with BrickReader(str(dr9), DR9, brick_row=row) as brick:
        assert not brick.has_maskbits and not brick.cut(2540, 1880, 64).has_maskbits
        sizes, source = brick.psfsize(2600, 1900)
        assert source == "brick_table" and sizes == pytest.approx([1.3686, 1.2493, 1.2489], abs=1e-3)
    with BrickReader(str(dr9), DR9) as brick, pytest.raises(BrickUnreadable, match="has no psfsize map"):
        brick.psfsize(2600, 1900)


def test_the_measured_sky_of_the_dr9_brick_is_what_invvar_says(dr9):
    with BrickReader(str(dr9), DR9) as brick:
        cut = brick.cut(2540, 1880, 256)
    for i, expected in enumerate((0.0020, 0.0025, 0.0089)):
        sigma = 1 / np.sqrt(np.median(cut.invvar[i][cut.invvar[i] > 0]))
        assert sigma == pytest.approx(expected, rel=0.03)
        assert mad_std(cut.image[i]) == pytest.approx(sigma, rel=0.08)
    with BrickReader(str(dr9), DR9) as brick:
        assert not brick.cut(1000, 1000, 64).invvar.any(), "not exposed there"


def test_the_dr9_bricks_wcs_agrees_with_astropy_and_with_the_brick_grid(dr9):
    with fits.open(dr9 / file_path(DR9, "image", "r")) as file:
        oracle = WCS(file[1].header)
    x, y = np.random.default_rng(1).uniform(0, 3600, (2, 1000))
    ra, dec = oracle.all_pix2world(x, y, 0)
    row, column = bricks.parse_names([DR9])
    with BrickReader(str(dr9), DR9) as brick:
        assert np.abs(np.stack(brick.sky_to_pixel(ra, dec)) - [x, y]).max() < 1e-4
        assert brick.wcs.crval == pytest.approx([v[0] for v in bricks.brick_centre(row, column)], abs=1e-9)


def test_the_dr6_brick_without_r_is_refused_by_band_and_read_in_the_others(dr6):
    with pytest.raises(
        BandMissing, match=rf"^{DR6}: image-r, invvar-r not found.*image and invvar: gz, expected grz"
    ):
        BrickReader(str(dr6), DR6).open()
    with BrickReader(str(dr6), DR6, "gz") as brick:
        cut = brick.cut(0, 0, 3600)
        assert 0.10 < np.mean(cut.invvar[0] > 0) < 0.14, "12 % of g is exposed"
        small = brick.cut(2000, 3000, 64)
        assert np.array_equal(small.image, cut.image[:, 3000:3064, 2000:2064])


def test_the_dr6_brick_tables_are_read_and_their_depth_is_a_magnitude(real_data):
    folder = real_data / "real" / "dr6_brick_0959p805"
    release = bricks.read_brick_table(str(folder / "survey-bricks-dr6.fits.gz")).row(DR6)
    assert release["psfdepth_g"] == pytest.approx(23.4385, abs=1e-4) and release["psfsize_z"] == 0
    assert len(bricks.read_brick_table(str(folder / "survey-bricks.fits.gz"))) == 1


def test_truncated_files_are_found(real_data, dr9, tmp_path):
    with pytest.raises(FitsBroken, match=r"1,389,044 bytes, header says [\d,]+; file is truncated"):
        check_fits(real_data / "broken" / "truncated.fits")
    shutil.copytree(dr9 / "coadd", tmp_path / "coadd")
    target = tmp_path / file_path(DR9, "image", "r")
    target.unlink()
    shutil.copyfile(real_data / "broken" / "truncated.fits", target)
    with pytest.raises(
        BrickUnreadable, match=f"^{DR9}: image-r has 1,389,044 bytes.*delete it from the cache"
    ):
        BrickReader(str(tmp_path), DR9).open()
    with pytest.raises(CatalogueError, match="truncated"):
        read_catalogue(str(real_data / "broken" / "truncated.fits"))


def test_every_real_fits_file_passes_the_structure_check(real_data):
    paths = [
        p for ending in ("fits", "fz") for p in real_data.rglob(f"*.{ending}") if p.parent.name != "broken"
    ]
    assert len(paths) > 20
    for path in paths:
        assert check_fits(path) <= path.stat().st_size


@pytest.mark.parametrize(
    "name", ["dr9_tractor-1054p567.fits", "dr8_tractor_sweep_extracts/sweep-310m005-320p000.fits"]
)
def test_depths_of_real_catalogues_are_magnitudes_and_transmissions_ours(real_data, name):
    path = real_data / "catalogs" / name
    catalogue = read_catalogue(str(path))
    assert ((catalogue.columns["psfdepth_r"] > 23) & (catalogue.columns["psfdepth_r"] < 26)).all()
    raw = fits.getdata(path)
    ours = extinction.transmission(catalogue.columns["ebv"])
    assert np.allclose(ours, np.stack([raw[f"MW_TRANSMISSION_{b}"] for b in "GRZ"], axis=-1), atol=2e-6)


def test_dr8_types_have_no_blanks_so_that_stars_are_left_out(real_data):
    folder = real_data / "catalogs" / "dr8_tractor_sweep_extracts"
    for path in folder.glob("sweep-*.fits"):
        catalogue = read_catalogue(str(path))
        stars = np.char.strip(fits.getdata(path)["TYPE"].astype(str)) == "PSF"
        assert stars.any() and np.array_equal(catalogue.columns["type"] == "PSF", stars)
        assert set(catalogue.absent) >= {"psfsize_r", "shape_r", "brick_primary"}
        with pytest.raises(
            CatalogueError, match=r"PSFSIZE_G, PSFSIZE_R, PSFSIZE_Z .DR8 has none.*survey-bricks table"
        ):
            select_targets(catalogue, Targets(), Splits(), 42)


def test_names_and_numbers_of_bricks_are_those_of_real_catalogues(real_data):
    folder = real_data / "catalogs"
    for path in folder.glob("dr8_tractor_sweep_extracts/sweep-*.fits"):
        c = read_catalogue(str(path)).columns
        assert np.array_equal(bricks.names_at(c["ra"], c["dec"]), c["brickname"])
        assert np.array_equal(bricks.brick_id(*bricks.brick_at(c["ra"], c["dec"])), c["brickid"])


def test_the_margin_of_a_real_tractor_file_is_left_to_the_neighbours(real_data):
    path = real_data / "catalogs" / "dr8_tractor_sweep_extracts" / "tractor-3301m007.fits"
    c = read_catalogue(str(path))
    columns = {**c.columns, **{f"psfsize_{b}": np.full(len(c), 1.2) for b in "grz"}}
    selection = select_targets(type(c)(columns, (), c.source), Targets(), Splits(), 42)
    outside = bricks.names_at(c.columns["ra"], c.columns["dec"]) != c.columns["brickname"]
    assert selection.counts["not primary in its brick"] == np.count_nonzero(outside) > 0


def test_real_dr10_lrgs_pass_the_v3_cuts_and_lie_in_their_bricks(real_data):
    table = pq.read_table(real_data / "catalogs" / "dr10_lrg_sample.parquet")
    t = {n: table.column(n).to_numpy() for n in table.column_names}
    mags = [magnitude(t[f"FLUX_{b}"]) for b in ("R", "Z", "W1")]
    passed = colour_cuts(*mags, VARIANTS["v3_color_relaxed"])
    assert len(t["RA"]) == 9239 and all(p.all() for p in passed.values())
    fractions = {
        v: np.mean(np.all(list(colour_cuts(*mags, cuts).values()), axis=0)) for v, cuts in VARIANTS.items()
    }
    assert fractions["v1_pure_massive"] < fractions["v2_baseline_dr10"] < 1 == fractions["v4_mag_relaxed"]
    assert np.array_equal(bricks.names_at(t["RA"], t["DEC"]), t["BRICKNAME"].astype(str))
    assert file_name(DR9, "maskbits") == "legacysurvey-0591m305-maskbits.fits.fz"
