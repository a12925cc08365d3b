"""Every format holds the same scored rows, with units and UCDs where it has a place for them."""

import csv

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import parse, ucd
from astropy.table import Table
from fabricated import candidates

from darkhaloscope.search import catalogue_files, votable
from darkhaloscope.search.catalogue_files import WRITERS, catalogue_of, formats, partitions, write_hats
from darkhaloscope.search.columns import UCDS
from darkhaloscope.search.ranking import rank
from darkhaloscope.search.votable import write_votable

HOSTILE = ['<script>alert("x")</script>', '=cmd|"/c calc"!A1', "a,b;\n'c'\"d\"", "Ωλ ☃", ""]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Five scored rows and a refused one in every format: (folder, the catalogue)."""
    folder = tmp_path_factory.mktemp("catalogue")
    rng = np.random.default_rng(0)
    ra, dec, logit = (
        rng.uniform(0, 360, 6),
        rng.uniform(-60, 30, 6),
        np.array([0.1, 0.2, 0.3, 0.4, 0.5, np.nan]),
    )
    table = rank(candidates(ra, dec, logit, object_name=[*HOSTILE, "refused"]), None, 1e-3, 0.0, None)
    catalogue = catalogue_of(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_files, "ROWS_AT_A_TIME", 2)
        for file, write in WRITERS.values():
            write(catalogue, folder / file)
    return folder, catalogue


def _texts(column):
    return [v.decode() if isinstance(v, bytes) else str(v) for v in np.ma.filled(column, "")]


@pytest.mark.parametrize("kind", ["fits", "votable", "csv", "parquet"])
def test_every_format_gives_the_same_rows_back_hostile_names_included(written, kind):
    folder, catalogue = written
    if kind == "csv":
        with (folder / "candidates.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        names, ra = [r["object_name"] for r in rows], [float(r["ra"]) for r in rows]
    elif kind == "parquet":
        files = sorted((folder / "hats").rglob("*.parquet"))
        tables = [pq.read_table(f, partitioning=None) for f in files]
        names = [n for t in tables for n in t.column("object_name").to_pylist()]
        ra = [v for t in tables for v in t.column("ra").to_pylist()]
    elif kind == "fits":
        found = fitsio.read(str(folder / "candidates.fits"), ext=1)
        names, ra = (
            np.char.decode(np.char.encode(found["object_name"]), "unicode_escape").tolist(),
            found["ra"].tolist(),
        )
    else:
        found = Table.read(folder / "candidates.vot")
        names, ra = _texts(found["object_name"]), found["ra"].tolist()
    wanted = catalogue.column("object_name").to_pylist()
    assert len(wanted) == 5 and sorted(names) == sorted(wanted) == sorted(HOSTILE)
    by_name = dict(zip(wanted, catalogue.column("ra").to_pylist(), strict=True))
    assert all(by_name[n] == pytest.approx(v) for n, v in zip(names, ra, strict=True))


def test_units_ucds_and_descriptions_are_in_the_fits_header_and_the_votable(written):
    folder, _ = written
    with fits.open(folder / "candidates.fits") as hdus:
        header = hdus[1].header
    at = {header[f"TTYPE{i}"]: i for i in range(1, header["TFIELDS"] + 1)}
    assert header[f"TUNIT{at['ra']}"] == "deg" and header[f"TUCD{at['ra']}"] == "pos.eq.ra;meta.main"
    assert header[f"TUNIT{at['mag_r']}"] == "mag" and "magnitude" in header[f"TCOMM{at['mag_r']}"]
    fields = {f.name: f for f in parse(folder / "candidates.vot").get_first_table().fields}
    assert str(fields["false_per_sqdeg"].unit) in ("deg-2", "1 / deg2")
    assert fields["dec"].ucd == "pos.eq.dec;meta.main" and "more lens-like" in fields["logit"].description


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 100])
def test_a_votable_holds_every_cell_and_tells_what_is_missing(written, tmp_path, monkeypatch, rows_at_a_time):
    _, catalogue = written
    monkeypatch.setattr(votable, "ROWS_AT_A_TIME", rows_at_a_time)
    write_votable(catalogue, tmp_path / "a.vot")
    found = parse(tmp_path / "a.vot", verify="exception").get_first_table().array
    assert found.dtype.names == tuple(catalogue.column_names)
    for name, column in zip(catalogue.column_names, catalogue.columns, strict=True):
        if pa.types.is_string(column.type):
            assert _texts(found[name]) == column.fill_null("").to_pylist(), name
        else:
            np.testing.assert_array_equal(np.ma.getmaskarray(found[name]), column.is_null(), name)
            np.testing.assert_array_equal(found[name].compressed(), column.drop_null(), name)


def test_every_column_has_a_valid_ucd(written):
    _, catalogue = written
    assert set(catalogue.column_names) <= set(UCDS)
    for name in catalogue.column_names:
        assert ucd.check_ucd(UCDS[name], check_controlled_vocabulary=True), name


def test_partitions_are_healpix_cells_that_hold_every_row_once():
    rng = np.random.default_rng(1)
    cells = np.sort(np.concatenate([rng.integers(0, 12 << 58, 500), rng.integers(0, 1 << 30, 500)]))
    made = partitions(cells, 100)
    assert [(f, s) for _, _, f, s in made] == list(
        zip([0, *(s for *_, s in made[:-1])], [s for *_, s in made], strict=True)
    )
    assert made[-1][3] == 1000 and max(s - f for _, _, f, s in made) <= 100
    for order, pixel, first, stop in made:
        assert set((cells[first:stop] >> 2 * (29 - order)).tolist()) == {pixel}


def test_an_unknown_format_is_refused_with_those_there_are():
    assert formats("Parquet, csv") == ["parquet", "csv"]
    with pytest.raises(ValueError, match="parquet, fits, votable, csv"):
        formats("parquet,xls")


@pytest.mark.slow
@pytest.mark.parametrize("rows_a_partition", [1_000_000, 1])
def test_hats_and_lsdb_open_the_catalogue(written, tmp_path, monkeypatch, rows_a_partition):
    missing = "opening the catalogue as its users do needs: pip install 'darkhaloscope[hats]'"
    hats = pytest.importorskip("hats", reason=missing)
    validation = pytest.importorskip("hats.io.validation", reason=missing)
    lsdb = pytest.importorskip("lsdb", reason=missing)
    _, catalogue = written
    monkeypatch.setattr(catalogue_files, "PARTITION_ROWS", rows_a_partition)
    write_hats(catalogue, tmp_path / "hats")
    assert validation.is_valid_catalog(tmp_path / "hats", strict=True)
    found = hats.read_hats(tmp_path / "hats")
    assert found.catalog_info.total_rows == 5 and found.schema.names == catalogue.column_names
    opened = lsdb.open_catalog(tmp_path / "hats")
    assert opened.npartitions == (5 if rows_a_partition == 1 else 4)  # four cells of order 0
    whole = opened.compute().sort_values("rank")
    assert whole["name"].tolist() == catalogue.sort_by("rank").column("name").to_pylist()
    for ra, dec, name in zip(*(catalogue.column(n).to_pylist() for n in ("ra", "dec", "name")), strict=True):
        assert opened.cone_search(ra, dec, 1.0).compute()["name"].tolist() == [name]
    matched = opened.crossmatch(opened, radius_arcsec=1.0).compute()
    assert len(matched) == 5 and (matched["_dist_arcsec"] < 1e-3).all()
