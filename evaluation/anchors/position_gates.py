"""Is there a galaxy where an anchor is said to be? Gates that every position passes before it is scored.

An earlier pipeline's anchors were typed by hand, looked at empty sky, and agreed with their J-names all the same. So
the name is the least of the gates; the catalogue and the pixels decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from darkhaloscope import sky
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC

MATCH_ARCSEC = 1.5
MAX_MAG_Z = 21.0
CENTROID_ARCSEC = 1.0  # about four pixels, and less than the smallest Einstein radius that is looked for
CORE_ARCSEC = 2.0  # radius within which the core is looked for and its centroid taken
MIN_CORE_SIGMA = 5.0
_SMOOTH_PIXELS = 1.5
_J_NAME = re.compile(r"J(\d\d)(\d\d)(\d\d(?:\.\d+)?)?([+-])(\d\d)(\d\d)(\d\d(?:\.\d+)?)?(?!\d)")


def j_name_fault(name: str, ra: float, dec: float) -> str:
    """Return why a name such as SDSSJ0029-0055 or J161109.80+170526.6 contradicts a position; "" where it does not.

    A name is cut off or rounded, so it may be one unit of its last digit and 5 arcsec away. Of several
    names joined by | one has to agree. A name without J-coordinates says nothing.

    Args:
        name: as the catalogue has it.
        ra, dec: deg.
    """
    found = [m for part in name.split("|") if (m := _J_NAME.search(part.replace(" ", "")))]
    away = [_away(m, ra, dec) for m in found]
    if not away or min(away) <= 0:
        return ""
    return f"the name {found[0][0]} is {min(away):.0f} arcsec further off than its digits allow"


def _away(m: re.Match[str], ra: float, dec: float) -> float:
    """Return by how much a position is further from a name than the name is precise, arcsec; 0 or less: it fits."""
    name_ra = 15 * (int(m[1]) + int(m[2]) / 60 + float(m[3] or 0) / 3600)
    name_dec = (-1 if m[4] == "-" else 1) * (int(m[5]) + int(m[6]) / 60 + float(m[7] or 0) / 3600)
    unit_ra, unit_dec = (
        60.0 if text is None else 10.0 ** -len(text.partition(".")[2]) for text in (m[3], m[7])
    )
    east = abs((ra - name_ra + 180) % 360 - 180) * 3600 - 15 * unit_ra
    return float(max(east * np.cos(np.radians(dec)), abs(dec - name_dec) * 3600 - unit_dec) - 5.0)


@dataclass(frozen=True)
class Match:
    """The catalogue's galaxy at each position: (n,) arrays; `row` is -1 and `fault` says why where there is none."""

    row: np.ndarray
    separation_arcsec: np.ndarray
    fault: np.ndarray


def match(ra: np.ndarray, dec: np.ndarray, objects: dict[str, np.ndarray]) -> Match:
    """Return the nearest extended galaxy brighter than z = 21 within 1.5 arcsec of each position.

    Args:
        ra, dec: (n,) deg.
        objects: of `galaxies.galaxies_near`.
    """
    kind, mag_z = objects["type"], objects["mag_z"]
    extended = ~np.isin(kind, ("PSF", "DUP"))
    good = np.flatnonzero(extended & (mag_z < MAX_MAG_Z))
    index, separation = sky.nearest(ra, dec, objects["ra"][good], objects["dec"][good])
    any_index, any_separation = sky.nearest(ra, dec, objects["ra"], objects["dec"])
    fits = separation <= MATCH_ARCSEC
    row = np.where(fits, np.append(good, -1)[index], -1)
    fault = np.full(len(ra), "", object)
    for i in np.flatnonzero(~fits).tolist():
        j, distance = int(any_index[i]), float(any_separation[i])
        what = "nothing within 10 arcsec"
        if np.isfinite(distance):
            what = (
                f"the nearest object, type {kind[j]} with z = {mag_z[j]:.1f}, is {distance:.1f} arcsec away"
            )
        fault[i] = (
            f"no catalogued galaxy (extended, z < {MAX_MAG_Z:g}) within {MATCH_ARCSEC:g} arcsec: {what}"
        )
    return Match(row, np.where(fits, separation, np.nan), fault)


def centroid_fault(stamp: np.ndarray, host_x: float, host_y: float, sky_sigma_z: float) -> str:
    """Return why the light does not sit at the position; "" where it does.

    The z-band stamp is smoothed (Gaussian of 1.5 pixels), its border's median taken off, and the centroid of the light
    above half of the core's peak taken around the brightest pixel within 2 arcsec.

    Args:
        stamp: (band, y, x) nmgy/pixel.
        host_x, host_y: the position, 0-based pixels.
        sky_sigma_z: of a pixel, nmgy.
    """
    plane = np.asarray(stamp[BANDS.index("z")], np.float64)
    border = np.concatenate(
        [plane[:4].ravel(), plane[-4:].ravel(), plane[:, :4].ravel(), plane[:, -4:].ravel()]
    )
    smooth = gaussian_filter(plane - np.median(border), _SMOOTH_PIXELS)
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    reach = CORE_ARCSEC / PIXEL_SCALE_ARCSEC
    peak_y, peak_x = np.unravel_index(
        np.argmax(np.where(np.hypot(x - host_x, y - host_y) <= reach, smooth, -np.inf)), smooth.shape
    )
    peak = smooth[peak_y, peak_x]
    noise = sky_sigma_z / (2 * _SMOOTH_PIXELS * np.sqrt(np.pi))  # of white noise after the smoothing
    if peak < MIN_CORE_SIGMA * noise:
        return f"no light at the position: its z-band core is {peak / noise:.1f} sigma, expected {MIN_CORE_SIGMA:g}"
    weight = np.where(np.hypot(x - peak_x, y - peak_y) <= reach, np.maximum(smooth - peak / 2, 0.0), 0.0)
    offset = np.hypot(
        *((weight * (at - host)).sum() / weight.sum() for at, host in ((x, host_x), (y, host_y)))
    )
    if (arcsec := float(offset * PIXEL_SCALE_ARCSEC)) > CENTROID_ARCSEC:
        return f"the core's centroid is {arcsec:.2f} arcsec off the position, more than {CENTROID_ARCSEC:g}"
    return ""
