"""Redshifts that others measured, joined to a sweep's rows: its companion file, or a table keyed by host_id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem

from darkhaloscope.storage import filesystem
from darkhaloscope.survey.catalogue import Catalogue
from darkhaloscope.survey.errors import CatalogueError, FitsBroken
from darkhaloscope.survey.files import local_copy
from darkhaloscope.survey.fits_rows import open_rows
from darkhaloscope.survey.redshifts import TABLE, prefer

KEYS = ("release", "brickid", "objid")


def with_companion(pieces: Iterable[Catalogue], url: str, scratch: str | None = None) -> Iterator[Catalogue]:
    """Add z_spec and z_phot of a photometric-redshift companion to a sweep's pieces, row by row.

    The companions of the Legacy Surveys (`sweep-*-pz.fits`; Zhou et al. 2021, MNRAS 501, 3309) have the rows of
    their sweep, in its order: RELEASE, BRICKID, OBJID, Z_PHOT_MEDIAN and Z_SPEC, -99 where there is none.

    Raises:
        FileNotFoundError, TransferFailed: as `read_chunks`.
        CatalogueError: a column is missing, or a row is another object than the sweep's; the first is named.
    """
    try:
        with local_copy(url, scratch) as path, open_rows(path) as table:
            missing = [n.upper() for n in (*KEYS, "z_phot_median") if n not in table.columns]
            if missing:
                raise CatalogueError(
                    f"{url}: no columns {', '.join(missing)}; expected a sweep's photometric redshifts (*-pz.fits)"
                )
            start = 0
            for piece in pieces:
                found = table.read([*KEYS, "z_phot_median", "z_spec"], start, start + len(piece))
                _check_rows(found, piece, start, url)
                named = {"z_phot": "z_phot_median", "z_spec": "z_spec"}
                z = {ours: found[theirs] for ours, theirs in named.items() if theirs in found}
                yield Catalogue(piece.columns | z, piece.absent, piece.source)
                start += len(piece)
            if table.rows != start:
                raise CatalogueError(
                    f"{url}: has {table.rows:,} rows, its sweep {start:,}; take the companion of the same release"
                )
    except FitsBroken as error:
        raise CatalogueError(f"{url}: photometric redshifts {error}; fetch it again") from error


def _check_rows(found: Mapping[str, np.ndarray], piece: Catalogue, start: int, url: str) -> None:
    """Raise `CatalogueError` where a row of the companion is not the sweep's object."""
    n = len(found["objid"])
    other = np.any([found[k] != piece.columns[k][:n] for k in KEYS], axis=0)
    if other.any() or n < len(piece):
        row = int(np.argmax(other)) if other.any() else n
        ours, theirs = ([int(v) for k in KEYS for v in c[k][row : row + 1]] for c in (piece.columns, found))
        raise CatalogueError(
            f"{url}: row {start + row:,} is RELEASE, BRICKID, OBJID {theirs}, in the sweep it is {ours}, and "
            f"{int(other.sum()):,} of rows {start:,} to {start + len(piece) - 1:,} differ; take the companion of "
            "the same release"
        )


def join_table(columns: dict[str, np.ndarray], url: str) -> dict[str, np.ndarray]:
    """Return TARGETS columns with z_host taken from a Parquet table of host_id and z_host where it has them.

    Only the row groups that may hold these galaxies are read (sort the table by host_id), piece by piece.

    Raises:
        CatalogueError: a column is missing or mistyped, or the table has a galaxy twice.
        FileNotFoundError: no such table.
    """
    ids = columns["host_id"]
    if not len(ids):
        return columns
    order = np.argsort(ids)
    found = np.full(len(ids), np.nan)
    seen = np.zeros(len(ids), dtype=bool)
    for batch in _rows_between(url, int(ids.min()), int(ids.max())):
        theirs, z = batch.column("host_id").to_numpy(), batch.column("z_host").to_numpy(zero_copy_only=False)
        at = np.minimum(np.searchsorted(ids, theirs, sorter=order), len(ids) - 1)
        mine = ids[order[at]] == theirs
        rows, names = order[at[mine]], theirs[mine]
        if seen[rows].any() or len(np.unique(rows)) < len(rows):
            raise CatalogueError(
                f"{url}: has galaxies twice, e.g. host_id {names[:1]}; one row a galaxy is expected"
            )
        seen[rows], found[rows] = True, z[mine]
    redshift, source = columns["z_host"].copy(), columns["z_host_source"].copy()
    prefer(found, TABLE, redshift, source)
    return columns | {"z_host": redshift, "z_host_source": source}


def open_table(url: str) -> ds.Dataset:
    """Return a Parquet table of redshifts.

    Raises:
        CatalogueError: it lacks host_id (int64) or z_host (float or double).
        FileNotFoundError: there is none at `url`.
    """
    fs, path = filesystem(url)
    table = ds.dataset(path, format="parquet", filesystem=PyFileSystem(FSSpecHandler(fs)))
    types = {field.name: field.type for field in table.schema}
    if types.get("host_id") != pa.int64() or not pa.types.is_floating(types.get("z_host", pa.null())):
        found = ", ".join(f"{name} ({kind})" for name, kind in types.items())
        raise CatalogueError(
            f"{url}: has columns {found}; expected host_id (int64) and z_host (double or float)"
        )
    return table


def _rows_between(url: str, low: int, high: int) -> Iterator[pa.RecordBatch]:
    key = ds.field("host_id")
    wanted = (key >= low) & (key <= high)
    yield from open_table(url).to_batches(columns=["host_id", "z_host"], filter=wanted)
