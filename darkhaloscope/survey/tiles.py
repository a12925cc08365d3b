"""The tiles of a compressed plane, read and decoded one by one.

`fitsio` decodes any plane, at 150 to 200 MB/s and holding the interpreter's lock. The survey's image and invvar
(RICE, quantised with dithering) and psfsize (GZIP, lossless) planes are two thirds of the cost of a stamp, so their
tiles are decoded here, to the same bits. What is laid out otherwise has no `Tiles`, and a tile that is in any way
odd gives None: `fitsio` then reads it, or says what is wrong with it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from darkhaloscope.survey.rice import PADDING, tile_window

DITHERS = {"NO_DITHER": 0, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}
FORMATS = {"D": ">f8", "E": ">f4", "J": ">i4"}
GZIP = 31  # zlib's number for a gzip wrapper


class Tiles:
    """The float32 tiles of one plane; `Tiles.of` makes it where the layout is known.

    Args:
        path: local file.
        header: of the compressed image.
        data_start: first byte of the table of tiles.
        table: its rows, a tile each.
    """

    def __init__(self, path: str, header: Mapping[str, Any], data_start: int, table: np.ndarray) -> None:
        self.width, self.height = int(header["ZNAXIS1"]), int(header["ZNAXIS2"])
        self.tile_width, self.tile_height = int(header["ZTILE1"]), int(header["ZTILE2"])
        self._columns = -(-self.width // self.tile_width)
        self._dither = DITHERS.get(str(header.get("ZQUANTIZ", "NO_DITHER")).strip(), 0)
        self._seed = int(header.get("ZDITHER0", 0) or 0) - 1
        heap = int(header.get("THEAP") or header["NAXIS1"] * header["NAXIS2"])
        code = table["COMPRESSED_DATA"].astype(np.int64)
        lossless = np.full(len(code), str(header["ZCMPTYPE"]).strip() == "GZIP_1")
        if "GZIP_COMPRESSED_DATA" in table.dtype.names:  # holds the tiles that could not be quantised
            lossless |= code[:, 0] == 0
            code = np.where(lossless[:, None], table["GZIP_COMPRESSED_DATA"], code)
        self._lossless, self._lengths = lossless.tolist(), code[:, 0].tolist()
        self._offsets = (code[:, 1] + data_start + heap).tolist()
        if not lossless.all():
            self._scale, self._zero = table["ZSCALE"].tolist(), table["ZZERO"].tolist()
            self._room = np.empty(self.tile_width * self.tile_height, np.int32)
        self._file = os.open(path, os.O_RDONLY)

    @classmethod
    def of(cls, path: str, header: Mapping[str, Any], data_start: int) -> Tiles | None:
        """Return the tiles of a plane, or None where its layout is not one that is decoded here."""
        table = _tile_table(path, header, data_start)
        return None if table is None else cls(path, header, data_start, table)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def window(self, xa: int, xb: int, ya: int, yb: int) -> np.ndarray | None:
        """Return pixels [ya, yb) x [xa, xb), float32, or None where `fitsio` must look at a tile."""
        out = np.empty((yb - ya, xb - xa), np.float32)
        for row in range(ya // self.tile_height, (yb - 1) // self.tile_height + 1):
            for column in range(xa // self.tile_width, (xb - 1) // self.tile_width + 1):
                x, y = column * self.tile_width, row * self.tile_height
                left, right = max(xa, x), min(xb, x + self.tile_width)
                low, high = max(ya, y), min(yb, y + self.tile_height)
                part = out[low - ya : high - ya, left - xa : right - xa]
                window = (left - x, right - x, low - y, high - y)
                if not self._decode(row * self._columns + column, min(self.tile_width, self.width - x), window, part):
                    return None
        return out

    def _decode(self, tile: int, width: int, window: tuple[int, int, int, int], out: np.ndarray) -> bool:
        length = self._lengths[tile]
        code = os.pread(self._file, length, self._offsets[tile]) if length > 0 else b""
        if not code or len(code) < length:
            return False
        if not self._lossless[tile]:
            where = (self._scale[tile], self._zero[tile], self._dither, tile + self._seed)
            return tile_window(np.frombuffer(code + PADDING, np.uint8), self._room, width, window, *where, out)
        try:
            values = np.frombuffer(zlib.decompress(code, GZIP), ">f4")
        except (zlib.error, ValueError):
            return False
        xa, xb, ya, yb = window
        if values.size % width or values.size < yb * width:
            return False
        out[:] = values.reshape(-1, width)[ya:yb, xa:xb]
        return True


def _tile_table(path: str, header: Mapping[str, Any], data_start: int) -> np.ndarray | None:
    """Return the rows of the table of tiles, or None where this is not a layout that is decoded here."""
    if header.get("ZBITPIX") != -32 or header.get("ZNAXIS") != 2 or "ZTILE1" not in header:
        return None
    names = [str(header[f"TTYPE{i + 1}"]).strip() for i in range(int(header["TFIELDS"]))]
    kind, quantised = str(header["ZCMPTYPE"]).strip(), str(header.get("ZQUANTIZ", "NO_DITHER")).strip()
    parameters = {str(header.get(f"ZNAME{i}")).strip(): header.get(f"ZVAL{i}") for i in range(1, 5)}
    if kind in ("RICE_1", "RICE_ONE"):
        known = {"ZSCALE", "ZZERO"} <= set(names) and quantised in DITHERS and "ZBLANK" not in names
        known &= (parameters.get("BLOCKSIZE"), parameters.get("BYTEPIX")) == (32, 4)
        known &= int(header.get("ZBLANK", -2147483648)) <= -2147483647
    else:
        known = kind == "GZIP_1" and "ZSCALE" not in names and quantised == "NONE"
    formats = [re.fullmatch(r"1?([DEJ]|[PQ]B\(\d+\))", str(header[f"TFORM{i + 1}"]).strip()) for i in range(len(names))]
    if not known or "COMPRESSED_DATA" not in names or not all(formats):
        return None
    fields = [(name, *_dtype(match.group(1))) for name, match in zip(names, formats, strict=True) if match]
    table = np.dtype(fields)
    if table.itemsize != header["NAXIS1"]:
        return None
    with open(path, "rb") as stream:
        stream.seek(data_start)
        data = stream.read(table.itemsize * int(header["NAXIS2"]))
    return np.frombuffer(data, table) if len(data) == table.itemsize * int(header["NAXIS2"]) else None


def _dtype(form: str) -> tuple[Any, ...]:
    return (FORMATS[form],) if form in FORMATS else (">i4" if form[0] == "P" else ">i8", (2,))
