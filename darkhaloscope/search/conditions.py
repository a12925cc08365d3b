"""What a model was trained for, and which rows lie beyond it: there its error rates were never measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from darkhaloscope.experiment import Experiment
from darkhaloscope.sections import Survey

SOUTH_MAX_DEC = 32.375
"""Northern limit of DR10's southern (DECam) part, deg; beyond it imaging is BASS and MzLS, other filters and pixels."""


@dataclass(frozen=True)
class Conditions:
    """Bounds of a training set, from its config.

    release: survey release, e.g. dr10-south; "" where the brick table's name tells none.
    max_psfsize_r: arcsec. min_psfdepth_r: AB mag. max_ebv: mag. max_dec: deg.
    """

    release: str
    max_psfsize_r: float
    min_psfdepth_r: float
    max_ebv: float
    max_dec: float


def release_of(survey: Survey) -> str:
    """Return the release that a survey's brick table names (survey-bricks-RELEASE.fits.gz), "" where it names none."""
    named = re.search(r"survey-bricks-(dr\d+-[a-z]+)", survey.bricks_table)
    return named[1] if named else ""


def conditions_of(experiment: Experiment) -> Conditions:
    """Return what the targets of an experiment, and so its hosts, were selected by."""
    cuts, release = experiment.targets, release_of(experiment.survey)
    max_dec = SOUTH_MAX_DEC if release.endswith("south") else 90.0
    return Conditions(release, cuts.max_psfsize_r, cuts.min_psfdepth_r, cuts.max_ebv, max_dec)


def beyond(columns: Mapping[str, np.ndarray], conditions: Conditions, release: str) -> np.ndarray:
    """Return what of each row lies beyond a model's conditions, (n,) str: "psfsize_r 1.72 above 1.6; ..." or "".

    Args:
        columns: dec (deg), psfsize_r (arcsec), psfdepth_r (AB mag) and ebv (mag), each (n,).
        conditions: of the model.
        release: of the images that are searched.
    """
    c = conditions
    bounds = (
        ("dec", columns["dec"], c.max_dec, "north of"),
        ("psfsize_r", columns["psfsize_r"], c.max_psfsize_r, "above"),
        ("psfdepth_r", -columns["psfdepth_r"], -c.min_psfdepth_r, "below"),
        ("ebv", columns["ebv"], c.max_ebv, "above"),
    )
    found = np.full(len(columns["dec"]), "", object)
    if release and c.release and release != c.release:
        found[:] = f"release {release}, trained on {c.release}"
    for name, values, bound, word in bounds:
        for i in np.flatnonzero(~(np.asarray(values, np.float64) <= bound + 1e-6)).tolist():
            text = f"{name} {columns[name][i]:.6g} {word} {abs(bound):g}"
            found[i] = f"{found[i]}; {text}" if found[i] else text
    return found
