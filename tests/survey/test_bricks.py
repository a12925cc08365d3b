import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkhaloscope.survey import bricks
from darkhaloscope.survey.bricks import BrickTable, read_brick_table
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.wcs import TanWcs

# name, BRICKID, BRICKROW, BRICKCOL, RA, DEC of survey-bricks and of real catalogues
KNOWN = [
    ("0959p805", 657438, 682, 64, 95.9504132231405, 80.5),
    ("0591m305", None, 238, 204, 59.1800643086817, -30.5),
    ("3145m032", 312906, 347, None, None, -3.25),
    ("3381m017", 321640, 353, None, None, -1.75),
    ("1054p567", 607466, 587, None, None, 56.75),
]


@pytest.mark.parametrize("name,number,row,column,ra,dec", KNOWN)
def test_names_ids_and_centres_are_the_surveys(name, number, row, column, ra, dec):
    (r,), (c,) = bricks.parse_names([name])
    assert r == row and (column is None or c == column)
    assert bricks.brick_name(r, c)[0] == name
    assert number is None or bricks.brick_id(r, c) == number
    centre = bricks.brick_centre(r, c)
    assert centre[1] == dec and (ra is None or abs(centre[0] - ra) < 1e-9)
    assert bricks.names_at(*centre)[0] == name


def test_the_sky_has_as_many_bricks_as_the_surveys_table():
    assert bricks.brick_id(720, 0) == 662174


def test_every_name_is_distinct_and_parses_back_to_its_brick():
    rows = np.array([0, 1, 10, 89, 144, 359, 360, 361, 500, 719, 720])
    row = np.repeat(
        rows, [int(bricks.brick_id(r + 1, 0) - bricks.brick_id(r, 0)) if r < 720 else 1 for r in rows]
    )
    column = np.concatenate([np.arange(np.count_nonzero(row == r)) for r in rows])
    names = bricks.brick_name(row, column)
    assert len(set(names)) == len(names)
    back = bricks.parse_names(names)
    assert np.array_equal(back[0], row) and np.array_equal(back[1], column)


@pytest.mark.parametrize("pair", [("0299m875", "0300m875"), ("1403m677", "1404m677")])
def test_a_brick_named_with_or_without_rounding_error_is_one_brick(pair):
    (r, _), (c, _) = bricks.parse_names(pair)
    assert [tuple(int(v[i]) for v in bricks.parse_names(pair)) for i in (0, 1)] == [(r, c)] * 2


@given(ra=st.floats(-720, 720), dec=st.floats(-90, 90))
def test_a_position_lies_within_its_bricks_bounds(ra, dec):
    row, column = bricks.brick_at(np.array([ra]), np.array([dec]))
    ra1, ra2, dec1, dec2 = (float(v[0]) for v in bricks.brick_bounds(row, column))
    assert ra1 - 1e-9 <= ra % 360 <= ra2 + 1e-9 and dec1 <= dec <= dec2
    assert (ra2 - ra1) * np.cos(np.radians(min(abs(dec1), abs(dec2)))) <= 0.25 + 1e-9 or row[0] in (0, 720)


@given(ra=st.floats(0, 359.999), dec=st.floats(-85, 85))
def test_a_galaxy_primary_in_its_brick_is_at_least_64_pixels_inside_the_coadd(ra, dec):
    row, column = bricks.brick_at(np.array([ra]), np.array([dec]))
    (ra0,), (dec0,) = bricks.brick_centre(row, column)
    x, y = TanWcs.of_brick(ra0, dec0).sky_to_pixel(ra, dec)
    assert min(x, y) > 64 and max(x, y) < 3599 - 64


def test_ra_wraps_and_the_poles_are_bricks_of_their_own():
    assert (
        bricks.names_at([360.0, 0.0, -1e-9, 359.99], [0.0] * 4).tolist()
        == ["0001p000"] * 2 + ["3598p000"] * 2
    )
    assert bricks.names_at([10.0, 200.0], [90.0, -90.0]).tolist() == ["1800p900", "1800m900"]


@pytest.mark.parametrize(
    "name", ["", "0591m30", "0591x305", "0591m306", "0590m305", "0001m000", "3700p000", "059 m305"]
)
def test_a_name_of_no_brick_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"brick name '{name}'"):
        bricks.parse_names(["0591m305", name])


@pytest.mark.parametrize("ra,dec", [(np.nan, 0), (10, 90.1), (10, np.inf)])
def test_positions_off_the_sky_are_refused_with_their_number(ra, dec):
    with pytest.raises(ValueError, match=r"1 of 2 positions are not on the sky.*expected finite degrees"):
        bricks.brick_at(np.array([1.0, ra]), np.array([1.0, dec]))


def _table(names):
    ra, dec = bricks.brick_centre(*bricks.parse_names(names))
    return {"brickname": np.array(names), "ra": ra, "dec": dec, "psfsize_r": np.arange(len(names)) + 1.0}


def test_the_table_decides_which_bricks_exist_and_how_they_are_called():
    table = BrickTable(_table(["1403m677", "0591m305"]), "table")  # the first: a name with rounding error
    ra, dec = table.columns["ra"], table.columns["dec"]
    assert table.names_at(ra, dec).tolist() == ["1403m677", "0591m305"]
    assert table.names_at([0.0], [0.0]).tolist() == [""]
    assert table.index(["0591m305", "0001p000"]).tolist() == [1, -1]
    assert table.row("0591m305")["psfsize_r"] == 2.0
    with pytest.raises(KeyError, match="brick 0001p000 is not among the 2 bricks of table"):
        table.row("0001p000")
    empty = BrickTable({k: v[:0] for k, v in _table(["0591m305"]).items()})
    assert empty.index(["0591m305"]).tolist() == [-1] and empty.names_at([1.0], [1.0]).tolist() == [""]


def _write(path, columns):
    import fitsio

    data = {k.upper(): (v.astype("S8") if v.dtype.kind == "U" else v) for k, v in columns.items()}
    fitsio.write(str(path), data, clobber=True)
    return str(path)


def test_a_brick_table_is_read_whatever_the_case_of_its_columns(tmp_path):
    columns = {**_table(["0591m305", "0959p805"]), "psfdepth_r": np.array([24.5, 0.0], np.float32)}
    table = read_brick_table(_write(tmp_path / "bricks.fits.gz", columns))
    assert table.row("0591m305")["psfdepth_r"] == 24.5, "a magnitude already, not an inverse variance"
    assert table.columns["brickname"].tolist() == ["0591m305", "0959p805"]


def test_a_table_of_another_brick_grid_is_refused(tmp_path):
    columns = _table(["0591m305"])
    columns["ra"] = columns["ra"] + 0.01
    with pytest.raises(
        CatalogueError, match=r"brick 0591m305 is centred at 59\.19.*is it a 0.25 deg brick table"
    ):
        read_brick_table(_write(tmp_path / "bricks.fits", columns))
    del columns["ra"]
    with pytest.raises(CatalogueError, match=r"no columns \['ra'\]; expected a survey-bricks table"):
        read_brick_table(_write(tmp_path / "bricks.fits", columns))
    (tmp_path / "bricks.fits").write_bytes(b"<html>503</html>")
    with pytest.raises(
        CatalogueError, match=r"bricks.fits: brick table cannot be read as FITS.*fetch it again"
    ):
        read_brick_table(str(tmp_path / "bricks.fits"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_brick_table(str(tmp_path / "nowhere.fits"))
