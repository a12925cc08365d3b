"""Tables of positions: what is read, what is refused, and what the message says to do."""

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import mark_duplicates, read_positions

RA, DEC = [150.1, 210.2, 359.9], [2.0, -30.5, 12.0]


def table(**columns) -> Table:
    return Table({"ra": RA, "dec": DEC, "type": ["lens", "ring", "artifact"]} | columns)


def write(tmp_path, content: Table, name: str = "t.csv") -> str:
    path = str(tmp_path / name)
    if name.endswith(".parquet"):
        pq.write_table(pa.table({n: content[n].tolist() for n in content.colnames}), path)
    else:
        kinds = {"csv": "ascii.csv", "tsv": "ascii.tab", "fits": "fits", "vot": "votable"}
        content.write(path, format=kinds[name.rsplit(".", 1)[1]], overwrite=True)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.fits", "t.vot", "t.parquet"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    found = read_positions(
        write(tmp_path, table(name=["a", "b", "c"], theta_e_arcsec=[1.2, np.nan, np.nan]), name)
    )
    np.testing.assert_array_equal(found.columns["ra"], RA)
    np.testing.assert_array_equal(found.columns["dec"], DEC)
    assert found.columns["object_type"].tolist() == ["lens", "ring", "artefact"]
    assert found.columns["label"].tolist() == [1, 0, 0]
    assert found.columns["sample"].tolist() == ["real_positive", "mimic", "mimic"]
    assert found.columns["object_name"].tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(found.columns["theta_e_arcsec"], [1.2, np.nan, np.nan])
    assert np.isnan(found.columns["mag_r"]).all() and not found.fault.any()


@pytest.mark.parametrize(
    "names",
    [
        ("RA", "DEC"),
        ("RA_ICRS", "DE_ICRS"),
        ("RAJ2000", "DEJ2000"),
        ("RA [deg]", "DEC [deg]"),
        ("ra_deg", "dec_deg"),
    ],
)
def test_usual_names_of_the_position_are_known(tmp_path, names):
    content = table()
    content.rename_columns(("ra", "dec"), names)
    np.testing.assert_array_equal(read_positions(write(tmp_path, content)).columns["ra"], RA)


@pytest.mark.parametrize("text", ["00:29:07.8", "12 34 56.7", "10h00m24.2s"])
def test_sexagesimal_text_is_refused_with_an_example_and_the_way_out(tmp_path, text):
    with pytest.raises(CatalogueError, match=rf"'ra' holds sexagesimal text such as '{text}'.*SkyCoord"):
        read_positions(write(tmp_path, table(ra=[text] * 3)), units="deg")


def test_a_unit_of_hours_is_refused(tmp_path):
    content = table(ra=np.array([1.0, 2.0, 3.0]) * u.hourangle)
    with pytest.raises(CatalogueError, match=r"'ra' has the unit .*multiply hours by 15"):
        read_positions(write(tmp_path, content, "t.vot"), units="deg")


def test_a_name_of_hours_is_refused(tmp_path):
    content = table()
    content.rename_column("ra", "ra_hours")
    with pytest.raises(CatalogueError, match="in hours by its name"):
        read_positions(write(tmp_path, content))


def test_right_ascensions_that_may_be_hours_are_asked_about(tmp_path):
    path = write(tmp_path, table(ra=[1.0, 12.0, 23.9]))
    with pytest.raises(
        CatalogueError, match=r"all 3 values of column 'ra' are between 0 and 24.*degrees or hours\?"
    ):
        read_positions(path)
    assert read_positions(path, units="deg").columns["ra"].tolist() == [1.0, 12.0, 23.9]
    said = table(ra=np.array([1.0, 12.0, 23.9]) * u.deg)
    assert not read_positions(write(tmp_path, said, "t.fits")).fault.any()


def test_missing_position_columns_are_named_with_what_was_found(tmp_path):
    with pytest.raises(CatalogueError, match=r"no column of ra and dec; found \['x', 'type'\]"):
        read_positions(write(tmp_path, Table({"x": [1.0], "type": ["lens"]})))


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"SIMPLE  ="])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "t.fits").write_bytes(content)
    with pytest.raises(CatalogueError, match="cannot be read as a table"):
        read_positions(str(tmp_path / "t.fits"))


def test_rows_off_the_sky_and_of_unknown_type_are_marked_and_lose_no_other(tmp_path):
    content = table(ra=[np.nan, 400.0, 359.9], dec=[2.0, 2.0, 12.0])
    content.add_row([10.0, -91.0, "ring"])
    content.add_row([10.0, 1.0, "blob"])
    content.add_row([360.0, 90.0, "ring"])
    found = read_positions(write(tmp_path, content))
    assert [bool(f) for f in found.fault] == [True, True, False, True, True, False]
    assert "ra 400.0, dec 2.0 is not on the sky" in found.fault[1]
    assert "type 'blob' is not known" in found.fault[4] and "--catalogue-type" in found.fault[4]


def test_a_label_column_decides_and_a_given_type_is_every_rows(tmp_path):
    content = table(type=["galaxy", "galaxy", "ring"], label=[1, 0, 0])
    found = read_positions(write(tmp_path, content))
    assert found.columns["label"].tolist() == [1, 0, 0]
    assert found.columns["sample"].tolist() == ["real_positive", "mimic", "mimic"]
    assert set(read_positions(write(tmp_path, table()), object_type="Edge-on").columns["object_type"]) == {
        "edge_on"
    }


def test_one_place_is_one_row_across_the_seam_and_at_the_pole(tmp_path):
    ra = [359.99999, 0.00001, 10.0, 190.0, 50.0, 50.0]
    dec = [5.0, 5.0, 89.99995, 89.99995, 0.0, 0.001]
    found = mark_duplicates(
        read_positions(write(tmp_path, Table({"ra": ra, "dec": dec, "kind": ["lens"] * 6})))
    )
    assert [bool(f) for f in found.fault] == [False, True, False, True, False, False]
    assert found.fault[1] == "duplicate: within 1 arcsec of row 0"


def test_one_place_of_two_labels_is_left_out_with_both_rows_named(tmp_path):
    content = Table({"ra": [50.0, 50.0, 60.0], "dec": [1.0, 1.0001, 1.0], "kind": ["lens", "ring", "ring"]})
    found = mark_duplicates(read_positions(write(tmp_path, content)))
    assert [bool(f) for f in found.fault] == [True, True, False]
    assert "rows [0, 1]" in found.fault[0] and "keep one" in found.fault[0]
