"""Tractor and sweep catalogues of DR8 to DR10: only the columns needed, in one set of names and units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from darkhaloscope.records import BANDS
from darkhaloscope.survey.errors import CatalogueError, FitsBroken
from darkhaloscope.survey.files import local_copy
from darkhaloscope.survey.fits_headers import check_fits
from darkhaloscope.survey.fits_rows import open_rows, text
from darkhaloscope.survey.photometry import depth_magnitude

REQUIRED = (
    "release", "brickid", "brickname", "objid", "type", "ra", "dec", "ebv",
    "flux_g", "flux_r", "flux_z", "flux_w1", "psfdepth_g", "psfdepth_r", "psfdepth_z",
)  # fmt: skip
OPTIONAL = (
    "psfsize_g", "psfsize_r", "psfsize_z", "nobs_g", "nobs_r", "nobs_z",
    "flux_ivar_g", "flux_ivar_r", "flux_ivar_z", "flux_ivar_w1",
    "brick_primary", "shape_r", "shape_e1", "shape_e2",
)  # fmt: skip
PIECE_ROWS = 65_536


@dataclass(frozen=True)
class Catalogue:
    """Rows of a catalogue.

    columns: lower-case name -> (n,) array. Fluxes are nmgy, psfsize_* arcsec, and psfdepth_* 5-sigma AB
        magnitudes (the file has inverse variances; converted here, once), NaN without exposures. brickname and
        type are str, or in pieces bytes as in the file, with trailing blanks (`text` makes str of them).
    absent: optional columns the file does not have (DR8: psfsize_*, shape_*; sweeps: brick_primary).
    source: path or URL, for messages.
    """

    columns: dict[str, np.ndarray]
    absent: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.columns["ra"])


def read_catalogue(url: str, scratch: str | None = None) -> Catalogue:
    """Read a whole Tractor or sweep file, its text as str; see `read_chunks` for large ones.

    Raises:
        FileNotFoundError: there is none at `url`.
        CatalogueError: not FITS, truncated, no table, or required columns missing (all are named).
    """
    chunks = list(read_chunks(url, scratch=scratch))
    columns = {k: np.concatenate([c.columns[k] for c in chunks]) for k in chunks[0].columns}
    columns |= {name: text(columns[name]) for name in ("brickname", "type")}
    return Catalogue(columns, chunks[0].absent, url)


def read_chunks(url: str, chunk_rows: int = PIECE_ROWS, scratch: str | None = None) -> Iterator[Catalogue]:
    """Yield a Tractor or sweep file piece by piece, at most `chunk_rows` rows in memory; at least one piece.

    Files that are not local are copied to `scratch` first.

    Raises:
        FileNotFoundError, CatalogueError: as `read_catalogue`.
    """
    with local_copy(url, scratch) as path:
        try:
            if not path.endswith(".gz"):
                check_fits(path)
            with open_rows(path) as table:
                for start in range(0, max(table.rows, 1), chunk_rows):
                    yield catalogue_of(table.read([*REQUIRED, *OPTIONAL], start, start + chunk_rows), url)
        except FitsBroken as error:
            raise CatalogueError(f"{url}: catalogue {error}; fetch it again") from error


def catalogue_of(columns: dict[str, np.ndarray], url: str) -> Catalogue:
    """Return columns of a file, lower-case names, as a catalogue; depths become magnitudes.

    Raises:
        CatalogueError: required columns are missing; all are named.
    """
    if missing := [name.upper() for name in REQUIRED if name not in columns]:
        raise CatalogueError(
            f"{url}: no columns {', '.join(missing)}; expected a Tractor or sweep catalogue of DR8 or later"
        )
    for band in BANDS:
        columns[f"psfdepth_{band}"] = depth_magnitude(columns[f"psfdepth_{band}"])
    return Catalogue(columns, tuple(name for name in OPTIONAL if name not in columns), url)


def host_id(release: np.ndarray, brickid: np.ndarray, objid: np.ndarray) -> np.ndarray:
    """Return the catalogue's unique object number: release << 40 | brickid << 16 | objid, (n,) int64.

    Raises:
        CatalogueError: a number that does not fit its field.
    """
    parts = [np.asarray(v, dtype=np.int64) for v in (release, brickid, objid)]
    for name, values, bits in zip(("RELEASE", "BRICKID", "OBJID"), parts, (23, 24, 16), strict=True):
        if len(values) and (values.min() < 0 or values.max() >= 1 << bits):
            raise CatalogueError(
                f"{name} between {values.min()} and {values.max()}; host_id has room for "
                f"0 to {(1 << bits) - 1}"
            )
    return parts[0] << 40 | parts[1] << 16 | parts[2]
