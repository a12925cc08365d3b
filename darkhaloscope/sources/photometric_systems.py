"""HSC magnitudes of galaxies in the DECam system of the Legacy Surveys, by way of Pan-STARRS1.

Both steps were derived for stars; at the colours of faint galaxies they are good to a few hundredths.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# m_HSC = m_PS1(band) + c0 + c1 (band - other) + c2 (band - other)^2, colours in PS1: the terms with which the
# HSC pipeline calibrates on Pan-STARRS1 (lsst/obs_subaru, config/hsc/colorterms.py; Bosch et al. 2018, PASJ 70,
# S5).
HSC_FROM_PS1 = {
    "g": ("r", 0.00730066, 0.06508481, -0.01510570),
    "r": ("i", 0.00279757, 0.02093734, -0.01877566),
    "i": ("z", 0.00166891, -0.13944659, -0.03034094),
    "z": ("y", -0.00907517, -0.28840221, -0.00316369),
    "y": ("z", -0.00156858, 0.14747401, 0.02880125),
}

# m_DECam = m_PS1 + c0 + c1 x + c2 x^2 + c3 x^3, x = (g - i)_PS1 in 0.4..2.7: legacysurvey.org/dr9/description,
# "Photometry".
DECAM_FROM_PS1 = {
    "g": (0.00062, 0.03604, 0.01028, -0.00613),
    "r": (0.00495, -0.08435, 0.03222, -0.01140),
    "z": (0.02583, -0.07690, 0.02824, -0.00898),
}
VALID_G_I = (0.4, 2.7)
ITERATIONS = 20


def decam_from_hsc(hsc: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return DECam g, r, z magnitudes of HSC g, r, i, z, y magnitudes.

    Colours beyond the range in which the DECam terms are valid get the terms at its end.

    Args:
        hsc: AB magnitudes by band, each (n,); not finite where not measured.

    Returns:
        AB magnitudes by band g, r, z; NaN where any of the five is not finite.
    """
    measured = {b: np.asarray(hsc[b], np.float64) for b in HSC_FROM_PS1}
    finite = np.logical_and.reduce([np.isfinite(m) for m in measured.values()])
    wanted = {b: np.where(finite, m, 0.0) for b, m in measured.items()}
    ps1 = dict(wanted)
    for _ in range(ITERATIONS):
        ps1 = {b: wanted[b] - _hsc_term(ps1, b) for b in HSC_FROM_PS1}
    x = np.clip(ps1["g"] - ps1["i"], *VALID_G_I)
    return {
        b: np.where(finite, ps1[b] + np.polynomial.polynomial.polyval(x, terms), np.nan)
        for b, terms in DECAM_FROM_PS1.items()
    }


def _hsc_term(ps1: Mapping[str, np.ndarray], band: str) -> np.ndarray:
    other, c0, c1, c2 = HSC_FROM_PS1[band]
    colour = ps1[band] - ps1[other]
    return c0 + c1 * colour + c2 * colour**2
