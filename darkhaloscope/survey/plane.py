"""One plane of a brick: an open, checked, tile-compressed FITS image that gives windows."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from darkhaloscope.survey.errors import BrickUnreadable, FitsBroken
from darkhaloscope.survey.fits_headers import Unit, read_units
from darkhaloscope.survey.tiles import Tiles
from darkhaloscope.survey.wcs import TanWcs


def plane_label(kind: str, band: str) -> str:
    """Return how messages name a plane: image-r, maskbits."""
    return f"{kind}-{band}" if band else kind


def _image_shape(cards: dict[str, Any]) -> tuple[int, int] | None:
    """Return height and width of a unit's image, tile-compressed or not; None where it is no plane image."""
    compressed = "Z" if cards.get("ZIMAGE") is True else ""
    if not compressed and cards.get("XTENSION", "IMAGE") != "IMAGE":
        return None
    shape = _two_lengths(cards, f"{compressed}NAXIS2", f"{compressed}NAXIS1")
    return shape if cards.get(f"{compressed}NAXIS") == 2 else None


def _two_lengths(cards: dict[str, Any], *names: str) -> tuple[int, int] | None:
    first, second = (cards.get(name) for name in names)
    if not isinstance(first, int) or not isinstance(second, int) or min(first, second) < 1:
        return None
    return first, second


class Plane:
    """One open coadd file; raises `BrickUnreadable` when it is opened or read and found broken."""

    def __init__(self, brickname: str, label: str, path: str) -> None:
        self.brickname, self.label, self._path = brickname, label, path
        self.keep_whole = False
        self._whole: np.ndarray | None = None
        self._tiles: Tiles | None = None
        try:
            units = read_units(path)
        except FitsBroken as error:
            raise BrickUnreadable(
                f"{brickname}: {label} {error}; delete it from the cache to fetch it again"
            ) from error
        self._number, (self.height, self.width) = self._image(units)
        self.header = units[self._number].cards
        try:
            self._tiles = Tiles.of(path, self.header, units[self._number].data_start, self._by_fitsio)
        except OSError as error:
            raise self._unreadable(error) from error

    def _image(self, units: list[Unit]) -> tuple[int, tuple[int, int]]:
        """Return the number of the unit that holds the image, and the image's shape."""
        # The survey keeps the image in HDU 1, an uncompressed copy has it in HDU 0; further HDUs of a
        # maskbits file are the WISE masks.
        for number in (1, 0):
            if number < len(units) and (shape := _image_shape(units[number].cards)):
                return number, shape
        raise BrickUnreadable(
            f"{self.brickname}: {self.label} has no two-dimensional image in HDU 1 or 0; "
            "delete it from the cache to fetch it again"
        )

    @cached_property
    def _fits(self) -> Any:
        """The file as `fitsio` has it, opened when something is first read by it."""
        import fitsio  # here: a GPU host, which reads no FITS, has none

        return fitsio.FITS(self._path)

    def close(self) -> None:
        """Close the file."""
        if "_fits" in self.__dict__:
            self._fits.close()
        if self._tiles is not None:
            self._tiles.close()
        self._whole = None

    def _unreadable(self, error: Exception) -> BrickUnreadable:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return BrickUnreadable(
            f"{self.brickname}: {self.label} cannot be read: {first}; delete it from "
            "the cache to fetch it again"
        )

    def share_per_cut(self, size: int) -> float:
        """Return the share of the plane that must be decompressed for one cut of `size` pixels, on average."""
        tile = _two_lengths(self.header, "ZTILE1", "ZTILE2")
        if tile is None:
            return 0.0
        sides = (min(t + size - 1, length) for t, length in zip(tile, (self.width, self.height), strict=True))
        return math.prod(sides) / (self.width * self.height)

    def wcs(self) -> TanWcs:
        """Return the WCS of the header."""
        try:
            return TanWcs.from_header(self.header, self.width, self.height)
        except ValueError as error:
            raise self._unreadable(error) from error

    def check_like(self, first: Plane) -> None:
        """Raise `BrickUnreadable` unless shape and stated brick agree with the first plane's."""
        if (self.width, self.height) != (first.width, first.height):
            raise BrickUnreadable(
                f"{self.brickname}: {self.label} is {self.width} x {self.height} pixels, {first.label} is "
                f"{first.width} x {first.height}; they cannot be of one brick; fetch it again"
            )
        names = [self.header.get(key) for key in ("BRICK", "BRICKNAM", "BRICKNAME")]
        stated = [str(name).strip() for name in names if name]
        if stated and self.brickname not in stated:
            raise BrickUnreadable(
                f"{self.brickname}: the header of {self.label} says brick {stated[0]}; the file lies in the "
                "wrong place; fetch it again"
            )

    def windows(self, corners: np.ndarray, out: np.ndarray) -> dict[int, BrickUnreadable]:
        """Fill windows of the plane, and say which of them cannot be read, and why.

        Args:
            corners: (n, 2) int64, x and y of each window's first pixel; windows may reach beyond the plane.
            out: (n, height, width) of zeros; what is beyond the plane stays 0.
        """
        if self.keep_whole and self._whole is None:
            whole = np.zeros((1, self.height, self.width), out.dtype)
            self.keep_whole = not self._fill(np.zeros((1, 2), np.int64), whole)  # else: each window by itself
            self._whole = whole[0] if self.keep_whole else None
        if self._whole is None:
            return self._fill(corners, out)
        for window, corner in zip(out, corners.tolist(), strict=True):
            here, there = self._overlap(corner, window.shape)
            window[here] = self._whole[there]
        return {}

    def _fill(self, corners: np.ndarray, out: np.ndarray) -> dict[int, BrickUnreadable]:
        """As `windows`, from the file."""
        broken: dict[int, BrickUnreadable] = {}
        filled = np.zeros(len(out), bool) if self._tiles is None else self._tiles.windows(corners, out)
        for i in np.flatnonzero(~filled).tolist():
            here, there = self._overlap(corners[i].tolist(), out[i].shape)
            try:
                out[i][here] = self._fits[self._number][there] if out[i][here].size else 0
            except (OSError, ValueError) as error:
                broken[i] = self._unreadable(error)
        return broken

    def _overlap(self, corner: list[int], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], ...]:
        """Return what a window has of the plane: where in the window, and where in the plane."""
        sides = list(zip(corner[::-1], shape, (self.height, self.width), strict=True))  # y first
        spans = [(min(max(c, 0), whole), min(max(c + n, 0), whole)) for c, n, whole in sides]
        here = tuple(slice(a - c, b - c) for (a, b), (c, _, _) in zip(spans, sides, strict=True))
        return here, tuple(slice(a, b) for a, b in spans)

    def _by_fitsio(self, xa: int, xb: int, ya: int, yb: int) -> np.ndarray:
        return np.ascontiguousarray(self._fits[self._number][ya:yb, xa:xb])

    def nearest(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the values, (n,), of the pixels nearest to (x, y), those beyond the plane moved into it.

        A pixel that cannot be read is NaN.
        """
        column, row = (
            np.clip(np.floor(np.asarray(v) + 0.5).astype(np.int64), 0, n - 1)
            for v, n in ((x, self.width), (y, self.height))
        )
        values = np.zeros((len(column), 1, 1), np.float32)
        values[list(self.windows(np.stack([column, row], axis=1), values))] = np.nan
        return values[:, 0, 0]
