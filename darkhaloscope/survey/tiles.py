"""The tiles of a compressed plane, read and decoded one by one.

`fitsio` decodes any plane, at 150 to 200 MB/s and holding the interpreter's lock, and that would be two thirds of the
cost of a stamp. So the tiles of the survey's image and invvar (RICE, quantised with dithering) and psfsize (GZIP,
lossless) planes are decoded here, to the same bits; of its maskbits (HCOMPRESS, integers) each different tile is
decoded once, for most are equal. A plane laid out otherwise has no `Tiles`, and a window with a tile that is in any
way odd is None: `fitsio` then reads it, or says what is wrong with it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from darkhaloscope.survey.rice import BEYOND, tiles_window

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
        self._offsets, self._lengths = (code[:, 1] + data_start + heap).tolist(), code[:, 0].tolist()
        self._read, self._seen = read, dict[tuple[bytes, int], np.ndarray]()
        self._integers = kind == "HCOMPRESS_1"
        self._dtype = np.int32 if self._integers else np.float32
        self._unquantised = (lossless | self._integers).tolist()
        self._quantum: np.ndarray | None = None
        if not all(self._unquantised):
            self._quantum = np.stack([table["ZSCALE"], table["ZZERO"]], axis=1).astype(np.float64)
            self._rice = np.stack([self._offsets, np.where(lossless, 0, self._lengths)], axis=1)
            self._room = np.empty(self.tile_width * self.tile_height, np.int32)
        # A row of tiles' worth of pixels, uncompressed: more than what two neighbours can have.
        self._code = memoryview(bytearray(4 * self.width * self.tile_height + BEYOND))
        self._bytes = np.frombuffer(self._code, np.uint8)
        self._file = os.open(path, os.O_RDONLY)

    @classmethod
    def of(cls, path: str, header: Mapping[str, Any], data_start: int, read: Read) -> Tiles | None:
        """Return the tiles of a plane, or None where its layout is not one that is decoded here."""
        table = _tile_table(path, header, data_start)
        return None if table is None else cls(path, header, data_start, table, read)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def window(self, xa: int, xb: int, ya: int, yb: int) -> np.ndarray | None:
        """Return pixels [ya, yb) x [xa, xb), or None where `fitsio` must look at a tile."""
        out = np.empty((yb - ya, xb - xa), self._dtype)
        left, right = xa // self.tile_width, (xb - 1) // self.tile_width
        x = left * self.tile_width
        for row in range(ya // self.tile_height, (yb - 1) // self.tile_height + 1):
            y = row * self.tile_height
            low, high = max(ya, y), min(yb, y + self.tile_height)
            window, part = (xa - x, xb - x, low - y, high - y), out[low - ya : high - ya]
            if not self._decode(row * self._columns + left, row * self._columns + right, window, part):
                return None
        return out

    def _decode(self, first: int, last: int, window: tuple[int, int, int, int], out: np.ndarray) -> bool:
        """Decode a window x0, x1, y0, y1 of tiles side by side; return False where it cannot be done here."""
        start = self._fetch(first, last)
        if start is None:
            return False
        beyond = self.width - first % self._columns * self.tile_width  # pixels up to the plane's edge
        if self._quantum is not None:
            tiles, side = slice(first, last + 1), (self.tile_width, beyond)
            where = (self._rice[tiles], start, self._quantum[tiles], side, window)
            if not tiles_window(self._bytes, self._room, *where, self._dither, first + self._seed, out):
                return False
        if True in self._unquantised[first : last + 1]:
            return all(
                self._copy(tile, start, (tile - first) * self.tile_width, window, out)
                for tile in range(first, last + 1)
                if self._unquantised[tile]
            )
        return True

    def _fetch(self, first: int, last: int) -> int | None:
        """Read the code of tiles that lie one behind the other, at once; return its place, None where there is none."""
        offsets, lengths = self._offsets[first : last + 1], self._lengths[first : last + 1]
        start = offsets[0]
        length = offsets[-1] + lengths[-1] - start
        if not 0 < length <= len(self._code) - BEYOND or offsets != sorted(offsets) or min(lengths) <= 0:
            return None
        return start if os.preadv(self._file, [self._code[:length]], start) == length else None

    def _copy(
        self, tile: int, start: int, x: int, window: tuple[int, int, int, int], out: np.ndarray
    ) -> bool:
        """Copy a window's part of a tile that is not quantised; the window counts from x pixels before the tile."""
        xa, xb, ya, yb = window
        code = self._code[self._offsets[tile] - start :][: self._lengths[tile]]
        plain = self._integer_tile(tile, code.tobytes()) if self._integers else self._unzipped(tile, code, yb)
        if plain is None:
            return False
        left, right = max(xa - x, 0), min(xb - x, plain.shape[1])
        out[:, left + x - xa : right + x - xa] = plain[ya:yb, left:right]
        return True

    def _unzipped(self, tile: int, code: memoryview, n_rows: int) -> np.ndarray | None:
        width = min(self.tile_width, self.width - tile % self._columns * self.tile_width)
        try:
            plain = zlib.decompressobj(GZIP).decompress(code, 4 * width * n_rows)
        except zlib.error:
            return None
        if len(plain) < 4 * width * n_rows:
            return None
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
    if not known or "COMPRESSED_DATA" not in names or not all(formats):
        return None
    fields = [(name, *_dtype(match.group(1))) for name, match in zip(names, formats, strict=True) if match]
    table = np.dtype(fields)
    if table.itemsize != header["NAXIS1"]:
        return None
    with Path(path).open("rb") as stream:
        stream.seek(data_start)
        data = stream.read(table.itemsize * int(header["NAXIS2"]))
    return np.frombuffer(data, table) if len(data) == table.itemsize * int(header["NAXIS2"]) else None


def _dtype(form: str) -> tuple[Any, ...]:
    return (FORMATS[form],) if form in FORMATS else (">i4" if form[0] == "P" else ">i8", (2,))
