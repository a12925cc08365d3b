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
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.io.votable import writeto
from astropy.io.votable.tree import VOTableFile
from astropy.table import Table

from darkhaloscope.records import BANDS
from darkhaloscope.results import CANDIDATES
from darkhaloscope.search.names import HATS_ORDER

NOT_IN_CATALOGUES = ("stamp", "host_x", "host_y", "refused")
PARTITION_ROWS = 1_000_000  # of a HATS partition, at most

UCDS = {
    "_healpix_29": "pos.healpix", "name": "meta.id;meta.main", "object_name": "meta.id", "host_id": "meta.id",
    "ra": "pos.eq.ra;meta.main", "dec": "pos.eq.dec;meta.main", "brickname": "meta.id;obs.field",
    "type": "meta.code.class;src.morph", "sky_cell": "pos.healpix", "region_split": "meta.code",
    "shape_e1": "src.ellipticity", "shape_e2": "src.ellipticity", "z_host": "src.redshift",
    "ebv": "phot.color.excess", "psf_source": "meta.note", "bad_fraction": "meta.code.qual",
    "padded_fraction": "meta.code.qual", "maskbits_any": "meta.code.qual", "bands": "meta.note;instr.bandpass",
    "merged": "meta.number", "outside": "meta.note", "rank": "stat.rank", "logit": "stat.likelihood",
    "logit_spread": "stat.stdev", "n_models": "meta.number", "probability": "stat.probability",
    "prevalence": "stat.probability", "fpr": "stat.probability", "fpr_high": "stat.probability;stat.max",
    "false_per_sqdeg": "stat.value;src", "false_per_sqdeg_high": "stat.value;stat.max", "known_name": "meta.id.cross",
    "known_type": "meta.code.class", "known_grading": "meta.code.qual", "known_reference": "meta.bib",
    "known_arcsec": "pos.angDistance", "release": "meta.version", "viewer_url": "meta.ref.url",
}  # fmt: skip
_BAND_UCDS = {"g": "em.opt.B", "r": "em.opt.R", "z": "em.opt.I"}
for _band in BANDS:
    UCDS |= {
        f"mag_{_band}": f"phot.mag;{_BAND_UCDS[_band]}",
        f"psfdepth_{_band}": f"phot.mag;stat.max;{_BAND_UCDS[_band]}",
        f"psfsize_{_band}": f"instr.obsty.seeing;{_BAND_UCDS[_band]}",
        f"fwhm_{_band}": f"instr.obsty.seeing;{_BAND_UCDS[_band]}",
        f"sky_sigma_{_band}": f"stat.stdev;phot.flux;{_BAND_UCDS[_band]}",
    }
_UNITS = {"AB mag": "mag", "nmgy/pixel": "", "deg-2": "deg-2", "arcsec": "arcsec", "deg": "deg", "mag": "mag"}
"""Our units -> VOUnits; nanomaggies per pixel have none, and stand in the description."""


def catalogue_of(candidates: pa.Table) -> pa.Table:
    """Return the scored rows of a CANDIDATES table as a catalogue, in the order of `_healpix_29`."""
    scored = candidates.filter(candidates.column("logit").is_valid())
    names = [n for n in candidates.column_names if n not in NOT_IN_CATALOGUES]
    return scored.select(names).sort_by("_healpix_29").combine_chunks()


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a catalogue as CSV, with its header; a missing value is empty."""
    pa.csv.write_csv(table, path)


def write_fits(table: pa.Table, path: Path) -> None:
    """Write a catalogue as a FITS binary table with TUNITn, TUCDn and TCOMMn; a missing number is NaN."""
    names = table.column_names
    arrays = [_ascii(table.column(n)) for n in names]
    header = []
    for i, name in enumerate(names, 1):
        column = next(c for c in CANDIDATES.columns if c.name == name)
        header.append({"name": f"TCOMM{i}", "value": column.meaning.encode("ascii", "replace").decode()})
        header.append({"name": f"TUCD{i}", "value": UCDS[name]})
    units = [_UNITS.get(next(c.unit for c in CANDIDATES.columns if c.name == n), "") for n in names]
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(arrays, names=names, units=units, extname="CANDIDATES", header=header)


def write_votable(table: pa.Table, path: Path) -> None:
    """Write a catalogue as a VOTable (BINARY2) with units, descriptions and UCDs; a missing number is NaN."""
    made = Table({n: _plain(table.column(n)) for n in table.column_names})
    for column in CANDIDATES.columns:
        if column.name in made.colnames:
            made[column.name].unit = _UNITS.get(column.unit) or None
            made[column.name].description = column.meaning
    votable = VOTableFile.from_table(made)
    for field in votable.get_first_table().fields:
        field.ucd = UCDS[field.name]
    writeto(votable, str(path), tabledata_format="binary2")


def _plain(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as numpy: text as str, empty where missing; missing numbers as NaN."""
    if pa.types.is_string(column.type):
        return np.array(column.fill_null("").to_pylist(), "U").reshape(len(column))
    return column.to_numpy()


def _ascii(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as FITS holds it: text is ASCII there by its standard; other letters become escapes."""
    if not pa.types.is_string(column.type):
        return column.to_numpy()
    cells = [text.encode("ascii", "backslashreplace") for text in column.fill_null("").to_pylist()]
    return np.array(cells, "S").reshape(len(column))


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
