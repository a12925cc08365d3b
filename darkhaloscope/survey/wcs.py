"""The gnomonic (TAN) projection of coadd bricks, vectorised over positions.

Calabretta & Greisen (2002, A&A 395, 1077), equations 12 to 14 and 54. Pixel coordinates are 0-based with
pixel centres at integers: FITS coordinates minus one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from darkhaloscope.records import PIXEL_SCALE_ARCSEC

BRICK_PIXELS = 3600


def tangent_plane(
    ra: ArrayLike, dec: ArrayLike, ra0: ArrayLike, dec0: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Project positions onto the plane that touches the sky at (ra0, dec0).

    Args:
        ra, dec: positions, deg.
        ra0, dec0: tangent points, deg; broadcast against the positions.

    Returns:
        xi (east), eta (north) in degrees; NaN for positions 90 degrees or more away.
    """
    a, d, a0, d0 = (np.radians(np.asarray(v, dtype=np.float64)) for v in (ra, dec, ra0, dec0))
    depth = np.sin(d) * np.sin(d0) + np.cos(d) * np.cos(d0) * np.cos(a - a0)
    depth = np.where(depth > 0, depth, np.nan)
    xi = np.cos(d) * np.sin(a - a0) / depth
    eta = (np.sin(d) * np.cos(d0) - np.cos(d) * np.sin(d0) * np.cos(a - a0)) / depth
    return np.degrees(xi), np.degrees(eta)


def tangent_plane_to_sky(
    xi: ArrayLike, eta: ArrayLike, ra0: ArrayLike, dec0: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return ra in [0, 360) and dec, deg, of tangent-plane offsets in degrees: the inverse projection."""
    east, up, a0, d0 = (np.radians(np.asarray(v, dtype=np.float64)) for v in (xi, eta, ra0, dec0))
    north = np.cos(d0) - up * np.sin(d0)
    ra = a0 + np.arctan2(east, north)
    dec = np.arctan2(np.sin(d0) + up * np.cos(d0), np.hypot(east, north))
    return np.degrees(ra) % 360.0, np.degrees(dec)


@dataclass(frozen=True)
class TanWcs:
    """A TAN image's world coordinates, as its FITS header gives them.

    LONPOLE is 180 deg, the default everywhere but in an image centred on the north pole itself (outside the
    survey), which would come out turned by 180 deg.
    """

    crval: tuple[float, float]  # deg
    crpix: tuple[float, float]  # FITS convention, first pixel's centre is 1
    cd: tuple[tuple[float, float], tuple[float, float]]  # deg per pixel
    width: int
    height: int

    @classmethod
    def of_brick(cls, ra: float, dec: float, pixels: int = BRICK_PIXELS) -> TanWcs:
        """Return the WCS of the survey's coadd of the brick centred at (ra, dec), deg; or of its middle `pixels`."""
        scale, middle = PIXEL_SCALE_ARCSEC / 3600.0, (pixels + 1) / 2
        return cls((ra, dec), (middle, middle), ((-scale, 0.0), (0.0, scale)), pixels, pixels)

    @classmethod
    def from_header(cls, header: Mapping[str, Any], width: int, height: int) -> TanWcs:
        """Read the WCS keywords of a coadd's header.

        Raises:
            ValueError: not a TAN projection, or a keyword is missing.
        """
        kinds = (str(header.get("CTYPE1", "")).strip(), str(header.get("CTYPE2", "")).strip())
        if kinds != ("RA---TAN", "DEC--TAN"):
            raise ValueError(f"CTYPE1, CTYPE2 are {kinds}, expected ('RA---TAN', 'DEC--TAN')")
        keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
        if missing := [k for k in keys if header.get(k) is None]:
            raise ValueError(f"the header has no {', '.join(missing)}")
        v = {k: float(header[k]) for k in keys}
        cd = ((v["CD1_1"], v["CD1_2"]), (v["CD2_1"], v["CD2_2"]))
        return cls((v["CRVAL1"], v["CRVAL2"]), (v["CRPIX1"], v["CRPIX2"]), cd, width, height)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Side of a pixel at the tangent point."""
        return 3600.0 * float(np.sqrt(abs(np.linalg.det(self.cd))))

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based x, y (float64, the shape of ra) of positions in degrees."""
        xi, eta = tangent_plane(ra, dec, *self.crval)
        inverse = np.linalg.inv(self.cd)
        x = inverse[0, 0] * xi + inverse[0, 1] * eta + self.crpix[0] - 1
        y = inverse[1, 0] * xi + inverse[1, 1] * eta + self.crpix[1] - 1
        return x, y

    def pixel_to_sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ra in [0, 360), dec in degrees of 0-based pixel coordinates."""
        dx = np.asarray(x, dtype=np.float64) + 1 - self.crpix[0]
        dy = np.asarray(y, dtype=np.float64) + 1 - self.crpix[1]
        xi, eta = (self.cd[i][0] * dx + self.cd[i][1] * dy for i in (0, 1))
        return tangent_plane_to_sky(xi, eta, *self.crval)
