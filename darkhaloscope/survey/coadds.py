"""One brick's coadds: file layout, and a reader that cuts sections out of the tile-compressed planes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from darkhaloscope.records import STAMP_SIZE
from darkhaloscope.storage import filesystem, is_local, join
from darkhaloscope.survey.bricks import parse_names
from darkhaloscope.survey.errors import (
    BandMissing,
    BrickMissing,
    BrickUnreadable,
    TransferFailed,
)
from darkhaloscope.survey.files import copy_to_local
from darkhaloscope.survey.plane import Plane, plane_label
from darkhaloscope.survey.wcs import TanWcs

MAX_FILE_BYTES = 256 << 20  # an uncompressed float32 plane has 52 MB


def file_name(brickname: str, kind: str, band: str = "") -> str:
    """Return a coadd file's name; kind is image, invvar, psfsize (with a band) or maskbits (without)."""
    return f"legacysurvey-{brickname}-{kind}{'-' + band if band else ''}.fits.fz"


def file_path(brickname: str, kind: str, band: str = "") -> str:
    """Return a coadd file's path below the release's base URL: coadd/<AAA>/<brick>/<file>."""
    return f"coadd/{brickname[:3]}/{brickname}/{file_name(brickname, kind, band)}"


def brick_files(bands: str) -> list[tuple[str, str, bool]]:
    """Return (kind, band, required) of a brick's files; the optional ones are maskbits and psfsize."""
    required = [(kind, band, True) for band in bands for kind in ("image", "invvar")]
    return [*required, ("maskbits", "", False), *(("psfsize", band, False) for band in bands)]


@dataclass(frozen=True)
class Cutout:
    """A square cut out of a brick.

    image: (band, y, x) float32, nmgy/pixel; 0 beyond the brick; NaN where the coadd has NaN.
    invvar: (band, y, x) float32, nmgy^-2; 0 beyond the brick, without data and where the image is NaN.
    maskbits: (y, x) int32; all 0 where `has_maskbits` is False (the source has no maskbits file).
    padded: number of pixels, of size * size, beyond the brick.
    nonfinite: number of (band, pixel) values of the coadd that are NaN or infinite in image or invvar.
    """

    image: np.ndarray
    invvar: np.ndarray
    maskbits: np.ndarray
    has_maskbits: bool
    padded: int
    nonfinite: int


class BrickReader:
    """An open brick; use as a context manager.

    Local files are read in place; files of other URLs are first copied to a folder below `scratch`, checked
    against the size the server states, and deleted at the end. Missing maskbits and psfsize files are no
    error: `has_maskbits` and `psfsize` say what there is.

    Args:
        source_url: base of the release: a directory, file://, s3:// or https:// URL with coadd/ below it.
        brickname: AAAA[pm]BBB.
        bands: bands to read, in the order of the cutouts' first axis.
        scratch: folder for copies; the system's temporary folder by default.
        brick_row: the brick's row of the survey-bricks table (or any mapping with psfsize_<band> in arcsec),
            for the PSF size where there is no psfsize map.
        n_cuts: number of cuts planned: where decompressing a plane once and keeping it (52 MB each) is
            cheaper than cutting sections (with the survey's 100 x 100 tiles: from about 480 stamps of 64
            pixels on), it is done.

    Raises (on entering):
        BrickMissing: no file of the brick is there.
        BandMissing: a band lacks its image or invvar.
        BrickUnreadable: a file is truncated, not FITS, of another brick or shape, or could not be copied.
        ValueError: `brickname` is not a brick's name.
    """

    def __init__(
        self,
        source_url: str,
        brickname: str,
        bands: str = "grz",
        scratch: str | Path | None = None,
        brick_row: Mapping[str, Any] | None = None,
        n_cuts: int = 0,
    ) -> None:
        parse_names([brickname])
        self.source_url, self.brickname, self.bands = str(source_url), brickname, bands
        self.brick_row, self.n_cuts = brick_row, n_cuts
        self.has_maskbits = False
        self.wcs: TanWcs
        self._scratch, self._copies = scratch, ""
        self._planes: dict[str, Plane] = {}

    def __enter__(self) -> BrickReader:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> BrickReader:
        """Fetch (where remote), check and open the brick's files; what `with` does on entering."""
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Close the files and delete the copies."""
        for plane in self._planes.values():
            plane.close()
        self._planes.clear()
        if self._copies:
            shutil.rmtree(self._copies, ignore_errors=True)
            self._copies = ""

    def _open(self) -> None:
        if not is_local(self.source_url):
            self._copies = tempfile.mkdtemp(prefix=f"{self.brickname}-", dir=self._scratch)
        missing = []
        for kind, band, required in brick_files(self.bands):
            path = self._local_file(kind, band)
            if path is not None:
                self._planes[plane_label(kind, band)] = Plane(self.brickname, plane_label(kind, band), path)
            elif required:
                missing.append((kind, band))
        self._refuse_missing(missing)
        self.has_maskbits = "maskbits" in self._planes
        first = self._planes[plane_label("image", self.bands[0])]
        self.wcs = first.wcs()
        for label, plane in self._planes.items():
            plane.check_like(first)
            side = 1 if label.startswith("psfsize") else STAMP_SIZE  # of these a pixel is looked at
            plane.keep_whole = max(self.n_cuts, 1) * plane.share_per_cut(side) >= 1

    def _local_file(self, kind: str, band: str) -> str | None:
        url = join(self.source_url, file_path(self.brickname, kind, band))
        if not self._copies:
            path = filesystem(url)[1]
            return path if Path(path).is_file() else None
        target = f"{self._copies}/{file_name(self.brickname, kind, band)}"
        try:
            copy_to_local(url, target, MAX_FILE_BYTES)
        except FileNotFoundError:
            return None
        except TransferFailed as error:
            raise BrickUnreadable(
                f"{self.brickname}: fetching {plane_label(kind, band)} failed: {error}"
            ) from error
        return target

    def _refuse_missing(self, missing: list[tuple[str, str]]) -> None:
        if not missing:
            return
        where = join(self.source_url, "coadd", self.brickname[:3], self.brickname)
        if len(missing) == 2 * len(self.bands):
            raise BrickMissing(
                f"{self.brickname}: no image or invvar of bands {self.bands} in {where}; expected "
                f"{file_name(self.brickname, 'image', self.bands[0])} and its like; "
                "the brick is outside the footprint or not fetched yet (stage 4b)"
            )
        labels = ", ".join(plane_label(kind, band) for kind, band in missing)
        there = sorted(
            {b for b in self.bands if b not in {band for _, band in missing}}, key=self.bands.index
        )
        raise BandMissing(
            f"{self.brickname}: {labels} not found in {where}; bands with image and invvar: "
            f"{''.join(there) or 'none'}, expected {self.bands}; leave the brick out or "
            "fetch it again (stage 4b)"
        )

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based x, y (pixel centres at integers) of positions in degrees."""
        return self.wcs.sky_to_pixel(ra, dec)

    def cut(self, x0: int, y0: int, size: int) -> Cutout:
        """Cut the square of `size` pixels whose first pixel is (x0, y0), 0-based; it may reach beyond.

        Raises:
            BrickUnreadable: a plane's compressed data cannot be read.
        """
        return _only(self.cuts(np.array([[x0, y0]]), size))

    def cuts(self, corners: np.ndarray, size: int) -> list[Cutout | BrickUnreadable]:
        """Cut squares of `size` pixels whose first pixels are at x, y of corners (n, 2), or say why one cannot be.

        They are read plane by plane, all of a plane at once.
        """
        n, corners = len(corners), np.asarray(corners, np.int64)
        image, invvar = np.zeros((2, n, len(self.bands), size, size), np.float32)
        maskbits = np.zeros((n, size, size), np.int32)
        broken: dict[int, BrickUnreadable] = {}  # with the first reason of each
        for i, band in enumerate(self.bands):
            for kind, out in (("image", image), ("invvar", invvar)):
                broken = self._planes[plane_label(kind, band)].windows(corners, out[:, i]) | broken
        if self.has_maskbits:
            broken = self._planes["maskbits"].windows(corners, maskbits) | broken
        return [
            broken.get(i) or self._cutout(image[i], invvar[i], maskbits[i], corner)
            for i, corner in enumerate(corners.tolist())
        ]

    def _cutout(
        self, image: np.ndarray, invvar: np.ndarray, maskbits: np.ndarray, corner: list[int]
    ) -> Cutout:
        size, (x0, y0) = len(maskbits), corner
        bad = ~(np.isfinite(image) & np.isfinite(invvar))
        invvar = np.where(bad | (invvar < 0), np.float32(0), invvar)
        inside = _overlap(x0, size, self.wcs.width) * _overlap(y0, size, self.wcs.height)
        return Cutout(
            image, invvar, maskbits, self.has_maskbits, size * size - inside, int(np.count_nonzero(bad))
        )

    def psfsize(self, x: float, y: float) -> tuple[np.ndarray, str]:
        """Return the survey's PSF size at a pixel and where it is from; see `psfsizes`.

        Raises:
            BrickUnreadable: there is none.
        """
        return _only(self.psfsizes(np.array([x]), np.array([y])))

    def psfsizes(self, x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, str] | BrickUnreadable]:
        """Return the survey's PSF size per band at pixels, (band,) float32 arcsec, and where it is from.

        psfsize is the FWHM of the Gaussian of equal noise area, not a half-maximum FWHM (science notes and
        `lensing.psf.psfsize_to_fwhm`).

        Returns:
            For each pixel ("map": the psfsize maps, when every band has one with a positive value there;
            "brick_table": `brick_row`, otherwise), or why neither gives a positive size in every band.
        """
        maps = [self._planes.get(plane_label("psfsize", b)) for b in self.bands]
        found = [np.full(len(x), np.nan) if plane is None else plane.nearest(x, y) for plane in maps]
        sizes = np.stack(found, axis=1).astype(np.float32)
        row = {} if self.brick_row is None else self.brick_row
        table = np.array([row.get(f"psfsize_{b}", np.nan) for b in self.bands], np.float32)
        in_table, in_map = bool(_is_size(table).all()), np.all(_is_size(sizes), axis=1)
        return [
            (size, "map") if known else (table, "brick_table") if in_table else self._no_size(size, table, at)
            for size, known, at in zip(sizes, in_map.tolist(), zip(x, y, strict=True), strict=True)
        ]

    def _no_size(self, size: np.ndarray, table: np.ndarray, at: tuple[float, float]) -> BrickUnreadable:
        there = any(plane_label("psfsize", b) in self._planes for b in self.bands)
        found = f"psfsize maps give {size.tolist()}" if there else "has no psfsize map"
        return BrickUnreadable(
            f"{self.brickname}: {found} at x {at[0]:.0f}, y {at[1]:.0f} and the brick table gives "
            f"{table.tolist()} for bands {self.bands}; expected a positive PSF size per band: give the "
            "survey-bricks table, or leave the brick out"
        )


def _only(found: list[Any]) -> Any:
    if isinstance(found[0], BrickUnreadable):
        raise found[0]
    return found[0]


def _is_size(value: np.ndarray) -> np.ndarray:
    return np.isfinite(value) & (value > 0)


def _overlap(start: int, size: int, length: int) -> int:
    return max(min(start + size, length) - max(start, 0), 0)
