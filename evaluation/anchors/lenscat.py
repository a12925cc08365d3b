"""The sets of known lenses: an explicit allow-list over lenscat by reference, type and confirmation.

lenscat (Vujeva et al., on PyPI) joins what hundreds of papers call a lens or a candidate. Its word "confident" covers
spectroscopy and a referee's glance alike, and hundreds of its lenses were found by networks in the very images that we
search: recall on those flatters. So a row counts only for the references it has, read off a table that a person can
check line by line, `catalogues/lens_references.csv`: how each paper's lenses were found, what confirms them, and
against what that line was checked. A reference that is not there admits nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

INDEPENDENT, SPECTROSCOPIC, HSC = "independent", "spectroscopic", "graded_in_hsc"
CANDIDATES, LEGACY = "spectroscopic_candidates", "found_in_legacy"
ADMITTED = (INDEPENDENT, SPECTROSCOPIC, HSC, CANDIDATES, LEGACY)
"""Kinds of lenses that are anchors, best first: a lens of two kinds is of the first."""
OTHER_CLASSES = ("lensed_quasar", "submillimetre")


@dataclass(frozen=True)
class Reference:
    """A paper.

    Attributes:
        match: the text that lenscat's `ref` has of it.
        kind: one of `ADMITTED` or `OTHER_CLASSES`: how its lenses were found.
        programme, reference: who found them.
        confirmed_by: what its "confident" rests on.
        checked_against: what this line was checked against; it says so where that was little.
    """

    match: str
    kind: str
    programme: str
    reference: str
    confirmed_by: str
    checked_against: str


def read_references() -> list[Reference]:
    """Return the reviewed table of references.

    Raises:
        ValueError: a kind that is not known, or a match that is part of another's.
    """
    text = files("evaluation.anchors").joinpath("catalogues/lens_references.csv").read_text()
    found = [Reference(**row) for row in csv.DictReader(text.splitlines())]
    for one in found:
        if one.kind not in (*ADMITTED, *OTHER_CLASSES):
            raise ValueError(f"lens_references.csv: {one.match}: kind {one.kind!r} is not known")
        if [o for o in found if o is not one and one.match in o.match]:
            raise ValueError(f"lens_references.csv: {one.match} is ambiguous")
    return found


def kind_of(type_: str, grading: str, ref: str, references: Sequence[Reference]) -> tuple[str, str]:
    """Return which set a row of lenscat belongs to, and by which reference or why to none.

    Clusters, groups, lensed quasars and sub-millimetre lenses look different, and are no anchors of a finder of arcs
    around galaxies: one such reference decides, whatever others there are. Of the rest only "confident" ones count.

    Args:
        type_: galaxy, group or cluster.
        grading: confident or probable.
        ref: lenscat's references, joined.
        references: of `read_references`.

    Returns:
        (one of `ADMITTED`, the reference) or ("", the reason).
    """
    if type_ != "galaxy":
        return "", f"another class: {type_}"
    mine = [r for r in references if r.match in ref]
    if other := next((r for r in mine if r.kind in OTHER_CLASSES), None):
        return "", f"another class: {other.kind} ({other.reference})"
    if grading != "confident":
        return "", f"not confirmed (graded {grading})"
    best = min(mine, key=lambda r: ADMITTED.index(r.kind), default=None)
    if best is None:
        return "", f"no reference of the allow-list ({ref[:120]})"
    return best.kind, f"{best.programme}: {best.reference}; rests on {best.confirmed_by}"
