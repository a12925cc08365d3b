"""Bricks: the 0.25 degree tiles the survey divides the sky into, by name, geometry and summary table.

Dec rows are centred every 0.25 deg from -90 to +90; a row has the least even number of equal RA columns
whose width is at most 0.25 deg on the sky, one column at each pole (legacysurvey.org/dr10/description,
"bricks"). A brick holds [RA1, RA2) x [DEC1, DEC2). Its coadd, 3600 pixels of 0.262 arcsec, is wider than
that: a position primary in its brick is about 80 pixels or more inside the coadd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from darkhaloscope.survey.errors import CatalogueError, FitsBroken
from darkhaloscope.survey.files import local_copy
from darkhaloscope.survey.fits_rows import open_rows, text

BRICK_DEG = 0.25
_ROWS = 721


@lru_cache(maxsize=1)
def _columns_per_row() -> np.ndarray:
    lowest = np.abs(-90.0 + BRICK_DEG * np.arange(_ROWS)) - BRICK_DEG / 2
    columns = 2 * np.ceil(360.0 / BRICK_DEG * np.cos(np.radians(lowest)) / 2).astype(np.int64)
    columns[[0, -1]] = 1
    return columns


def brick_at(ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, column), int64, of the brick each position belongs to.

    Args:
        ra, dec: (n,) deg; RA is taken modulo 360.

    Raises:
        ValueError: a position that is not finite or a declination beyond the poles.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90.0))
    if bad.any():
        raise ValueError(
            f"finding bricks: {int(bad.sum())} of {bad.size} positions are not on the sky, the first is "
            f"ra {ra[bad].flat[0]}, dec {dec[bad].flat[0]}; expected finite degrees with |dec| <= 90"
        )
    row = np.minimum(((dec + 90.0 + BRICK_DEG / 2) / BRICK_DEG).astype(np.int64), _ROWS - 1)
    columns = _columns_per_row()[row]
    return row, np.minimum((ra % 360.0 * columns / 360.0).astype(np.int64), columns - 1)


def brick_centre(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return RA, Dec in degrees of brick centres."""
    width = 360.0 / _columns_per_row()[row]
    return (np.asarray(column) + 0.5) * width, -90.0 + BRICK_DEG * np.asarray(row)


def brick_bounds(row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return RA1, RA2, DEC1, DEC2 in degrees; Dec is cut off at the poles."""
    width = 360.0 / _columns_per_row()[row]
    dec = -90.0 + BRICK_DEG * np.asarray(row)
    low, high = np.maximum(dec - BRICK_DEG / 2, -90.0), np.minimum(dec + BRICK_DEG / 2, 90.0)
    return np.asarray(column) * width, (np.asarray(column) + 1) * width, low, high


def brick_id(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return BRICKID: bricks counted from 1 at the south pole, along RA, then northward."""
    before = np.concatenate([[0], np.cumsum(_columns_per_row())])
    return before[row] + np.asarray(column) + 1


def brick_name(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Return names AAAA[pm]BBB: ten times RA and |Dec| of the centre, cut off (not rounded) to integers.

    Computed in integers. Of 662,174 bricks, 934 have ten times RA so close to an integer that published
    codes disagree about the name with rounding; there a survey-bricks table (`BrickTable`) decides.
    """
    row, column = np.atleast_1d(row), np.atleast_1d(column)
    tenths_ra = (2 * column + 1) * 1800 // _columns_per_row()[row]
    tenths_dec = np.abs(5 * (row - 360)) // 2
    signs = np.where(row < 360, "m", "p")
    names = [f"{a:04d}{s}{d:03d}" for a, s, d in zip(tenths_ra, signs, tenths_dec, strict=True)]
    return np.array(names, dtype="U8")


def names_at(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the name of the brick each position belongs to, (n,) str."""
    row, column = brick_at(np.atleast_1d(ra), np.atleast_1d(dec))
    _, first, inverse = np.unique(brick_id(row, column), return_index=True, return_inverse=True)
    return brick_name(row[first], column[first])[inverse]


def parse_names(names: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, column) of brick names; either name of a brick whose name depends on rounding is known.

    Raises:
        ValueError: a name that is not AAAA[pm]BBB, or of no brick.
    """
    unique, inverse = np.unique(np.asarray(names, dtype="U"), return_inverse=True)
    parsed = np.array([_parse(str(name)) for name in unique], dtype=np.int64).reshape(-1, 2)
    return parsed[inverse, 0], parsed[inverse, 1]


def _parse(name: str) -> tuple[int, int]:
    ra, sign, dec = name[:4], name[4:5], name[5:]
    if not (len(name) == 8 and ra.isdigit() and sign in ("p", "m") and dec.isdigit()):
        raise ValueError(f"brick name {name!r}: expected AAAA[pm]BBB, such as 0591m305")
    quarters = -(-2 * int(dec) // 5)
    row = 360 + (-quarters if sign == "m" else quarters)
    if 0 <= row < _ROWS and 5 * quarters // 2 == int(dec) and not (sign == "m" and quarters == 0):
        columns = int(_columns_per_row()[row])
        column = round((int(ra) + 0.5) * columns / 3600.0 - 0.5)
        tenths = (2 * column + 1) * 1800 / columns
        if 0 <= column < columns and int(ra) - 1e-6 <= tenths < int(ra) + 1 + 1e-6:
            return row, column
    raise ValueError(f"brick name {name!r}: no brick of 0.25 deg has it; check the digits")


@dataclass(frozen=True)
class BrickTable:
    """A survey-bricks table: authoritative for which bricks exist, their centres and their quality.

    `columns` maps lower-case names to arrays of one length; psfsize_* are arcsec and psfdepth_* are
    5-sigma AB magnitudes (not inverse variances, as in the catalogues); both are 0 in a band without data.
    """

    columns: dict[str, np.ndarray]
    source: str = ""

    @cached_property
    def _by_name(self) -> np.ndarray:
        return np.argsort(self.columns["brickname"], kind="stable")

    @cached_property
    def _by_id(self) -> tuple[np.ndarray, np.ndarray]:
        ids = brick_id(*brick_at(self.columns["ra"], self.columns["dec"]))
        order = np.argsort(ids, kind="stable")
        return order, ids[order]

    def __len__(self) -> int:
        return len(self.columns["brickname"])

    def index(self, names: Sequence[str] | np.ndarray) -> np.ndarray:
        """Return the row number of each name, -1 where the table has no such brick."""
        names, order = np.asarray(names, dtype="U8"), self._by_name
        return _look_up(names, self.columns["brickname"][order], order)

    def index_of_id(self, brickid: np.ndarray) -> np.ndarray:
        """Return the row number of each BRICKID, -1 where the table has no such brick."""
        order, ids = self._by_id
        return _look_up(np.asarray(brickid), ids, order)

    def index_at(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Return the row number of the brick at each position (deg), -1 where the table has none."""
        return self.index_of_id(brick_id(*brick_at(ra, dec)))

    def row(self, name: str) -> dict[str, Any]:
        """Return one brick's row as a dict.

        Raises:
            KeyError: the table has no such brick.
        """
        index = int(self.index([name])[0])
        if index < 0:
            raise KeyError(f"brick {name} is not among the {len(self)} bricks of {self.source}")
        return {key: values[index] for key, values in self.columns.items()}

    def names_at(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Return the name of the table's brick at each position, "" where it has none."""
        index = self.index_at(np.atleast_1d(ra), np.atleast_1d(dec))
        return np.append(self.columns["brickname"], "").astype("U8")[index]  # -1: the one appended


def _look_up(wanted: np.ndarray, ordered: np.ndarray, order: np.ndarray) -> np.ndarray:
    if not len(ordered):
        return np.full(wanted.shape, -1)
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[at] == wanted, order[at], -1)


def read_brick_table(url: str, scratch: str | None = None) -> BrickTable:
    """Read a survey-bricks table (of a release or of the whole sky) from a path or URL.

    Raises:
        FileNotFoundError: there is none at `url`.
        CatalogueError: not FITS, cut off, without names or centres, or its centres are not those of the brick grid.
    """
    wanted = ["brickname", "ra", "dec", "ebv"]
    wanted += [f"{k}_{b}" for k in ("nexp", "psfsize", "psfdepth", "galdepth") for b in "griz"]
    with local_copy(url, scratch) as path:
        try:
            with open_rows(path) as rows:
                columns = rows.read(wanted, 0, rows.rows)
        except FitsBroken as error:
            raise CatalogueError(f"{url}: brick table {error}; fetch it again") from error
    if missing := [n for n in wanted[:3] if n not in columns]:
        raise CatalogueError(f"{url}: no columns {missing}; expected a survey-bricks table")
    columns["brickname"] = text(columns["brickname"])
    table = BrickTable(columns, url)
    ra, dec = brick_centre(*brick_at(columns["ra"], columns["dec"]))
    away = np.hypot((columns["ra"] - ra + 180.0) % 360.0 - 180.0, columns["dec"] - dec)
    if len(table) and away.max() > 1e-6:
        worst = int(np.argmax(away))
        raise CatalogueError(
            f"{url}: brick {columns['brickname'][worst]} is centred at {columns['ra'][worst]}, "
            f"{columns['dec'][worst]}, expected {ra[worst]}, {dec[worst]}; is it a 0.25 deg brick table?"
        )
    return table
