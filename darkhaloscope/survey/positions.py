"""Tables of positions on the sky with what is there: known lenses, rings, mergers, artefacts, whatever was published.

Columns are found by the names they usually have. Positions are decimal degrees, J2000; hours and sexagesimal text are
refused rather than guessed at: a right ascension read in the wrong unit is a plausible position of empty sky.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from darkhaloscope.records import BANDS
from darkhaloscope.sky import groups
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.files import local_copy

if TYPE_CHECKING:  # loaded where a table is read: a GPU host scores shards, and has no astropy
    from astropy.table import Table

# Names without case, blanks, brackets and underscores, in the order in which they are looked for.
NAMES: dict[str, tuple[str, ...]] = {
    "ra": ("radeg", "raj2000", "raicrs", "ra", "alphaj2000", "rightascension", "targetra", "ramean", "alpha"),
    "dec": (
        "decdeg", "dej2000", "decj2000", "deicrs", "decicrs", "dec", "deltaj2000", "declination", "targetdec",
        "decmean", "dedeg", "de", "delta",
    ),
    "object_type": ("objecttype", "objtype", "kind", "class", "classification", "type"),
    "label": ("label", "islens"),
    "object_name": ("name", "objectname", "objname", "lensname", "system", "objectid", "objid", "id"),
    "theta_e_arcsec": ("thetaearcsec", "thetae", "einsteinradius", "rein"),
    **{f"mag_{b}": (f"mag{b}", f"{b}mag") for b in BANDS},
    "release": ("release",),
}  # fmt: skip
IN_HOURS = ("rahours", "rahour", "rah", "rahms", "rahr", "rasexagesimal", "rasex")

TYPES: dict[str, tuple[int, str]] = {
    "lens": (1, "real_positive"),
    "hard_negative": (0, "hard_negative"),
    "random": (0, "random_negative"),
    **dict.fromkeys(
        ("mimic", "ring", "merger", "spiral", "irregular", "disturbed", "edge_on", "companion", "artefact"),
        (0, "mimic"),
    ),
}
"""Type -> (label, sample) of a manifest row. Other types need a label column: 1 real_positive, 0 mimic."""
ALIASES = {"artifact": "artefact", "edgeon": "edge_on", "known_lens": "lens", "strong_lens": "lens"}

DUPLICATE_ARCSEC = 1.0
_SEXAGESIMAL = re.compile(r"^\s*[+-]?\d{1,3}\s*[:hd°\s]\s*\d{1,2}\s*[:m'\s]\s*[\d.]+\s*[s\"]?\s*$")
_HOUR_UNITS = ("h", "hr", "hour", "hours", "hourangle", "hms", "h:m:s", '"h:m:s"', "hh:mm:ss")
_DEGREE_UNITS = ("deg", "degree", "degrees", "degree_angle", "d", "°")


@dataclass(frozen=True)
class Positions:
    """A table's rows; arrays are (n,).

    columns: ra, dec (deg, NaN where not given), object_name, object_type (str), label (int8, -1 where not known),
        sample (str), theta_e_arcsec and mag_g, mag_r, mag_z (NaN where not given); release (float, Tractor's RELEASE
        as 10000 or a data release as 10, NaN where not given).
    fault: what is wrong with a row, "" where nothing is.
    source: path or URL.
    """

    columns: dict[str, np.ndarray]
    fault: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.fault)


def read_positions(
    url: str,
    units: Literal["", "deg"] = "",
    object_type: str = "",
    labelled: bool = True,
    texts: Sequence[str] = (),
) -> Positions:
    """Read a table of positions: CSV and other text, FITS, VOTable or Parquet, by the ending of its name.

    Args:
        url: path or URL.
        units: "deg" says that right ascensions are degrees although none is above 24.
        object_type: type of every row, whatever the table says.
        labelled: False: nobody asks whether a row is a lens; its label is -1, whatever its type, and that is no fault.
        texts: further columns wanted, by their own names; as text, "" where there is none.

    Raises:
        FileNotFoundError: there is none at `url`.
        CatalogueError: not such a table, no position columns, positions in hours or sexagesimal, or it may be so.
    """
    table = _read(url)
    found = {name: column for name, options in NAMES.items() if (column := _find(table, options)) is not None}
    hours = _find(table, IN_HOURS)
    if "ra" not in found and hours is not None:
        found["ra"] = hours
    if missing := [n for n in ("ra", "dec") if n not in found]:
        raise CatalogueError(
            f"{url}: no column of {' and '.join(missing)}; found {table.colnames}; expected names such as ra and dec, "
            "RA_ICRS, RAJ2000"
        )
    columns = {name: _degrees(table[found[name]], found[name], url) for name in ("ra", "dec")}
    _refuse_hours(columns["ra"], table[found["ra"]], found["ra"], units, url)
    n = len(table)
    for name in ("theta_e_arcsec", *(f"mag_{b}" for b in BANDS)):
        columns[name] = (
            _numbers(table[found[name]], found[name], url) if name in found else np.full(n, np.nan)
        )
    releases = _texts(table[found["release"]]) if "release" in found else _filled(n, "")
    columns["release"] = np.array([float(re.sub(r"\D", "", t) or "nan") for t in releases.tolist()]).reshape(
        n
    )
    columns["object_name"] = _texts(table[found["object_name"]]) if "object_name" in found else _filled(n, "")
    types = _texts(table[found["object_type"]]) if "object_type" in found else _filled(n, "")
    columns["object_type"] = _filled(n, object_type) if object_type else types
    columns["object_type"] = np.array([_type(t) for t in columns["object_type"].tolist()], object).reshape(n)
    given = _numbers(table[found["label"]], found["label"], url) if "label" in found else np.full(n, np.nan)
    columns["label"], columns["sample"] = _classes(columns["object_type"], given)
    if not labelled:
        columns |= {"label": np.full(n, -1, np.int8), "sample": _filled(n, "")}
    columns |= {t: _texts(table[t]) if t in table.colnames else _filled(n, "") for t in texts}
    return Positions(columns, _faults(columns, labelled), url)


def _read(url: str) -> Table:
    from astropy.table import Table

    with local_copy(url) as path:
        ending = "".join(Path(path).suffixes[-2:]).lower()
        try:
            if ending.endswith((".parquet", ".pq")):
                rows = pq.read_table(path)
                return Table({n: np.asarray(rows.column(n).to_pylist()) for n in rows.column_names})
            if re.search(r"\.(fits?|fits\.gz)$", ending):
                return Table.read(path, format="fits")
            if re.search(r"\.(vot|votable|xml)$", ending):
                return Table.read(path, format="votable")
            tabs = ".tsv" in ending
            return Table.read(
                path, format="ascii.tab" if tabs else "ascii.csv" if ".csv" in ending else "ascii"
            )
        except (OSError, ValueError, IndexError, TypeError, pa.ArrowInvalid) as error:
            raise CatalogueError(
                f"{url}: cannot be read as a table: {str(error)[:300]}; expected CSV, TSV, FITS, VOTable or Parquet"
            ) from error


def _find(table: Table, options: Sequence[str]) -> str | None:
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(table.colnames)}
    return next((plain[o] for o in options if o in plain), None)


def _texts(column: Any) -> np.ndarray:
    """Return a column as text, empty where it is masked."""
    rows = zip(np.asarray(column).tolist(), np.ma.getmaskarray(column).tolist(), strict=True)
    texts = ("" if masked else v.decode() if isinstance(v, bytes) else str(v) for v, masked in rows)
    return np.array([text.strip() for text in texts], object).reshape(len(column))


def _filled(n: int, text: str) -> np.ndarray:
    return np.full(n, text, object)


def _numbers(column: Any, name: str, url: str) -> np.ndarray:
    """Return a column as float64, NaN where it is masked or empty."""
    values: Any = np.asarray(column)
    if column.dtype.kind in "OSU":
        values = [text if text not in ("", "-", "--", "None", "null") else "nan" for text in _texts(column)]
    try:
        numbers = np.asarray(values, np.float64)
    except ValueError as error:
        raise CatalogueError(f"{url}: column {name!r}: {error}; expected numbers") from error
    return np.where(np.ma.getmaskarray(column), np.nan, numbers)


def _degrees(column: Any, name: str, url: str) -> np.ndarray:
    if column.dtype.kind in "OSU":
        texts = [t for t in _texts(column) if t]
        if example := next((t for t in texts if _SEXAGESIMAL.match(t)), ""):
            raise CatalogueError(
                f"{url}: column {name!r} holds sexagesimal text such as {example!r}; expected decimal degrees: convert "
                "it, e.g. with astropy's SkyCoord(ra, dec, unit=('hourangle', 'deg')), and write ra.deg and dec.deg"
            )
    return _numbers(column, name, url)


def _refuse_hours(ra: np.ndarray, column: Any, name: str, units: str, url: str) -> None:
    """Refuse right ascensions that are hours, or may be."""
    unit = str(column.unit or "").strip().lower()
    if unit in _HOUR_UNITS or (unit and unit not in _DEGREE_UNITS):
        raise CatalogueError(
            f"{url}: column {name!r} has the unit {str(column.unit)!r}; expected decimal degrees: multiply hours by 15 "
            "(radians by 57.2958), and write the unit deg"
        )
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain in IN_HOURS and units != "deg":
        raise CatalogueError(
            f"{url}: column {name!r} is in hours by its name; expected decimal degrees: multiply it by 15 and name it "
            "ra_deg, or say --catalogue-units deg if it holds degrees"
        )
    finite = ra[np.isfinite(ra)]
    said = units == "deg" or unit in _DEGREE_UNITS or "deg" in plain
    if len(finite) and finite.min() >= 0 and finite.max() <= 24 and not said:
        raise CatalogueError(
            f"{url}: all {len(finite)} values of column {name!r} are between 0 and 24 and no unit says what they are: "
            "degrees or hours? Say --catalogue-units deg if they are degrees; multiply them by 15 if they are hours"
        )


def _type(text: str) -> str:
    plain = re.sub(r"[\s-]+", "_", text.strip().lower())
    return ALIASES.get(plain, plain)


def _classes(types: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return label and sample of rows; -1 and "" where neither the type nor a label column tells."""
    by_type = [TYPES.get(t, (-1, "")) for t in types.tolist()]
    label = np.array([pair[0] for pair in by_type], np.int8).reshape(len(types))
    sample = np.array([pair[1] for pair in by_type], object).reshape(len(types))
    stated = np.isin(given, (0, 1))
    new = stated & (label != given)  # the column decides, the type still names a negative's kind
    label = np.where(stated, np.nan_to_num(given), label).astype(np.int8)
    return label, np.where(new, np.where(label == 1, "real_positive", "mimic"), sample)


def _faults(columns: dict[str, np.ndarray], labelled: bool) -> np.ndarray:
    """Return what is wrong with each row, "" where nothing is."""
    ra, dec, label = columns["ra"], columns["dec"], columns["label"]
    fault = np.full(len(ra), "", object)
    for i in np.flatnonzero((label < 0) & labelled).tolist():
        fault[i] = (
            f"type {columns['object_type'][i]!r} is not known: expected one of {', '.join(TYPES)}, or a column `label` "
            "(1 lens, 0 not), or --catalogue-type"
        )
    off = ~((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90))
    for i in np.flatnonzero(off).tolist():
        fault[i] = (
            f"position ra {ra[i]}, dec {dec[i]} is not on the sky: expected 0 to 360 and -90 to 90 degrees"
        )
    return fault


def mark_duplicates(positions: Positions) -> Positions:
    """Return the positions with rows of one place marked: all but the first, or all where their labels differ.

    Rows within `DUPLICATE_ARCSEC` of each other are one object, across RA 0 = 360 and at the poles too.
    """
    good = np.flatnonzero(positions.fault == "")
    fault = positions.fault.copy()
    ra, dec = (positions.columns[axis][good] for axis in ("ra", "dec"))
    group = groups(ra, dec, DUPLICATE_ARCSEC)
    order = np.argsort(group, kind="stable")
    order = order[np.bincount(group)[group[order]] > 1]
    places = np.split(good[order], np.flatnonzero(np.diff(group[order])) + 1)
    for rows in (p for p in places if len(p) > 1):
        if len(set(positions.columns["label"][rows].tolist())) > 1:
            fault[rows] = (
                f"rows {rows.tolist()} are within {DUPLICATE_ARCSEC:g} arcsec of each other and disagree whether it is "
                "a lens: keep one of them"
            )
        else:
            fault[rows[1:]] = f"duplicate: within {DUPLICATE_ARCSEC:g} arcsec of row {rows[0]}"
    return Positions(positions.columns, fault, positions.source)
