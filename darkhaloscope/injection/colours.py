"""Colours of lensed sources, outside the Galaxy.

`frozen_colours` is the draw of the grids: a correlated normal, cut at 2.5 standard deviations, with the
median and the half width between the 16th and 84th percentiles of the HSC colours of 57 COSMOS galaxies
(i = 20 to 27, photometric redshift above 0.6; magnitudes of the HSC survey, Aihara et al. 2022, PASJ 74,
247).
It has no dependence on redshift or magnitude: sources with real colours come from a source bank.
"""

from __future__ import annotations

import numpy as np

from darkhaloscope.draws import Ids, normals

COLOUR_STREAM = 3
G_R_MEAN, G_R_SIGMA = 0.26, 0.29
R_Z_MEAN, R_Z_SIGMA = 0.73, 0.49
CORRELATION = 0.29
CUT_SIGMA = 2.5


def frozen_colours(ids: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Return (g - r, r - z) in AB magnitudes, each (n,) float64, a pure function of each id.

    Rounded to 1e-6, so that the last bits of a machine's logarithm do not reach the manifest.
    """
    first, second = np.clip(normals(ids, COLOUR_STREAM, 2), -CUT_SIGMA, CUT_SIGMA).T
    g_r = G_R_MEAN + G_R_SIGMA * first
    r_z = R_Z_MEAN + R_Z_SIGMA * (CORRELATION * first + np.sqrt(1 - CORRELATION**2) * second)
    return g_r.round(6), r_z.round(6)
