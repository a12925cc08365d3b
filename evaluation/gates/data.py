"""Gates about the stamps: nothing but the arc tells the classes apart, and no galaxy is in two splits."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from darkhaloscope.sky import chord, unit_vectors
from darkhaloscope.survey.duplicates import RADIUS_ARCSEC
from evaluation.gates import looks
from evaluation.gates.classifiers import FOLDS, Told, told_apart, told_by_cnn
from evaluation.gates.measure import Measured
from evaluation.gates.rows import Rows
from evaluation.gates.verdict import Gate, Verdict, auc_gate, difference_gate

_WHERE = {
    "core": "aperture fluxes, concentration and colours around the middle",
    "border": "the outermost pixels",
    "annulus": "median and MAD of the sky around the host",
    "MAD": "median and MAD of all pixels",
    "moments": "mean, spread, skewness, kurtosis and extremes of all pixels",
    "metadata": "every column that does not know the injection",
}


def data_gates(rows: Rows, found: Measured, real: np.ndarray | None = None) -> list[Gate]:
    """Return the gates about the data, and beside them how far the light of arcs goes.

    Args:
        rows: of `read_rows`.
        found: of `measure`.
        real: stamps of real lenses (n, band, y, x) nmgy/pixel, to compare the injections' light with.
    """
    host, split = rows.columns["host_id"][found.row], _numbers(rows.columns["split"][found.row])
    gates = []
    for name, features in found.look.items():
        asks = f"Can the classes be told, the arc taken away, by {_WHERE[name]}?"
        gates.append(
            _told(f"without arc: {name}", asks, told_apart(features, found.label, host, split), found.label)
        )
    asks = "Can they be told, the arc taken away, by a convolutional network of 5,000 parameters?"
    by_cnn = told_by_cnn(found.pixels, found.label, host, split)
    gates.append(_told("without arc: tiny CNN", asks, by_cnn, found.label))
    for name in looks.WITH_ARC:
        gates += light_gates(name, found, host, split, real)
    gates += conditions(found, split) + annulus_gates(found, split)
    return gates + duplicate_gates(rows)


def _told(name: str, asks: str, told: Told, label: np.ndarray, judged: bool = True) -> Gate:
    n = {"positives": int(label.sum()), "controls": int((~label).sum())}
    note = f"{told.null:.3f} ± {told.error:.3f} where there is nothing to learn"
    return auc_gate(name, "data", asks, told.auc, told.null, told.error, n, note, judged)


def light_gates(
    name: str, found: Measured, host: np.ndarray, split: np.ndarray, real: np.ndarray | None
) -> list[Gate]:
    """Return how well light alone tells injections from controls, and what that compares with: no gates.

    An arc adds light, so it tells. Where it tells injections better than the same prior drawn on controls, or than real
    lenses, something else than the arc adds light.

    Args:
        name: of `looks.WITH_ARC`.
        found: of `measure`.
        host, split: (n,) numbers of each row's galaxy and split.
        real: stamps of real lenses, (n, band, y, x) nmgy/pixel; None: there are none.
    """
    bare = found.with_arc[name]
    gates = [_told(f"with arc: {name}", f"How well does the {name} tell the classes with the arc?",
                   told_apart(bare, found.label, host, split), found.label, False)]  # fmt: skip
    control = ~found.label
    given = np.unique(host[control], return_inverse=True)[1] % 2 == 0  # every second galaxy
    features = np.where(given[:, None], found.drawn[name][control], bare[control])
    if min(given.sum(), (~given).sum()) >= FOLDS:
        told = told_apart(features, given, host[control], split[control])
        asks = f"And controls with their virtual arc from other controls, by {name}?"
        gates.append(_told(f"with arc: {name}, drawn on controls", asks, told, given, False))
    if real is not None and len(real) >= FOLDS:
        features = np.concatenate([looks.WITH_ARC[name](real), bare[control]])
        label = np.arange(len(features)) < len(real)
        # A real lens is a host of its own, whatever numbers the controls' hosts have.
        own = np.concatenate([np.arange(len(real)), len(real) + _numbers(host[control])])
        told = told_apart(features, label, own, np.zeros(len(label), int))
        asks = f"And real lenses from controls, by {name}? Hosts are not matched."
        gates.append(_told(f"with arc: {name}, real lenses", asks, told, label, False))
    return gates


def normalisation_gates(rows: Rows, found: Measured, method: str) -> list[Gate]:
    """Return the gates on what the model's own normalisation subtracts and divides by, arc included."""
    split, gates = _numbers(rows.columns["split"][found.row]), []
    for name, values in found.level.items():
        kind, what, band = name.split()
        if kind == "model":
            asks = f"Does the network's normalisation ({method}) tell the classes ({what}, {band})?"
            values = np.log(values) if what == "scale" else values
            gates.append(
                difference_gate(f"normalisation {what} {band}", "model", asks, values, found.label, split)
            )
    return gates


def annulus_gates(found: Measured, split: np.ndarray) -> list[Gate]:
    """Return the gates on the sky around the host, arc included; split: (n,) numbers of the splits."""
    asks = "Is the sky around the host the same in both classes with the arc ({}, {})?"
    return [
        difference_gate(name, "data", asks.format(*name.split()[1:]), values, found.label, split)
        for name, values in found.level.items()
        if name.startswith("annulus")
    ]


def conditions(found: Measured, split: np.ndarray) -> list[Gate]:
    """Return the gates on the conditions of the observation; split: (n,) numbers of the splits."""
    return [
        difference_gate(
            f"{group}: {name}", "data", f"Is {name} the same in both classes?", found.condition[name],
            found.label, split,
        )
        for group, names in looks.CONDITIONS.items()
        for name in names
    ]  # fmt: skip


def duplicate_gates(rows: Rows) -> list[Gate]:
    """Return the gates on galaxies, positions, source images and stamps that are there twice.

    All rows with a stamp count, not only those that take part in the other gates.
    """
    c = rows.columns
    split = _numbers(c["split"])
    bank = c["source_id"] >= 0
    twice = len(split) - len(np.unique(c["task_id"].astype(str)))
    n = {"rows": len(split), "splits": len(np.unique(split))}
    return [
        _none("duplicates: host_id", "Is a galaxy in two splits?", _in_two(c["host_id"], split), n),
        _none("duplicates: position", f'Are there, within {RADIUS_ARCSEC:g}" of each other, galaxies of two splits?',
              _neighbours(c["ra"], c["dec"], split), n),
        _none("duplicates: source", "Is an image of a source in two splits?", _in_two(c["source_id"][bank],
              split[bank]), n | {"rows": int(bank.sum())}),
        _none("duplicates: task_id", "Is a stamp there twice?", twice, n),
    ]  # fmt: skip


def _none(name: str, asks: str, count: int, n: dict[str, int]) -> Gate:
    several = n["splits"] > 1 or name.endswith("task_id")
    verdict: Verdict = "fail" if count else "pass" if several and n["rows"] else "unresolved"
    note = "" if several else "one split only was given: nothing to compare"
    return Gate(name, "data", asks, "number", float(count), None, None, n, "none at all", verdict, note)


def _in_two(ids: np.ndarray, split: np.ndarray) -> int:
    """Return how many ids are in more than one split."""
    pairs = np.unique(np.stack([ids, split], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def _neighbours(ra: np.ndarray, dec: np.ndarray, split: np.ndarray) -> int:
    """Return how many pairs of positions of different splits lie within the radius of one galaxy."""
    places = np.unique(np.stack([ra, dec, split], axis=1), axis=0)
    pairs = cKDTree(unit_vectors(places[:, 0], places[:, 1])).query_pairs(
        chord(RADIUS_ARCSEC), output_type="ndarray"
    )
    return int((places[pairs[:, 0], 2] != places[pairs[:, 1], 2]).sum())


def _numbers(names: np.ndarray) -> np.ndarray:
    """Return each value's number among the distinct ones, (n,) int64."""
    return np.unique(names.astype(str), return_inverse=True)[1]
