"""A piece of sky to search: bricks, a box, a cone or HEALPix cells; what it touches, and how large it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix

from darkhaloscope.errors import Explained
from darkhaloscope.sky import chord, unit_vectors
from darkhaloscope.survey.bricks import BrickTable, brick_at, brick_bounds, brick_id, parse_names

GRID = 32  # points along a side of a brick by which its share of the area is measured
_SWEEP = re.compile(r"sweep-(\d{3})([pm])(\d{3})-(\d{3})([pm])(\d{3})\.fits")


class AreaError(Explained, ValueError):
    """A piece of sky that cannot be searched; the message says what was given and what was expected."""


@dataclass(frozen=True)
class Area:
    """A piece of sky.

    Attributes:
        kind: bricks, box, cone or healpix.
        values: brick names; or ra_min, ra_max, dec_min, dec_max in deg (across RA 0 where the first is the larger);
            or ra, dec, radius in deg; or nside and the numbers of nested cells.
    """

    kind: str
    values: tuple

    def contains(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Tell which positions (deg) lie in it, (n,) bool; for bricks: those that the grid of bricks puts into them."""
        if self.kind == "bricks":
            return np.isin(brick_id(*brick_at(ra, dec)), brick_id(*parse_names(self.values)))
        if self.kind == "box":
            west, east, south, north = self.values
            in_ra = (ra >= west) & (ra <= east) if west <= east else (ra >= west) | (ra <= east)
            return in_ra & (dec >= south) & (dec <= north)
        if self.kind == "cone":
            centre = unit_vectors(*(np.array([v]) for v in self.values[:2]))
            away = np.linalg.norm(unit_vectors(ra, dec) - centre, axis=1)
            return away <= chord(3600 * self.values[2])
        nside, *cells = self.values
        found = HEALPix(nside, order="nested").lonlat_to_healpix(ra * u.deg, dec * u.deg)
        return np.isin(found, cells)

    def __str__(self) -> str:
        shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.values[:8])
        return f"{self.kind} {shown}{' ...' if len(self.values) > 8 else ''}"


def area_of(
    bricks: Sequence[str] = (),
    box: Sequence[float] = (),
    cone: Sequence[float] = (),
    healpix: Sequence[int] = (),
) -> Area:
    """Return the one area that is given.

    Args:
        bricks: names.
        box: ra_min, ra_max, dec_min, dec_max, deg.
        cone: ra, dec, radius, deg.
        healpix: nside and cells, nested.

    Raises:
        AreaError: none or several of them, or values that are no such area.
    """
    given = {
        k: tuple(v) for k, v in {"bricks": bricks, "box": box, "cone": cone, "healpix": healpix}.items() if v
    }
    if len(given) != 1:
        raise AreaError(
            f"expected one area: bricks, a box, a cone or HEALPix cells; got {sorted(given) or 'none'}"
        )
    ((kind, values),) = given.items()
    if fault := _CHECKS[kind](values):
        raise AreaError(f"{kind} {values[:8]}: {fault}")
    return Area(kind, tuple(sorted(set(values))) if kind == "bricks" else values)


def _check_bricks(values: tuple[str, ...]) -> str:
    try:
        parse_names(values)
    except ValueError as error:
        return str(error)
    return ""


def _check_box(values: tuple[float, ...]) -> str:
    west, east, south, north = values
    if not (0 <= west <= 360 and 0 <= east <= 360 and -90 <= south <= 90 and -90 <= north <= 90):
        return "expected right ascensions of 0 to 360 and declinations of -90 to 90, decimal degrees"
    return "" if south < north and west != east else "it is empty: expected RA_MIN RA_MAX DEC_MIN DEC_MAX"


def _check_cone(values: tuple[float, ...]) -> str:
    ra, dec, radius = values
    if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 90):
        return "expected RA 0 to 360, Dec -90 to 90 and a radius above 0 and at most 90, decimal degrees"
    return ""


def _check_healpix(values: tuple[int, ...]) -> str:
    nside, *cells = values
    if nside < 1 or nside & (nside - 1) or nside > 1 << 20:
        return "expected nside, a power of 2, and then the numbers of nested cells"
    if not cells or min(cells) < 0 or max(cells) >= 12 * nside**2:
        return f"expected at least one cell, each from 0 to {12 * nside**2 - 1} at nside {nside}"
    return ""


_CHECKS: dict[str, Callable[..., str]] = {
    "bricks": _check_bricks,
    "box": _check_box,
    "cone": _check_cone,
    "healpix": _check_healpix,
}


def brick_shares(area: Area, bricks: BrickTable) -> np.ndarray:
    """Return the share of each brick of a table that lies in an area, (n,) in steps of 1/1024."""
    names = bricks.columns["brickname"]
    if area.kind == "bricks":
        return np.isin(names, area.values).astype(float)
    ra1, ra2, dec1, dec2 = brick_bounds(*parse_names(names))
    step = (np.arange(GRID) + 0.5) / GRID
    share = np.empty(len(names))
    for first in range(0, len(names), 1000):
        some = slice(first, first + 1000)
        ra = ra1[some, None, None] + (ra2 - ra1)[some, None, None] * step[:, None]
        dec = dec1[some, None, None] + (dec2 - dec1)[some, None, None] * step
        ra, dec = np.broadcast_arrays(ra, dec)
        inside = area.contains(ra.ravel() % 360.0, dec.ravel()).reshape(ra.shape)
        share[some] = inside.mean(axis=(1, 2))
    return share


def bricks_in(area: Area, bricks: BrickTable) -> np.ndarray:
    """Return the row numbers of the table's bricks that an area touches; a tiny cone: the brick of its centre.

    Raises:
        AreaError: none: the area is outside the footprint, or a named brick is not in the table.
    """
    touched = brick_shares(area, bricks) > 0
    if (
        area.kind == "cone"
        and (at := int(bricks.index_at(*(np.array([v]) for v in area.values[:2]))[0])) >= 0
    ):
        touched[at] = True
    found = np.flatnonzero(touched)
    if area.kind == "bricks" and len(found) < len(area.values):
        missing = sorted(set(area.values) - set(bricks.columns["brickname"].tolist()))
        raise AreaError(
            f"{len(missing)} of {len(area.values)} bricks are not in {bricks.source}, e.g. {missing[:3]}: outside the "
            "footprint of this release; leave them out"
        )
    if not len(found):
        raise AreaError(
            f"{area}: none of the {len(bricks)} bricks of {bricks.source} lies in it; it is outside the footprint, or "
            "RA and Dec are in another order or unit (expected decimal degrees)"
        )
    return found


def square_degrees(area: Area, bricks: BrickTable, good: np.ndarray) -> float:
    """Return the size of an area within the good bricks of a table.

    Args:
        area: the area.
        bricks: the release's table.
        good: (n,) bool, bricks that hold targets (`survey.targets.good_bricks`).
    """
    ra1, ra2, dec1, dec2 = brick_bounds(*parse_names(bricks.columns["brickname"]))
    size = (ra2 - ra1) * np.degrees(np.sin(np.radians(dec2)) - np.sin(np.radians(dec1)))
    return float((size * brick_shares(area, bricks))[good].sum())


def sweeps_in(urls: Sequence[str], bricks: BrickTable, chosen: np.ndarray) -> list[str]:
    """Return the sweep files that can hold objects of some bricks; a file whose name has no bounds always can."""
    ra1, ra2, dec1, dec2 = (v[chosen] for v in brick_bounds(*parse_names(bricks.columns["brickname"])))

    def touches(url: str) -> bool:
        named = _SWEEP.search(url)
        if named is None:
            return True
        west, east = float(named[1]), float(named[4])
        south, north = (float(named[i + 1]) * (1 if named[i] == "p" else -1) for i in (2, 5))
        return bool(((ra1 < east) & (ra2 > west) & (dec1 < north) & (dec2 > south)).any())

    return [url for url in urls if touches(url)]
