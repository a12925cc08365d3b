"""Sweeps as they are read: columns, pieces, numbers of galaxies, and what a broken file says."""

import fitsio
import numpy as np
import pytest
from survey_testing import galaxies

from darkhaloscope.survey.catalogue import host_id, read_catalogue, read_chunks
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.fits_rows import text


def test_missing_columns_are_all_named(tmp_path):
    rows, path = galaxies(), str(tmp_path / "sweep-150p000-160p005.fits")
    fitsio.write(path, rows[[n for n in rows.dtype.names if n not in ("EBV", "FLUX_W1")]].copy())
    with pytest.raises(CatalogueError, match=r"160p005.fits: no columns EBV, FLUX_W1; expected"):
        read_catalogue(path)


def test_a_sweep_read_in_pieces_has_the_columns_of_the_whole(tmp_path):
    path = str(tmp_path / "sweep.fits")
    fitsio.write(path, galaxies(25))
    pieces = list(read_chunks(path, 10))
    assert [len(p) for p in pieces] == [10, 10, 5]
    for name, values in read_catalogue(path).columns.items():
        joined = np.concatenate([p.columns[name] for p in pieces])
        assert np.array_equal(text(joined) if values.dtype.kind == "U" else joined, values), name


def test_a_broken_catalogue_says_what_is_wrong(tmp_path):
    path = tmp_path / "sweep.fits"
    fitsio.write(str(path), galaxies(500))
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(
        CatalogueError, match=r"sweep.fits: catalogue has 30,000 bytes, header.* truncated; fetch"
    ):
        read_catalogue(str(path))
    path.write_bytes(b"ra,dec\n1,2\n")
    with pytest.raises(CatalogueError, match="not a FITS file"):
        read_catalogue(str(path))
    path.unlink()
    fitsio.write(str(path), np.zeros((4, 4), np.float32))
    with pytest.raises(CatalogueError, match="no binary table"):
        read_catalogue(str(path))
    with pytest.raises(FileNotFoundError):
        read_catalogue(str(tmp_path / "none.fits"))


def test_host_ids_are_unique_and_refuse_what_does_not_fit():
    release, brick, obj = np.meshgrid([9010, 10000], [1, 662174], [0, 65535], indexing="ij")
    assert len(set(host_id(release.ravel(), brick.ravel(), obj.ravel()).tolist())) == 8
    with pytest.raises(CatalogueError, match=r"OBJID between 0 and 65536; host_id has room for 0 to 65535"):
        host_id(np.array([1, 1]), np.array([1, 1]), np.array([0, 65536]))
