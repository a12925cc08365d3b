"""Train, validation and test parts of the sky: HEALPix cells, or connected regions of bricks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.records import SPLITS
from darkhaloscope.sections import Splits
from darkhaloscope.survey.bricks import brick_bounds, brick_id, parse_names

GUARD = "guard"
_REGION = 0  # no HEALPix nside
_STREAM = 0
_DIRECTIONS = 16
_NEAR_EDGE = 0.03  # of a cell's side: nside 64 cells are 55 arcmin, so far more than the guard


def sky_cell(ra: np.ndarray, dec: np.ndarray, nside: int = 64) -> np.ndarray:
    """Return the HEALPix cell, nested ordering, of positions in degrees: (n,) int64."""
    return _located(ra, dec, nside)[0]


def _located(ra: np.ndarray, dec: np.ndarray, nside: int) -> tuple[np.ndarray, ...]:
    """Return the HEALPix cell, and where in it, 0 to 1 along its two sides (Gorski et al. 2005, ApJ 622, 759).

    Here, in numpy: the packages for it need astropy, which a GPU host lacks, and simulated skies are made there.

    Args:
        ra, dec: deg.
        nside: a power of two.
    """
    z = np.sin(np.radians(np.asarray(dec, np.float64)))
    quarter = np.asarray(ra, np.float64) % 360.0 / 90.0
    polar = np.abs(z) > 2 / 3
    # equatorial belt: lines of slope +-1 in (longitude, 3 z / 4), equations 7 and 8 of section 4.1
    falling, rising = nside * (0.5 + quarter - 0.75 * z), nside * (0.5 + quarter + 0.75 * z)
    a, b = falling // nside, rising // nside
    belt = np.where(a == b, a % 4 + 4, np.where(a < b, a % 4, b % 4 + 8))
    x, y = rising % nside, nside - falling % nside
    # caps: the same lines, squeezed by the distance from the pole
    number = np.minimum(np.floor(quarter), 3.0)
    within, squeeze = quarter - number, nside * np.sqrt(np.maximum(3 * (1 - np.abs(z)), 0.0))
    low, high = within * squeeze, (1 - within) * squeeze
    x = np.where(polar, np.where(z > 0, nside - high, low), x)
    y = np.where(polar, np.where(z > 0, nside - low, high), y)
    face = np.where(polar, np.where(z > 0, number, number + 8), belt).astype(np.int64)
    column, row = (np.clip(np.floor(v), 0, nside - 1) for v in (x, y))
    cell = face * nside**2 + _interleaved(column.astype(np.int64), row.astype(np.int64))
    return cell, x - column, y - row


def _interleaved(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return numbers whose even bits are those of the column, the odd ones those of the row."""
    out = np.zeros_like(column)
    for bit in range(29):
        out |= ((column >> bit) & 1) << (2 * bit) | ((row >> bit) & 1) << (2 * bit + 1)
    return out


def part_of(number: np.ndarray, kind: int, splits: Splits, seed: int) -> np.ndarray:
    """Return train, val or test for numbered parts of the sky: a draw keyed by seed, kind and number alone.

    Args:
        number: (n,) non-negative int64, usually with many repeats: each number is drawn for once.
        kind: which numbering it is (a HEALPix nside, or `_REGION`); other kinds draw independently.
        splits: fractions.
        seed: of the division.
    """
    unique, inverse = np.unique(number, return_inverse=True)
    draw = uniforms([digest("split", seed, kind, n) for n in unique.tolist()], _STREAM, 1)[:, 0]
    edges = np.cumsum([splits.train, splits.val])
    return np.array(SPLITS)[np.searchsorted(edges, draw, side="right").clip(max=2)][inverse]


def cell_split(cell: np.ndarray, splits: Splits, seed: int) -> np.ndarray:
    """Return the split of HEALPix cells; a function of cell, nside, seed and fractions alone."""
    return part_of(cell, splits.nside, splits, seed)


def assign_splits(
    ra: np.ndarray, dec: np.ndarray, splits: Splits, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide positions by HEALPix cell, with a guard along borders between cells of different splits.

    A position within `splits.guard_arcsec` of a cell of another split belongs to none: "guard". Cells that
    touch within one split need no guard. The border is sought along a polygon of 16 corners drawn around
    the circle of that radius; at a cell's very corner up to 2 % of the radius could be missed on one side,
    where the other side's guard still holds.

    Args:
        ra, dec: (n,) deg.
        splits: fractions, nside and guard.
        seed: changes which cells go where.

    Returns:
        cell (n,) int64 and split (n,) str, one of train, val, test, guard.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    cell, dx, dy = _located(ra, dec, splits.nside)
    split = cell_split(cell, splits, seed).astype("U5")
    if splits.guard_arcsec <= 0 or not len(ra):
        return cell, split
    margin = _NEAR_EDGE * max(1.0, splits.nside / 64) * max(1.0, splits.guard_arcsec / 10.0)
    near = np.flatnonzero(np.minimum(np.minimum(dx, 1 - dx), np.minimum(dy, 1 - dy)) < margin)
    radius = splits.guard_arcsec / 3600.0 / np.cos(np.pi / _DIRECTIONS)
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    around = np.stack([sky_cell(*_offset(ra[near], dec[near], radius, a), splits.nside) for a in angles])
    guarded = (cell_split(around.ravel(), splits, seed).reshape(around.shape) != split[near]).any(axis=0)
    split[near[guarded]] = GUARD
    return cell, split


def _offset(ra: np.ndarray, dec: np.ndarray, radius: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Move positions by `radius` degrees at `angle` from north through east, on the sphere."""
    d, r = np.radians(dec), np.radians(radius)
    sine = np.sin(d) * np.cos(r) + np.cos(d) * np.sin(r) * np.cos(angle)
    east = np.arctan2(np.sin(angle) * np.sin(r) * np.cos(d), np.cos(r) - np.sin(d) * sine)
    return (ra + np.degrees(east)) % 360.0, np.degrees(np.arcsin(np.clip(sine, -1, 1)))


def connected_regions(bricknames: Sequence[str] | np.ndarray) -> np.ndarray:
    """Number the connected groups of a set of bricks: bricks that touch, corners included, are in one.

    Args:
        bricknames: (n,) distinct names.

    Returns:
        (n,) int64: the position in `bricknames`, sorted, of the region's first brick; so the number of a
        region changes only when its set of bricks does.
    """
    names = np.asarray(bricknames, dtype="U8")
    order = np.argsort(names)
    row, column = (v[order] for v in parse_names(names))
    low, high, _, _ = brick_bounds(row, column)
    parent = np.arange(len(names))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    by_row = {int(r): np.flatnonzero(row == r) for r in np.unique(row)}
    for r, here in by_row.items():
        for there in (here, by_row.get(r + 1, here[:0])):
            for i, j in _touching(low, high, here, there):
                a, b = sorted((root(i), root(j)))
                parent[b] = a
    region = np.empty(len(names), np.int64)
    region[order] = [root(i) for i in range(len(names))]
    return region


def _touching(
    low: np.ndarray, high: np.ndarray, here: np.ndarray, there: np.ndarray
) -> list[tuple[int, int]]:
    """Return pairs (i of here, j of there) whose RA ranges touch, the seam at RA 0 = 360 included."""
    pairs = []
    there = there[np.argsort(low[there])]
    for turn in (-360.0, 0.0, 360.0):
        first = np.searchsorted(high[there] + turn, low[here] - 1e-9)
        last = np.searchsorted(low[there] + turn, high[here] + 1e-9, side="right")
        pairs += [(int(i), int(j)) for i, a, b in zip(here, first, last, strict=True) for j in there[a:b]]
    return [(i, j) for i, j in pairs if i != j]


def region_splits(bricknames: Sequence[str] | np.ndarray, splits: Splits, seed: int) -> dict[str, str]:
    """Return the seed's division: brick -> train, val or test, whole connected regions at a time.

    The earlier pipeline kept connected regions of good bricks together; the realised fractions then depend
    on the sizes of the regions (its own were 25.9, 39.5 and 34.6 per cent), so they are to be reported.
    Regions are at least a brick apart, so no guard is needed.

    Args:
        bricknames: the bricks that pass the brick cuts.
        splits: fractions.
        seed: changes which regions go where.
    """
    names = np.asarray(bricknames, dtype="U8")
    first_brick = np.sort(names)[connected_regions(names)]
    parts = part_of(brick_id(*parse_names(first_brick)), _REGION, splits, seed)
    return {str(name): str(part) for name, part in zip(names, parts, strict=True)}
