"""Write planes and tables as FITS files in the survey's layout: names, headers, tile compression."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from darkhaloscope.survey.coadds import file_path
from darkhaloscope.survey.wcs import TanWcs

TILE = (100, 100)
# The survey compresses images to steps of 1e-4 nmgy; relative to the noise keeps files small at any depth.
STEPS_PER_SIGMA = 16.0


def coadd_header(wcs: TanWcs, brickname: str, kind: str, band: str) -> list[dict[str, Any]]:
    """Return the header cards of a coadd plane, as the survey writes them."""
    cards: dict[str, Any] = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CRVAL1": wcs.crval[0], "CRVAL2": wcs.crval[1],
        "CRPIX1": wcs.crpix[0], "CRPIX2": wcs.crpix[1],
        "CD1_1": wcs.cd[0][0], "CD1_2": wcs.cd[0][1], "CD2_1": wcs.cd[1][0], "CD2_2": wcs.cd[1][1],
        "EQUINOX": 2000.0, "BRICK": brickname, "BRICKNAM": brickname, "IMTYPE": kind, "IMAGETYP": kind,
        "SURVEY": "simulated", "VERSION": "DR10-south layout",
    }  # fmt: skip
    if band:
        cards |= {"BAND": band, "FILTER": band}
    if kind == "image":
        cards |= {"MAGZERO": 22.5, "BUNIT": "nanomaggy"}
    return [{"name": name, "value": value} for name, value in cards.items()]


def write_plane(
    root: Path,
    wcs: TanWcs,
    brickname: str,
    kind: str,
    band: str,
    plane: np.ndarray,
    step: float | None = None,
) -> Path:
    """Write one plane tile-compressed, as the survey does.

    image and invvar: RICE with subtractive dithering that keeps zeros exact (SUBTRACTIVE_DITHER_2), quantised to
    `step`; psfsize: lossless GZIP; maskbits: HCOMPRESS of integers, lossless.

    Args:
        root: the release's base folder.
        wcs: of the image.
        brickname: AAAA[pm]BBB.
        kind: image, invvar, psfsize or maskbits.
        band: "" for maskbits.
        plane: (y, x).
        step: quantisation step in the plane's unit, for image and invvar.

    Returns:
        The file's path.
    """
    path = root / file_path(brickname, kind, band)
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"tile_dims": list(TILE)}
    if kind in ("image", "invvar"):
        seed = 1 + zlib.crc32(f"{brickname}/{kind}/{band}".encode()) % 10_000  # else taken from the clock
        options |= {
            "compress": "RICE_1", "qlevel": -float(step or 0.0), "qmethod": "SUBTRACTIVE_DITHER_2", "dither_seed": seed,
        }  # fmt: skip
    elif kind == "psfsize":
        options |= {"compress": "GZIP_1", "qlevel": 0.0}
    else:
        options |= {"compress": "HCOMPRESS_1"}
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(plane, header=coadd_header(wcs, brickname, kind, band), **options)
    return path


def write_table(
    path: Path, columns: Mapping[str, np.ndarray], header: Mapping[str, Any] | None = None
) -> None:
    """Write columns of equal length as a binary table; a name ending in .gz is gzipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = {n: np.char.encode(v, "ascii") if v.dtype.kind == "U" else v for n, v in columns.items()}
    rows = np.empty(
        len(next(iter(ready.values()))), dtype=[(n, v.dtype, v.shape[1:]) for n, v in ready.items()]
    )
    for name, values in ready.items():
        rows[name] = values
    cards = [{"name": n, "value": v} for n, v in (header or {}).items()]
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(rows, header=cards)
