"""One plane of a brick: an open, checked, tile-compressed FITS image that gives sections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from darkhaloscope.records import STAMP_SIZE
from darkhaloscope.survey.errors import BrickUnreadable, FitsBroken
from darkhaloscope.survey.files import check_fits
from darkhaloscope.survey.tiles import Tiles
from darkhaloscope.survey.wcs import TanWcs


def plane_label(kind: str, band: str) -> str:
    """Return how messages name a plane: image-r, maskbits."""
    return f"{kind}-{band}" if band else kind


def _fitsio() -> Any:
    import fitsio  # here: a GPU host, which reads no FITS, has none

    return fitsio


class Plane:
    """One open coadd file; raises `BrickUnreadable` when it is opened or read and found broken."""

    def __init__(self, brickname: str, label: str, path: str) -> None:
        self.brickname, self.label = brickname, label
        self.keep_whole = False
        self._whole: np.ndarray | None = None
        self._tiles: Tiles | None = None
        try:
            check_fits(path)
        except FitsBroken as error:
            raise BrickUnreadable(
                f"{brickname}: {label} {error}; delete it from the cache to fetch it again"
            ) from error
        try:
            self._fits = _fitsio().FITS(path)
            self._hdu = self._image_hdu()
            self.header = {card["name"]: card["value"] for card in self._hdu.read_header_list()}
            self.height, self.width = self._hdu.get_dims()
            self._tiles = Tiles.of(path, self.header, self._hdu.get_offsets()["data_start"], self._by_fitsio)
        except OSError as error:
            raise self._unreadable(error) from error

    def _image_hdu(self) -> Any:
        # The survey keeps the image in HDU 1, an uncompressed copy has it in HDU 0; further HDUs of a
        # maskbits file are the WISE masks.
        for number in (1, 0):
            if number < len(self._fits):
                hdu = self._fits[number]
                if isinstance(hdu, _fitsio().hdu.ImageHDU) and len(hdu.get_dims()) == 2:
                    return hdu
        raise BrickUnreadable(
            f"{self.brickname}: {self.label} has no two-dimensional image in HDU 1 or 0; "
            "delete it from the cache to fetch it again"
        )

    def close(self) -> None:
        """Close the file."""
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

    def share_per_cut(self, size: int = STAMP_SIZE) -> float:
        """Return the share of the plane that must be decompressed for one cut, on average over positions."""
        if "ZTILE1" not in self.header:
            return 0.0
        tile = [self.header[key] for key in ("ZTILE1", "ZTILE2")]
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

    def section(self, x0: int, y0: int, size: int) -> np.ndarray:
        """Return (size, size) values, 0 beyond the plane."""
        if 0 <= x0 <= self.width - size and 0 <= y0 <= self.height - size:
            return self._read(x0, x0 + size, y0, y0 + size)
        xa, xb = (min(max(v, 0), self.width) for v in (x0, x0 + size))
        ya, yb = (min(max(v, 0), self.height) for v in (y0, y0 + size))
        if xa == xb or ya == yb:
            return np.zeros((size, size), np.float32)
        data = self._read(xa, xb, ya, yb)
        padded = np.zeros((size, size), data.dtype)
        padded[ya - y0 : yb - y0, xa - x0 : xb - x0] = data
        return padded

    def _read(self, xa: int, xb: int, ya: int, yb: int) -> np.ndarray:
        if not self.keep_whole:
            return self._pixels(xa, xb, ya, yb)
        if self._whole is None:
            self._whole = self._pixels(0, self.width, 0, self.height)
        return self._whole[ya:yb, xa:xb].copy()

    def _pixels(self, xa: int, xb: int, ya: int, yb: int) -> np.ndarray:
        try:
            data = None if self._tiles is None else self._tiles.window(xa, xb, ya, yb)
            return self._by_fitsio(xa, xb, ya, yb) if data is None else data
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    def _by_fitsio(self, xa: int, xb: int, ya: int, yb: int) -> np.ndarray:
        return np.ascontiguousarray(self._hdu[ya:yb, xa:xb])

    def value(self, x: float, y: float) -> float:
        """Return the value of the pixel nearest to (x, y), moved into the plane where it is beyond."""
        column = min(max(math.floor(x + 0.5), 0), self.width - 1)
        row = min(max(math.floor(y + 0.5), 0), self.height - 1)
        return float(self._read(column, column + 1, row, row + 1)[0, 0])
