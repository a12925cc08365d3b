"""Pixels from a cutout service, for anchors whose bricks cannot be had: slower, resampled, and kept apart.

The survey's viewer resamples (its pixels correlate 0.8 with the coadd's), answers positions it knows nothing of with
zeros and status 200, and gives neither masks nor inverse variances. So a cutout is looked at before it is believed,
its noise is measured in it, and scores of such stamps never enter a figure of the coadds'.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from darkhaloscope.injection.cutouts import stamp_corner
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.stats.robust import mad_sigma
from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.errors import BrickUnreadable, FitsBroken, TransferFailed
from darkhaloscope.survey.files import copy_to_local
from darkhaloscope.survey.fits_headers import check_fits
from darkhaloscope.survey.one_by_one import OneByOne
from darkhaloscope.survey.transfer import Client
from darkhaloscope.survey.wcs import TanWcs

MARGIN = 2  # pixels more than a stamp, so that it can be cut around any position in the middle pixel
MAX_BYTES = 4 << 20


class ServiceFailed(BrickUnreadable):
    """The service gave no image at all."""


def cutout_url(service: str, ra: float, dec: float, size: int) -> str:
    """Return the URL of a FITS cutout: native scale, grz.

    Args:
        service: base URL with its own parameters, e.g. `https://HOST/viewer/fits-cutout?layer=ls-dr10-south`.
        ra, dec: deg.
        size: pixels.
    """
    join = "&" if "?" in service else "?"
    return f"{service}{join}ra={ra:.6f}&dec={dec:.6f}&size={size}&pixscale={PIXEL_SCALE_ARCSEC}&bands={BANDS}"


class CutoutBrick(OneByOne):
    """A cutout in the place of a brick: what `injection.stamps.make_stamps` needs of one.

    Args:
        image: (band, y, x) float32 nmgy/pixel.
        wcs: of the cutout.
        brickname: of the rows that it is for.

    Raises:
        BrickUnreadable: it is blank in a band: all zero, constant or not finite.
    """

    def __init__(self, image: np.ndarray, wcs: TanWcs, brickname: str) -> None:
        self.image, self.wcs, self.brickname = image, wcs, brickname
        for plane, band in zip(image, BANDS, strict=True):
            if not np.isfinite(plane).all():
                raise BrickUnreadable(f"cutout service: band {band} has NaN or infinite pixels")
            if plane.min() == plane.max():
                raise BrickUnreadable(f"cutout service: blank: band {band} is {plane.flat[0]:g} everywhere")
        border = [np.concatenate([p[:6].ravel(), p[-6:].ravel()]) for p in image]
        sigma = [float(mad_sigma(b)) for b in border]
        if not min(sigma) > 0:
            raise BrickUnreadable("cutout service: blank: more than half of the border has one value")
        self.invvar = np.array([s**-2 for s in sigma], np.float32)

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based x, y of positions in degrees."""
        return self.wcs.sky_to_pixel(ra, dec)

    def cut(self, x0: int, y0: int, size: int) -> Cutout:
        """Return the square whose first pixel is (x0, y0).

        Raises:
            BrickUnreadable: it is not inside: the service answered for another place.
        """
        if x0 < 0 or y0 < 0 or x0 + size > self.wcs.width or y0 + size > self.wcs.height:
            raise BrickUnreadable("cutout service: the cutout is not around the position that was asked for")
        image = np.ascontiguousarray(self.image[:, y0 : y0 + size, x0 : x0 + size])
        invvar = np.broadcast_to(self.invvar[:, None, None], image.shape).copy()
        return Cutout(image, invvar, np.zeros((size, size), np.int32), False, 0, 0)

    def psfsize(self, x: float, y: float) -> tuple[np.ndarray, str]:
        """A service states no PSF size; the brick table does."""
        raise BrickUnreadable("cutout service: states no PSF size")


def fetch_cutout(
    service: str, ra: float, dec: float, brickname: str, size: int, client: Client
) -> CutoutBrick:
    """Ask the service for the pixels around a position.

    Args:
        service: see `cutout_url`.
        ra, dec: deg.
        brickname: brick the position is in.
        size: pixels of a stamp.
        client: limits and connections.

    Raises:
        ServiceFailed: no answer, too large, or not FITS.
        BrickUnreadable: not three bands around the position at native scale, or blank.
    """
    url = cutout_url(service, ra, dec, size + MARGIN)
    with tempfile.TemporaryDirectory(prefix="cutout-") as folder:
        path = Path(folder, "cutout.fits")
        try:
            copy_to_local(url, path, MAX_BYTES, client)
            check_fits(path)
            image, header = fitsio.read(str(path), header=True)
        except (FileNotFoundError, TransferFailed, FitsBroken, OSError) as error:
            raise ServiceFailed(f"cutout service: {error}") from error
    wcs = _wcs_around(np.shape(image), dict(header), ra, dec, size)
    return CutoutBrick(np.ascontiguousarray(image, np.float32), wcs, brickname)


def _wcs_around(shape: tuple[int, ...], header: dict[str, Any], ra: float, dec: float, size: int) -> TanWcs:
    """Return the world coordinates of an answer, once it is known to be what was asked for."""
    if len(shape) != 3 or shape[0] != len(BANDS) or min(shape[1:]) < size:
        raise BrickUnreadable(
            f"cutout service: an image of shape {shape}, expected {len(BANDS)} bands of {size + MARGIN}"
        )
    try:
        wcs = TanWcs.from_header(header, shape[2], shape[1])
    except ValueError as error:
        raise BrickUnreadable(f"cutout service: {error}") from error
    x, y = (float(v) for v in wcs.sky_to_pixel(np.array(ra), np.array(dec)))
    scale, corner = wcs.pixel_scale_arcsec, (stamp_corner(x, size), stamp_corner(y, size))
    if abs(scale / PIXEL_SCALE_ARCSEC - 1) > 0.01 or min(corner) < 0:
        raise BrickUnreadable(
            f"cutout service: pixels of {scale:.3f} arcsec with the position at x {x:.1f}, y {y:.1f}; expected "
            f"{PIXEL_SCALE_ARCSEC} arcsec around it"
        )
    return wcs
