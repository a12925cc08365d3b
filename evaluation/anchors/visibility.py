"""Can an arc be seen at all? What is expected of an anchor from its Einstein radius, the seeing, depth and source.

A lens found in a spectrum may have no arc in the survey's images: that a finder misses it says nothing of the finder.
"""

from __future__ import annotations

import numpy as np

from darkhaloscope.lensing.psf import SIGMA_TO_FWHM
from darkhaloscope.survey.photometry import flux

CLASSES = ("resolved, bright", "resolved, faint", "resolved, brightness unknown", "blended", "unknown")
MIN_THETA_OVER_FWHM = (
    1.2  # below it, and below the SNR, people rarely recover a lens (science notes, section 7)
)
MIN_ARC_SNR = 25.0
MAGNIFICATION = 5.0  # assumed where only the unlensed magnitude is known


def expected_arc_snr(
    theta_e_arcsec: np.ndarray,
    src_mag: np.ndarray,
    fwhm: np.ndarray,
    psfsize: np.ndarray,
    psfdepth: np.ndarray,
    magnification: float = MAGNIFICATION,
) -> np.ndarray:
    """Return the SNR of a source's light spread evenly over a ring of the Einstein radius as wide as the seeing.

    The 5-sigma depth is that of a point source: its noise is F5/5 over an equivalent area 4 pi (psfsize/2.3548)^2, the
    definition of psfsize; over the ring's area 2 pi theta_E FWHM it is larger by the root of the ratio of areas. The
    host's own light, which hides the arc further, is not in it: an upper bound.

    Args:
        theta_e_arcsec, fwhm, psfsize: (n,) arcsec.
        src_mag, psfdepth: (n,) AB mag, of the unlensed source and of a point source at 5 sigma, in one band.
        magnification: of the source.

    Returns:
        (n,), NaN where an input is.
    """
    width = np.maximum(fwhm, 1e-6)
    point = flux(psfdepth) / 5
    noise_area = 4 * np.pi * (np.asarray(psfsize) / SIGMA_TO_FWHM) ** 2
    ring = 2 * np.pi * np.asarray(theta_e_arcsec) * width
    return magnification * flux(src_mag) / (point * np.sqrt(np.maximum(ring / noise_area, 1.0)))


def classify(theta_over_fwhm: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """Return which of `CLASSES` each anchor is in, (n,) str.

    Args:
        theta_over_fwhm: (n,) Einstein radius over half-maximum FWHM in r; NaN: no radius known.
        snr: (n,) of `expected_arc_snr`; NaN: no source magnitude known.
    """
    resolved = theta_over_fwhm >= MIN_THETA_OVER_FWHM
    known = np.isfinite(snr)
    found = np.where(known & (snr >= MIN_ARC_SNR), CLASSES[0], np.where(known, CLASSES[1], CLASSES[2]))
    found = np.where(resolved, found, CLASSES[3])
    return np.where(np.isfinite(theta_over_fwhm), found, CLASSES[4]).astype(object)
