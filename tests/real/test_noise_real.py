"""How far the survey's inverse variance overstates the signal-to-noise of an arc, measured on its real sky."""

import numpy as np
import pytest
from astropy.stats import mad_std
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.signal import fftconvolve

from darkhaloscope.sections import Stamps
from darkhaloscope.survey.coadds import BrickReader

pytestmark = pytest.mark.real

EXPOSED = (2540, 1880, 256)  # first pixel and side of the region with data
SEEING_PIXELS = 1.3 / 2.355 / 0.262
MASKED_SIGMA = 4.0  # 3 cuts noise off and gives 1.05, 5 leaves faint galaxies and gives 1.14
MOSTLY = 0.9  # of a template's weight on pixels that show sky


def templates():
    """A ring and a quarter of one, of 1.2 arcsec in 1.3 arcsec seeing, with unit sum of squares."""
    y, x = np.mgrid[-16:17, -16:17]
    ring = np.exp(-0.5 * ((np.hypot(x, y) - 1.2 / 0.262) / SEEING_PIXELS) ** 2)
    arc = ring * np.exp(-0.5 * (np.arctan2(y, x) / 0.5) ** 2)
    return [shape / np.sqrt((shape**2).sum()) for shape in (ring, arc)]


def blank_sky(pull):
    """Where nothing stands out on any scale, with a margin."""
    smoothed = [gaussian_filter(pull, width) for width in (0.5, SEEING_PIXELS, 2 * SEEING_PIXELS)]
    detected = np.logical_or.reduce([np.abs(s) > MASKED_SIGMA * mad_std(s) for s in smoothed])
    return ~binary_dilation(detected, iterations=4)


def scatter(pull, sky, template):
    """The scatter of a matched filter's amplitude over what invvar says it is."""
    weight = fftconvolve(sky.astype(float), template[::-1, ::-1] ** 2, mode="same")
    amplitude = fftconvolve(np.where(sky, pull - np.median(pull[sky]), 0), template[::-1, ::-1], mode="same")
    there = weight > MOSTLY
    return mad_std(amplitude[there] / np.sqrt(weight[there]))


def test_the_default_correction_of_an_arcs_snr_is_what_real_sky_shows(real_data):
    """By the scatter of rings and arcs fitted to blank sky of the DR9 field: 1.13 and 1.08, each to about 5 %."""
    with BrickReader(str(real_data / "real" / "dr9_brick_0591m305"), "0591m305") as brick:
        cut = brick.cut(*EXPOSED)
    pulls = cut.image * np.sqrt(cut.invvar)
    found = [[scatter(p, blank_sky(p), t) for p in pulls] for t in templates()]
    assert np.mean(found) == pytest.approx(Stamps().noise_correlation, abs=0.05)
    assert np.abs(np.array(found) - np.mean(found)).max() < 0.12, "bands and shapes agree"
