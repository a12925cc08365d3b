"""Lenses and candidates that are known already: lenscat, a public catalogue, matched to positions.

lenscat (Vujeva et al. 2024, arXiv:2406.04398) is a CSV of name, RA [deg], DEC [deg], zlens, type, grading, ref. Its
Python package depends on hundreds of megabytes that matching needs not: the file alone is read.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from darkhaloscope.sky import nearest
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.files import local_copy

RADIUS_ARCSEC = 5.0
LENSCAT_URL = "https://raw.githubusercontent.com/lenscat/lenscat/main/lenscat/data/catalog.csv"
_COLUMNS = {
    "name": "name", "ra": "RA [deg]", "dec": "DEC [deg]", "type": "type", "grading": "grading", "reference": "ref",
}  # fmt: skip


def lenscat_file() -> str:
    """Return the path of the installed package's catalogue, or "" where lenscat is not installed."""
    found = find_spec("lenscat")
    if found is None or not found.submodule_search_locations:
        return ""
    files = sorted(Path(found.submodule_search_locations[0]).glob("data/catalog.csv*"))
    return str(files[0]) if files else ""


def read_known(url: str) -> dict[str, np.ndarray]:
    """Read a table in lenscat's layout (CSV); return name, ra, dec, type, grading and reference, each (n,).

    Raises:
        FileNotFoundError: there is none at `url`.
        CatalogueError: not such a table.
    """
    types = {c: pa.float64() if k in ("ra", "dec") else pa.string() for k, c in _COLUMNS.items()}
    with local_copy(url) as path:
        try:
            table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=types))
        except (OSError, pa.ArrowInvalid) as error:
            raise CatalogueError(f"{url}: not a CSV table: {str(error)[:200]}") from error
    if missing := [c for c in _COLUMNS.values() if c not in table.column_names]:
        raise CatalogueError(
            f"{url}: no columns {missing}; found {table.column_names}; expected lenscat's ({LENSCAT_URL})"
        )
    return {k: table.column(c).to_numpy() for k, c in _COLUMNS.items()}


def match_known(
    ra: np.ndarray, dec: np.ndarray, known: dict[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Return the columns known_* of results.CANDIDATES: the nearest known lens within 5 arcsec of each position.

    Args:
        ra, dec: (n,) deg.
        known: of `read_known`; None: nothing is known.
    """
    n = len(ra)
    if known is None or not len(known["ra"]) or not n:
        columns = {f"known_{k}": np.full(n, "", object) for k in ("name", "type", "grading", "reference")}
        return columns | {"known_arcsec": np.full(n, np.nan, np.float32)}
    index, away = nearest(ra, dec, known["ra"], known["dec"])
    near = away <= RADIUS_ARCSEC
    columns = {
        f"known_{k}": np.where(near, known[k][index], "") for k in ("name", "type", "grading", "reference")
    }
    return columns | {"known_arcsec": np.where(near, away, np.nan).astype(np.float32)}
