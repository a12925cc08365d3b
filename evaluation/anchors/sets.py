"""The anchors' catalogues: known lenses in sets that are never mixed, and known contaminants by type.

No position stands in the code. The 99 SLACS and BELLS lenses are a table of published facts in the repository; other
sets are an allow-list over lenscat (`evaluation.anchors.lenscat`), or come in files, as contaminants do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

import numpy as np

from darkhaloscope.draws import digest
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import Positions, mark_duplicates, read_positions
from evaluation.anchors.lenscat import ADMITTED, kind_of, read_references

Units = Literal["", "deg"]
SLACS_BELLS = "catalogues/slacs_bells.csv"
CONTAMINANTS = "contaminants"
EXTRA = ("anchor_set", "reference", "src_mag_r")
"""Columns of an anchor beside those of `Positions`: its set, who published it, unlensed r of its source."""


def slacs_bells() -> Positions:
    """Return the 99 confirmed lenses of SLACS and BELLS, in two sets: found in spectra, mostly bright and near."""
    url = str(files("evaluation.anchors").joinpath(SLACS_BELLS))
    found = read_positions(url, object_type="lens", texts=("set", "reference"))
    return _anchors(found, found.columns["set"], found.columns["reference"])


def lenscat(url: str, kinds: Sequence[str] = ADMITTED) -> tuple[Positions, dict[str, int]]:
    """Return the lenses of a lenscat table that the allow-list admits, and how many it left out, by reason.

    Args:
        url: lenscat's `catalog.csv`, as the package and its repository have it.
        kinds: which of `lenscat.ADMITTED` are wanted; each is a set.

    Raises:
        CatalogueError: not such a table.
    """
    wanted = ("type", "grading", "ref")
    found = read_positions(url, object_type="lens", texts=wanted)
    if not all(any(found.columns[name]) for name in wanted):
        raise CatalogueError(
            f"{url}: no columns {', '.join(wanted)} with text; expected lenscat's catalog.csv"
        )
    references = read_references()
    rows = zip(*(found.columns[name].tolist() for name in wanted), strict=True)
    judged = [kind_of(kind, grading, ref, references) for kind, grading, ref in rows]
    left_out = Counter(why.split(" (")[0] for kind, why in judged if not kind)
    left_out.update(f"not asked for: {kind}" for kind, _ in judged if kind and kind not in kinds)
    kept = [
        i for wanted in ADMITTED if wanted in kinds for i, (kind, _) in enumerate(judged) if kind == wanted
    ]
    chosen = _rows(found, np.array(kept, np.int64))
    names, whys = ([judged[i][k] for i in kept] for k in (0, 1))
    return _anchors(chosen, np.array(names, object), np.array(whys, object)), dict(left_out)


def from_file(url: str, name: str = "", units: Units = "") -> Positions:
    """Return the anchors of a file: lenses as a set of this name, or contaminants of the types the file says.

    Args:
        url: table of positions; of lenses, `src_mag_r` may give the source's unlensed magnitude.
        name: the set; "": contaminants, and the file has a column of types such as ring, merger, spiral.
        units: "deg" says that right ascensions are degrees although none is above 24.

    Raises:
        CatalogueError: see `read_positions`; also lenses among the contaminants.
    """
    found = read_positions(url, units, "lens" if name else "", texts=("reference", "src_mag_r"))
    if not name and (found.columns["label"] == 1).any():
        raise CatalogueError(
            f"{url}: {int((found.columns['label'] == 1).sum())} lenses among the contaminants"
        )
    sets = np.full(len(found), name or CONTAMINANTS, object)
    magnitudes = np.array([float(t or "nan") for t in found.columns["src_mag_r"].tolist()])
    return _anchors(found, sets, found.columns["reference"], magnitudes)


def at_most(found: Positions, per_type: int) -> Positions:
    """Return at most so many anchors of each type: those of the lowest digests, so from all over the sky."""
    places = zip(found.columns["ra"].tolist(), found.columns["dec"].tolist(), strict=True)
    order = np.argsort([digest("anchor", f"{ra:.5f}", f"{dec:.5f}") for ra, dec in places], kind="stable")
    kinds = found.columns["object_type"][order]
    kept = [order[np.flatnonzero(kinds == kind)[:per_type]] for kind in dict.fromkeys(kinds.tolist())]
    return _rows(found, np.sort(np.concatenate([np.empty(0, np.int64), *kept])))


def join(tables: Sequence[Positions]) -> Positions:
    """Return all anchors as one table; of several rows of one place only the first counts, whatever their sets."""
    names = list(tables[0].columns)
    columns = {n: np.concatenate([t.columns[n] for t in tables]) for n in names}
    fault = np.concatenate([t.fault for t in tables])
    return mark_duplicates(Positions(columns, fault, ", ".join(t.source for t in tables)))


def _anchors(
    found: Positions, sets: np.ndarray, reference: np.ndarray, src_mag_r: np.ndarray | None = None
) -> Positions:
    magnitudes = np.full(len(found), np.nan) if src_mag_r is None else src_mag_r
    columns = {k: v for k, v in found.columns.items() if k not in ("type", "grading", "ref", "set")}
    columns |= dict(zip(EXTRA, (sets, reference, magnitudes), strict=True))
    return Positions(columns, found.fault, found.source)


def _rows(found: Positions, rows: np.ndarray) -> Positions:
    return Positions({k: v[rows] for k, v in found.columns.items()}, found.fault[rows], found.source)
