"""Figures in parts of the test set: where in seeing, depth, brightness and arc strength a finder works.

A stratum is judged at the threshold of the whole test set, since that is how a finder is used. Controls carry
the virtual injection their host would have had, so both classes are divided by the same quantities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkhaloscope.results import SCORES
from darkhaloscope.sky import galactic_latitude
from darkhaloscope.stats.intervals import clopper_pearson, cluster_sums, clustered
from darkhaloscope.survey.maskbits import BITS, bad_pixels
from training.roc import auroc, auroc_interval, roc_curve


@dataclass(frozen=True)
class Axis:
    """A column of `results.SCORES` and the inner edges that divide it; the outermost bins are open."""

    column: str
    edges: tuple[float, ...]


AXES = (
    Axis("psfsize_r", (1.1, 1.2, 1.3, 1.4, 1.5)),
    Axis("psfdepth_r", (24.0, 24.25, 24.5, 24.75, 25.0)),
    Axis("mag_r", (18.0, 19.0, 20.0, 21.0)),
    Axis("theta_e_arcsec", (0.6, 0.9, 1.2, 1.6, 2.2)),
    Axis("theta_over_fwhm", (0.5, 0.8, 1.0, 1.25, 1.5, 2.0)),
    Axis("arc_snr", (5.0, 10.0, 25.0, 50.0, 100.0)),
)
"""What the test set is divided by. Edges are fixed, so that runs compare."""

COLUMNS = (*(axis.column for axis in AXES), "type", "maskbits_any", "ra", "dec")
"""Columns that `stratify` needs."""

_STAR = ("BRIGHT", "MEDIUM")
_OBJECT = ("GALAXY", "CLUSTER")
_GOOD = ("NPRIMARY", "SUB_BLOB")  # bits of pixels with nothing wrong


def stratify(columns: Mapping[str, np.ndarray], label: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return, per axis, TPR and FPR at `threshold` and the AUROC within each bin, with their N.

    A galaxy's type, mask and footprint are classes with names; every other axis has edges.

    Args:
        columns: `logit`, `host_id` and the columns of `COLUMNS`, each (n,).
        label: (n,) bool.
        threshold: logit at and above which a row counts as found.

    Returns:
        axis -> {"unit", "meaning", "bins": [...], "missing": rows of each class without a value}. Rows of all
        bins and the missing ones add up to the test set.
    """
    strata = {}
    for axis in AXES:
        values = np.asarray(columns[axis.column], float)
        index = np.where(np.isfinite(values), np.digitize(values, axis.edges), -1)
        edges = (None, *axis.edges, None)
        bins = [
            {
                "low": edges[i],
                "high": edges[i + 1],
                **_figures(columns, label, index == i, threshold),
            }
            for i in range(len(axis.edges) + 1)
        ]
        strata[axis.column] = _axis(_column(axis.column), bins, label, index < 0)
    for name, (meaning, classes) in _classes(columns).items():
        bins = [{"name": k, **_figures(columns, label, classes == k, threshold)} for k in np.unique(classes)]
        strata[name] = _axis(("", meaning), bins, label, np.zeros(len(label), bool))
    return strata


def _classes(columns: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Return axis -> (meaning, (n,) class of each row)."""
    return {
        "type": (_column("type")[1], np.asarray(columns["type"], object).astype(str)),
        "mask": (
            "what the survey's maskbits mark anywhere in the stamp",
            mask_class(columns["maskbits_any"]),
        ),
        "footprint": (
            "galactic cap and declination, which part the survey's observing programmes",
            footprint(columns["ra"], columns["dec"]),
        ),
    }


def mask_class(maskbits: np.ndarray) -> np.ndarray:
    """Return what maskbits mark, (n,) str: the first that holds of no file, star, bad pixels, galaxy or cluster."""
    bits = np.asarray(maskbits).astype(np.int64)
    other = [name for name in BITS if name not in (*_STAR, *_OBJECT, *_GOOD)]
    marks = [bits < 0, bad_pixels(bits, _STAR), bad_pixels(bits, other), bad_pixels(bits, _OBJECT)]
    return np.select(marks, ["no file", "star", "bad pixels", "galaxy or cluster"], "clean")


def footprint(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the part of the sky of positions in degrees, (n,) str: galactic cap, divided near programme borders.

    DR10's depth and seeing change near Dec +5 in the south cap (DES is below it, but for its equatorial strip) and
    near Dec -10 in the north cap (DECaLS is above it): lines on the sky, not the programmes' exact outlines.
    """
    north, dec = galactic_latitude(ra, dec) > 0, np.asarray(dec, float)
    parts = [north & (dec >= -10), north, dec >= 5]
    return np.select(parts, ["NGC, Dec ≥ -10", "NGC, Dec < -10", "SGC, Dec ≥ 5"], "SGC, Dec < 5")


def _column(name: str) -> tuple[str, str]:
    """Return unit and meaning of a column of the scores."""
    column = next(c for c in SCORES.columns if c.name == name)
    return column.unit, column.meaning


def _axis(
    what: tuple[str, str], bins: list[dict[str, Any]], label: np.ndarray, missing: np.ndarray
) -> dict[str, Any]:
    lost = {"positives": int((missing & label).sum()), "negatives": int((missing & ~label).sum())}
    return {"unit": what[0], "meaning": what[1], "bins": bins, "missing": lost}


def _figures(
    columns: Mapping[str, np.ndarray], label: np.ndarray, inside: np.ndarray, threshold: float
) -> dict[str, Any]:
    """Return N and rates of one bin; a rate of an empty class is None, not 0.

    Negatives are one row a galaxy (`scores.without_repeats`); injections share hosts, and their interval knows it.
    """
    logit, positives, negatives = columns["logit"], inside & label, inside & ~label
    found = logit >= threshold
    m, n = int(positives.sum()), int(negatives.sum())
    by_host = cluster_sums(np.where(positives, 0, -1), columns["host_id"], found, 1)[0]
    roc = roc_curve(logit[inside], label[inside]) if m and n else None
    low, high = auroc_interval(roc) if roc else (None, None)
    return {
        "n_positives": m,
        "n_negatives": n,
        **_rate("tpr", found[positives], clustered(by_host)),
        **_rate("fpr", found[negatives], clopper_pearson(found[negatives].sum(), n)),
        "auroc": auroc(roc) if roc else None,
        "auroc_low": low,
        "auroc_high": high,
    }


def _rate(name: str, hits: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> dict[str, float | None]:
    """Return a rate with its bounds, all None where there are no rows."""
    if not hits.size:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = bounds
    return {name: float(hits.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
