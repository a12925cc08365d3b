"""The headers of a FITS file, and whether it holds all the data that they announce.

FITS Standard 4.0 (Pence et al.), sections 3.1 to 4.4: blocks, cards and their values. A brick has ten
files, and `fitsio`, which hands over card by card, takes a multiple of the time (benchmarks/kernels.py).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from darkhaloscope.survey.errors import FitsBroken

_BLOCK = 2880
_CARD = 80
_MAX_BLOCKS = 2000
_VALUE = re.compile(r" *(?:'((?:[^']|'')*)'|([^/ ]+))")


@dataclass(frozen=True)
class Unit:
    """A header and its data.

    cards: keyword -> value (str, bool, int, float, or None where it is undefined); the last where one stands twice.
    data_start: first byte of the data in the file. data_bytes: their number, without what fills the last block.
    """

    cards: dict[str, Any]
    data_start: int
    data_bytes: int


def read_units(path: str | Path) -> list[Unit]:
    """Read all headers of a file, at least one.

    Raises:
        FitsBroken: it does not begin with SIMPLE, a header has no END or no layout, or the file is shorter than the
            headers say.
        FileNotFoundError: there is no such file.
    """
    units: list[Unit] = []
    size, position = Path(path).stat().st_size, 0
    with Path(path).open("rb") as stream:
        while position < size:
            stream.seek(position)
            cards = _read_cards(stream, size, first=not units)
            if cards is None:
                break
            units.append(Unit(cards, stream.tell(), _data_bytes(cards)))
            expected = units[-1].data_start + units[-1].data_bytes
            if expected > size:
                raise FitsBroken(f"has {size:,} bytes, header says {expected:,}; file is truncated")
            position = units[-1].data_start + math.ceil(units[-1].data_bytes / _BLOCK) * _BLOCK
    if not units:
        raise FitsBroken("has 0 bytes; file is empty")
    return units


def check_fits(path: str | Path) -> int:
    """Return the number of bytes that a file's headers account for; raises what `read_units` raises."""
    last = read_units(path)[-1]
    return last.data_start + last.data_bytes


def _read_cards(stream: BinaryIO, size: int, first: bool) -> dict[str, Any] | None:
    """Return the cards of the header here and stop behind it; None after the last unit."""
    cards: dict[str, Any] = {}
    for block in range(_MAX_BLOCKS):
        text = stream.read(_BLOCK)
        if block == 0 and not text.startswith(b"SIMPLE  =" if first else b"XTENSION"):
            if not first:
                return None  # bytes after the last unit: allowed by the standard, read by nobody
            raise FitsBroken(f"has {size:,} bytes and begins with {text[:16]!r}; it is not a FITS file")
        if len(text) < _BLOCK:
            raise FitsBroken(f"has {size:,} bytes and ends inside a header; file is truncated")
        if _add_cards(text.decode("latin-1"), cards):
            return cards
    raise FitsBroken(f"has a header of more than {_MAX_BLOCKS} blocks without END")


def _add_cards(block: str, cards: dict[str, Any]) -> bool:
    """Add a block's cards that have a value; return whether the header ends here."""
    for start in range(0, _BLOCK, _CARD):
        key = block[start : start + 8].rstrip()
        if key == "END":
            return True
        if block[start + 8 : start + 10] == "= ":
            cards[key] = _value(block[start + 10 : start + _CARD])
    return False


def _value(text: str) -> Any:
    found = _VALUE.match(text)
    if found is None:
        return None
    quoted, bare = found.groups()
    if quoted is not None:
        return quoted.replace("''", "'").rstrip()
    if bare in ("T", "F"):
        return bare == "T"
    for kind in (int, float):
        try:
            return kind(bare.replace("D", "E"))
        except ValueError:
            continue
    return bare


def _data_bytes(cards: dict[str, Any]) -> int:
    try:
        axes = [_count(cards, f"NAXIS{i + 1}") for i in range(_count(cards, "NAXIS"))]
        if not axes:
            return 0
        elements = _count(cards, "PCOUNT", 0) + math.prod(axes)
        return abs(cards["BITPIX"]) // 8 * _count(cards, "GCOUNT", 1) * elements
    except (KeyError, TypeError) as error:
        raise FitsBroken(f"has a header that does not say how long its data are: {error}") from error


def _count(cards: dict[str, Any], key: str, otherwise: int | None = None) -> int:
    value = cards[key] if otherwise is None else cards.get(key, otherwise)
    if not isinstance(value, int) or value < 0:
        raise TypeError(f"{key} is {value!r}")
    return value
