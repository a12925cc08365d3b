"""The tiles of a compressed plane, read and decoded for many windows at once.

`fitsio` decodes any plane, at 150 to 200 MB/s and holding the interpreter's lock, and that would be two thirds of the
cost of a stamp. So the tiles of the survey's image and invvar (RICE, quantised with dithering) and psfsize (GZIP,
lossless) planes are decoded here, to the same bits; of its maskbits (HCOMPRESS, integers) each different tile is
decoded once, for most are equal. A plane laid out otherwise has no `Tiles`, and a window with a tile that is in any
way odd is not filled: `fitsio` then reads it, or says what is wrong with it.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from darkhaloscope.survey.rice import BEYOND, decode_pieces

DITHERS = {"NO_DITHER": 0, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}
FORMATS = {"D": ">f8", "E": ">f4", "J": ">i4"}
GZIP = 31  # zlib's number for a gzip wrapper
KEPT = 64  # different integer tiles that are kept, 40 kB each

Read = Callable[[int, int, int, int], np.ndarray]


class Tiles:
    """The tiles of one plane; `Tiles.of` makes it where the layout is known.

    Args:
        path: local file.
        header: of the compressed image.
        data_start: first byte of the table of tiles.
        table: its rows, a tile each.
        read: reads pixels [ya, yb) x [xa, xb) of the plane as `fitsio` does, given (xa, xb, ya, yb).
    """

    def __init__(
        self, path: str, header: Mapping[str, Any], data_start: int, table: np.ndarray, read: Read
    ) -> None:
        self.width, self.height = int(header["ZNAXIS1"]), int(header["ZNAXIS2"])
        self.tile_width, self.tile_height = int(header["ZTILE1"]), int(header["ZTILE2"])
        self._columns = -(-self.width // self.tile_width)
        self._dither = DITHERS.get(str(header.get("ZQUANTIZ", "NO_DITHER")).strip(), 0)
        self._seed = int(header.get("ZDITHER0", 0) or 0) - 1
        heap = int(header.get("THEAP") or header["NAXIS1"] * header["NAXIS2"])
        code = table["COMPRESSED_DATA"].astype(np.int64)
        kind = str(header["ZCMPTYPE"]).strip()
        lossless = np.full(len(code), kind == "GZIP_1")
        if "GZIP_COMPRESSED_DATA" in (table.dtype.names or ()):  # holds the tiles that could not be quantised
            lossless |= code[:, 0] == 0
            code = np.where(lossless[:, None], table["GZIP_COMPRESSED_DATA"], code)
        self._offsets, self._lengths = code[:, 1] + data_start + heap, code[:, 0]
        self._read, self._seen = read, dict[tuple[bytes, int], np.ndarray]()
        self._integers = kind == "HCOMPRESS_1"
        self._unquantised = lossless | self._integers
        self._quantum: np.ndarray | None = None
        if not self._unquantised.all():
            self._quantum = np.stack([table["ZSCALE"], table["ZZERO"]], axis=1).astype(np.float64)
            self._room = np.empty(self.tile_width * self.tile_height, np.int32)
        self._file = os.open(path, os.O_RDONLY)

    @classmethod
    def of(cls, path: str, header: Mapping[str, Any], data_start: int, read: Read) -> Tiles | None:
        """Return the tiles of a plane, or None where its layout is not one that is decoded here."""
        try:
            table = _tile_table(path, header, data_start)
            return None if table is None else cls(path, header, data_start, table, read)
        except (KeyError, TypeError, ValueError):
            return None  # a header without what it should have: `fitsio` says so

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def windows(self, corners: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Fill windows of the plane.

        Args:
            corners: (n, 2) int64, x and y of each window's first pixel; windows may reach beyond the plane.
            out: (n, height, width) of zeros, float32, or int32 where the plane has integers; what is beyond the
                plane stays as it is.

        Returns:
            (n,) bool, False where `fitsio` must read the window.
        """
        pieces = self._pieces(corners, out.shape[1:])
        code, places = self._fetch(pieces[:, 1])
        good = np.ones(len(out), bool)
        good[pieces[places[:, 1] == 0, 0]] = False
        unquantised = self._unquantised[pieces[:, 1]]
        if self._quantum is not None:
            quantised = pieces[~unquantised]
            where = (quantised, places[~unquantised], self._quantum[quantised[:, 1]])
            side = (self.tile_width, self.width)
            decode_pieces(code, self._room, *where, side, self._dither, self._seed, out, good)
        for piece, place in zip(pieces[unquantised].tolist(), places[unquantised].tolist(), strict=True):
            good[piece[0]] &= self._copy(piece, code[place[0] :][: place[1]], out)
        return good

    def _pieces(self, corners: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return what windows have of tiles, (m, 8) int64.

        Each row: window, tile, its pixels x0, x1, y0, y1 in the tile, half open, and x, y of the first in the window.
        """
        tx, x0, x1, x = _overlaps(corners[:, 0], shape[1], self.width, self.tile_width)
        ty, y0, y1, y = _overlaps(corners[:, 1], shape[0], self.height, self.tile_height)
        window, row, column = np.nonzero((y1 > y0)[:, :, None] & (x1 > x0)[:, None, :])
        by_x, by_y = (window, column), (window, row)
        tile = ty[by_y] * self._columns + tx[by_x]
        return np.stack([window, tile, x0[by_x], x1[by_x], y0[by_y], y1[by_y], x[by_x], y[by_y]], axis=1)

    def _fetch(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the code of tiles, those that lie one behind the other at once.

        Returns:
            The code, uint8, with `BEYOND` bytes more, and each tile's first byte in it and length, (m, 2); a length of
            0 where a tile has no code that could be read.
        """
        each, which = np.unique(tiles, return_inverse=True)
        offset, length = self._offsets[each], self._lengths[each]
        most = 8 * self.tile_width * self.tile_height
        length = np.where((offset >= 0) & (length > 0) & (length <= most), length, 0)
        start = np.concatenate([[0], np.cumsum(length)])
        code = np.empty(start[-1] + BEYOND, np.uint8)
        whole = code.data
        cuts = np.flatnonzero(offset[1:] != offset[:-1] + length[:-1]) + 1
        for first, last in pairwise([0, *cuts.tolist(), len(each)]):
            there = whole[start[first] : start[last]]
            if len(there) and not self._filled(there, int(offset[first])):
                length[first:last] = 0
        return code, np.stack([start[:-1], length], axis=1)[which]

    def _filled(self, there: memoryview, offset: int) -> bool:
        try:
            return os.preadv(self._file, [there], offset) == len(there)
        except OSError:
            return False

    def _copy(self, piece: list[int], code: np.ndarray, out: np.ndarray) -> bool:
        """Copy a piece of a tile that is not quantised; return False where that cannot be done here."""
        window, tile, xa, xb, ya, yb, x, y = piece
        if not len(code):
            return False
        try:
            plain = (
                self._integer_tile(tile, code.tobytes())
                if self._integers
                else self._unzipped(tile, code.data, yb)
            )
        except (OSError, ValueError, zlib.error):
            return False
        out[window, y : y + yb - ya, x : x + xb - xa] = plain[ya:yb, xa:xb]
        return True

    def _unzipped(self, tile: int, code: memoryview, n_rows: int) -> np.ndarray:
        width = min(self.tile_width, self.width - tile % self._columns * self.tile_width)
        plain = zlib.decompressobj(GZIP).decompress(code, 4 * width * n_rows)
        return np.frombuffer(plain, ">f4").reshape(n_rows, width)

    def _integer_tile(self, tile: int, code: bytes) -> np.ndarray:
        row, column = divmod(tile, self._columns)
        x, y = column * self.tile_width, row * self.tile_height
        right, high = min(x + self.tile_width, self.width), min(y + self.tile_height, self.height)
        key = (code, right - x)
        if key not in self._seen:
            if len(self._seen) == KEPT:
                self._seen.clear()
            self._seen[key] = self._read(x, right, y, high)
        return self._seen[key]


def _overlaps(start: np.ndarray, length: int, plane: int, tile: int) -> tuple[np.ndarray, ...]:
    """Return what windows share with tiles along one axis.

    Args:
        start: (n,) first pixel of each window.
        length: of the windows, `plane`, and the tiles, pixels.

    Returns:
        Four (n, k) int64: number of the tile, first pixel and end in it, first pixel in the window. Nothing is shared
        where the end is not beyond the first.
    """
    number = np.maximum(start, 0)[:, None] // tile + np.arange((length - 2) // tile + 2)
    begin, start = number * tile, start[:, None]
    first, end = np.maximum(start, begin), np.minimum(np.minimum(start + length, begin + tile), plane)
    return number, first - begin, end - begin, first - start


def _tile_table(path: str, header: Mapping[str, Any], data_start: int) -> np.ndarray | None:
    """Return the rows of the table of tiles, or None where this is not a layout that is decoded here."""
    if header.get("ZNAXIS") != 2 or "ZTILE1" not in header:
        return None
    names = [str(header[f"TTYPE{i + 1}"]).strip() for i in range(int(header["TFIELDS"]))]
    kind, quantised = str(header["ZCMPTYPE"]).strip(), str(header.get("ZQUANTIZ", "NO_DITHER")).strip()
    parameters = {str(header.get(f"ZNAME{i}")).strip(): header.get(f"ZVAL{i}") for i in range(1, 5)}
    if kind in ("RICE_1", "RICE_ONE"):
        known = {"ZSCALE", "ZZERO"} <= set(names) and quantised in DITHERS and "ZBLANK" not in names
        known &= (parameters.get("BLOCKSIZE"), parameters.get("BYTEPIX")) == (32, 4)
        known &= int(header.get("ZBLANK", -2147483648)) <= -2147483647 and header["ZBITPIX"] == -32
    elif kind == "GZIP_1":
        known = "ZSCALE" not in names and quantised == "NONE" and header["ZBITPIX"] == -32
    else:
        known = kind == "HCOMPRESS_1" and names == ["COMPRESSED_DATA"] and header["ZBITPIX"] == 32
    formats = [
        re.fullmatch(r"1?([DEJ]|[PQ]B\(\d+\))", str(header[f"TFORM{i + 1}"]).strip())
        for i in range(len(names))
    ]
    if not known or "COMPRESSED_DATA" not in names or not all(formats) or not _covered(header):
        return None
    fields = [(name, *_dtype(match.group(1))) for name, match in zip(names, formats, strict=True) if match]
    table = np.dtype(fields)
    if table.itemsize != header["NAXIS1"]:
        return None
    with Path(path).open("rb") as stream:
        stream.seek(data_start)
        data = stream.read(table.itemsize * int(header["NAXIS2"]))
    return np.frombuffer(data, table) if len(data) == table.itemsize * int(header["NAXIS2"]) else None


def _covered(header: Mapping[str, Any]) -> bool:
    """Return whether tiles no larger than the plane cover it, one a row of the table."""
    sides = [(int(header[f"ZNAXIS{i}"]), int(header[f"ZTILE{i}"])) for i in (1, 2)]
    return all(0 < tile <= plane for plane, tile in sides) and header["NAXIS2"] == math.prod(
        -(-plane // tile) for plane, tile in sides
    )


def _dtype(form: str) -> tuple[Any, ...]:
    return (FORMATS[form],) if form in FORMATS else (">i4" if form[0] == "P" else ">i8", (2,))
