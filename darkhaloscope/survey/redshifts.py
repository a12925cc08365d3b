"""Redshifts of target galaxies: a catalogue's where there is one, else a **colour-redshift relation for LRGs**.

The relation is a stand-in, with its scatter: the redshift is that of the red sequence at the galaxy's colours, drawn
once a galaxy (the draw is keyed by host_id alone), so that a galaxy has one redshift in every experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from darkhaloscope.draws import digest
from darkhaloscope.survey.reference import lrg_colours

Array = NDArray[np.float64]

HOST_REDSHIFTS = np.linspace(0.10, 1.00, 181)
# Beyond the spectroscopic sample the sequence goes on as an old population does (galaxy_colours.csv, elliptical).
BEYOND = {"redshift": 1.00, "g_r": 2.0, "r_z": 2.07, "g_r_scatter": 0.25, "r_z_scatter": 0.10}
MAGNITUDE_ERROR = 0.03  # of a colour, in the catalogue; added to the sequence's own width
MAX_OFFSET_SIGMA = 5.0  # a colour farther from the sequence than this says no more: the rest decides
BELIEVED = (0.02, 2.0)  # a catalogue's redshift beyond these is no redshift of a host (-99 where it has none)
SPECTRUM, PHOTOMETRIC, TABLE, RELATION = "spectrum", "photometric", "table", "lrg_colours"  # z_host_source
_BLOCK = 4096  # galaxies at a time: the relation needs 181 numbers for each


@lru_cache(maxsize=1)
def red_sequence() -> dict[str, Array]:
    """Return dereddened g_r and r_z of luminous red galaxies and their scatter on `HOST_REDSHIFTS`."""
    table = lrg_colours()
    at = np.append(table["redshift"], BEYOND["redshift"])
    names = ("g_r", "r_z", "g_r_scatter", "r_z_scatter")
    found = {n: np.interp(HOST_REDSHIFTS, at, np.append(table[n], BEYOND[n])) for n in names}
    # below its first bin the sequence keeps that bin's slope
    low = at[0] > HOST_REDSHIFTS
    for n in names[:2]:
        slope = (table[n][1] - table[n][0]) / (at[1] - at[0])
        found[n][low] = table[n][0] + slope * (HOST_REDSHIFTS[low] - at[0])
    return found


def redshift_of_colours(g_r: Array, r_z: Array, u: Array) -> Array:
    """Draw a redshift for each galaxy: where on the red sequence it may be, given its dereddened colours.

    The probability of a redshift is that of the galaxy's offset from the sequence there, normal with the sequence's
    own scatter. A galaxy off the sequence gets the nearest stretch of it.

    Args:
        g_r: (n,) AB mag; NaN where not known: r - z decides alone.
        r_z: (n,) AB mag.
        u: (n,) uniform draws in (0, 1).

    Returns:
        (n,) redshift in 0.1 to 1; NaN where r - z is not finite.
    """
    g_r, r_z = np.asarray(g_r, float)[:, None], np.asarray(r_z, float)[:, None]
    line = red_sequence()
    chi2 = np.zeros((len(r_z), len(HOST_REDSHIFTS)))
    for colour, name in ((g_r, "g_r"), (r_z, "r_z")):
        width = np.hypot(line[f"{name}_scatter"], MAGNITUDE_ERROR)
        pull = np.nan_to_num((colour - line[name]) / width, nan=0.0, posinf=0.0, neginf=0.0) ** 2
        # less its own minimum, at most: an outlying colour must not outvote the other by its size
        chi2 += np.minimum(pull, pull.min(axis=1, keepdims=True) + MAX_OFFSET_SIGMA**2)
    probability = np.exp(-(chi2 - chi2.min(axis=1, keepdims=True)) / 2)
    cumulative = np.cumsum((probability[:, 1:] + probability[:, :-1]) / 2, axis=1)
    share = np.asarray(u, float) * cumulative[:, -1]
    cell = np.minimum((cumulative < share[:, None]).sum(axis=1), cumulative.shape[1] - 1)
    below = np.where(cell > 0, np.take_along_axis(cumulative, np.maximum(cell - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = (share - below) / (np.take_along_axis(cumulative, cell[:, None], 1)[:, 0] - below)
    redshift = HOST_REDSHIFTS[cell] + np.clip(inside, 0, 1) * (HOST_REDSHIFTS[1] - HOST_REDSHIFTS[0])
    return np.where(np.isfinite(r_z[:, 0]), redshift, np.nan)


def host_redshifts(
    host_id: np.ndarray, dered: Mapping[str, np.ndarray], catalogued: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return each galaxy's redshift and where it is from: spectrum, photometric or lrg_colours.

    Args:
        host_id: (n,).
        dered: dereddened AB magnitudes by band, (n,); g may be NaN.
        catalogued: z_spec and z_phot, (n,), where a companion has them (`with_companion`).

    Returns:
        (n,) float64, NaN only where r - z is; (n,) str.
    """
    u = np.array([_uniform(one) for one in host_id.tolist()], np.float64)
    g_r, r_z = dered["g"] - dered["r"], dered["r"] - dered["z"]
    blocks = [slice(i, i + _BLOCK) for i in range(0, len(u), _BLOCK)]
    redshift = np.concatenate([redshift_of_colours(g_r[b], r_z[b], u[b]) for b in blocks] or [u])
    source = np.full(len(u), RELATION, object)
    for name, label in (("z_phot", PHOTOMETRIC), ("z_spec", SPECTRUM)):
        if name in catalogued:
            prefer(catalogued[name], label, redshift, source)
    return redshift, source


def _uniform(host_id: int) -> float:
    """Return a galaxy's draw in (0, 1): 52 bits of its digest, which are as good as a generator's keyed by it."""
    return (int(digest("host redshift", host_id)[:13], 16) + 0.5) * 2.0**-52


def prefer(column: np.ndarray, label: str, redshift: np.ndarray, source: np.ndarray) -> None:
    """Put a column's redshifts in place where they can be believed; `redshift` and `source` are changed."""
    believed = (column >= BELIEVED[0]) & (column <= BELIEVED[1])
    redshift[believed], source[believed] = column[believed], label
