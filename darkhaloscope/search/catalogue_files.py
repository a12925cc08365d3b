"""A catalogue of candidates in the formats astronomers use: HATS Parquet, FITS, VOTable and CSV.

All hold the same rows and columns (scored targets, no pixels), with units, descriptions and UCDs where the format has
a place for them. HATS: IVOA Note HATS 1.0, https://www.ivoa.net/documents/Notes/HATS/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from darkhaloscope.search.columns import described
from darkhaloscope.search.names import HATS_ORDER
from darkhaloscope.search.votable import write_votable

NOT_IN_CATALOGUES = ("stamp", "host_x", "host_y", "refused")
ROWS_AT_A_TIME = 100_000  # of a FITS table, beside the table's own memory
PARTITION_ROWS = 1_000_000  # of a HATS partition, at most


def catalogue_of(candidates: pa.Table) -> pa.Table:
    """Return the scored rows of a CANDIDATES table as a catalogue, in the order of `_healpix_29`."""
    scored = np.flatnonzero(candidates.column("logit").is_valid().to_numpy())
    cells = candidates.column("_healpix_29").to_numpy()[scored]
    names = [n for n in candidates.column_names if n not in NOT_IN_CATALOGUES]
    return candidates.select(names).take(pa.array(scored[np.argsort(cells, kind="stable")]))


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a catalogue as CSV, with its header; a missing value is empty."""
    pa.csv.write_csv(table, path)


def write_fits(table: pa.Table, path: Path) -> None:
    """Write a catalogue as a FITS binary table with TUNITn, TUCDn and TCOMMn; a missing number is NaN."""
    units, header = [], []
    for i, column in enumerate(described(table.column_names), 1):
        units.append(column.unit)
        header.append({"name": f"TCOMM{i}", "value": column.meaning.encode("ascii", "replace").decode()})
        header.append({"name": f"TUCD{i}", "value": column.ucd})
    named = {"names": table.column_names, "units": units, "extname": "CANDIDATES", "header": header}
    widths = [_width(column) for column in table.columns]
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(_cells(table.slice(0, ROWS_AT_A_TIME), widths), **named)
        for first in range(ROWS_AT_A_TIME, table.num_rows, ROWS_AT_A_TIME):
            fits[-1].append(_cells(table.slice(first, ROWS_AT_A_TIME), widths), names=table.column_names)


def _cells(table: pa.Table, widths: list[int]) -> list[np.ndarray]:
    """Return columns as FITS holds them: text is ASCII there by its standard; other letters become escapes."""
    return [
        np.array(_ascii(column), f"S{width}").reshape(len(column)) if width else column.to_numpy()
        for column, width in zip(table.columns, widths, strict=True)
    ]


def _width(column: pa.ChunkedArray) -> int:
    """Return the letters of a text column's longest cell, at least 1; 0: it has no text."""
    if not pa.types.is_string(column.type):
        return 0
    if pc.all(pc.string_is_ascii(column)).as_py() is not False:
        return max(pc.max(pc.binary_length(column)).as_py() or 0, 1)
    return max(len(text) for text in _ascii(column))


def _ascii(column: pa.ChunkedArray) -> list[bytes]:
    return [text.encode("ascii", "backslashreplace") for text in column.fill_null("").to_pylist()]


def write_hats(table: pa.Table, folder: Path, name: str = "candidates") -> None:
    """Write a catalogue in `_healpix_29` order as a HATS catalogue that `hats` and `lsdb` open.

    Args:
        table: of `catalogue_of`.
        folder: to write to.
        name: of the catalogue.
    """
    pixels = partitions(table.column("_healpix_29").to_numpy(), PARTITION_ROWS)
    for order, pixel, first, stop in pixels:
        place = folder / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(first, stop - first), place / f"Npix={pixel}.parquet", compression="zstd")
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    pq.write_metadata(table.schema, folder / "dataset" / "_common_metadata")
    lines = ["Norder,Npix", *(f"{order},{pixel}" for order, pixel, _, _ in pixels)]
    (folder / "partition_info.csv").write_text("\n".join(lines) + "\n")
    properties = {
        "obs_collection": name, "dataproduct_type": "object", "hats_nrows": table.num_rows, "hats_version": "v1.0",
        "hats_col_ra": "ra", "hats_col_dec": "dec", "hats_col_healpix": "_healpix_29",
        "hats_col_healpix_order": HATS_ORDER, "hats_npix_suffix": ".parquet",
        "hats_order": max((p[0] for p in pixels), default=0), "hats_max_rows": PARTITION_ROWS,
    }  # fmt: skip
    text = "".join(f"{key}={value}\n" for key, value in properties.items())
    for file in ("hats.properties", "properties"):  # the second name for readers before hats 0.5
        (folder / file).write_text("#HATS catalog\n" + text)


def partitions(cells: np.ndarray, most: int) -> list[tuple[int, int, int, int]]:
    """Divide rows in HEALPix order into cells of at most `most` rows: (order, pixel, first row, one past the last).

    Args:
        cells: (n,) rising order-29 nested cells.
        most: rows of a partition; exceeded only where one order-29 cell holds more.
    """
    found: list[tuple[int, int, int, int]] = []

    def divide(order: int, pixel: int) -> None:
        shift = 2 * (HATS_ORDER - order)
        first, stop = np.searchsorted(cells, [pixel << shift, (pixel + 1) << shift]).tolist()
        if stop - first > most and order < HATS_ORDER:
            for child in range(4 * pixel, 4 * pixel + 4):
                divide(order + 1, child)
        elif stop > first:
            found.append((order, pixel, first, stop))

    for pixel in range(12):
        divide(0, pixel)
    return found


WRITERS: dict[str, tuple[str, Callable[[pa.Table, Path], None]]] = {
    "parquet": ("hats", write_hats),
    "fits": ("candidates.fits", write_fits),
    "votable": ("candidates.vot", write_votable),
    "csv": ("candidates.csv", write_csv),
}
"""Format -> its file (a folder for HATS) and what writes it."""


def formats(text: str) -> list[str]:
    """Parse a list of formats, as "parquet,fits".

    Raises:
        ValueError: an unknown one.
    """
    chosen = [w for w in re.split(r"[,\s]+", text.lower()) if w]
    if unknown := [w for w in chosen if w not in WRITERS]:
        raise ValueError(f"formats {unknown} are unknown; expected some of {', '.join(WRITERS)}")
    return chosen
