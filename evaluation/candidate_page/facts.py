"""What the page says of a candidate: which columns, under which names, with how many digits.

Units and meanings are those of the table's schema. A blinded page says only what helps to read a picture.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from darkhaloscope.results import CANDIDATES
from darkhaloscope.survey.maskbits import BITS
from evaluation.candidate_page.catalogue import Catalogue
from evaluation.candidate_page.order import Item


@dataclass(frozen=True)
class Fact:
    """A column as it is shown; `digits` after the point, significant ones where `significant`, None for text."""

    name: str
    label: str
    digits: int | None = None
    significant: bool = False
    blind: bool = False  # shown on blinded pages too


FACTS = (
    Fact("rank", "rank", 0),
    Fact("logit", "logit", 2),
    Fact("logit_spread", "spread of the models", 2),
    Fact("probability", "probability", 3, True),
    Fact("prevalence", "… at a prevalence of", 2, True),
    Fact("fpr", "negatives scored higher", 2, True),
    Fact("fpr_high", "… at most (95 %)", 2, True),
    Fact("false_per_sqdeg", "false positives above it", 2, True),
    Fact("false_per_sqdeg_high", "… at most (95 %)", 2, True),
    Fact("known_name", "known as"),
    Fact("known_type", "known type"),
    Fact("known_grading", "known grading"),
    Fact("known_reference", "reference"),
    Fact("known_arcsec", "known at a distance of", 1),
    Fact("object_name", "listed as"),
    Fact("outside", "beyond the training"),
    Fact("ra", "RA", 5),
    Fact("dec", "Dec", 5),
    Fact("brickname", "brick"),
    Fact("release", "release"),
    Fact("type", "Tractor type"),
    Fact("mag_g", "g", 2),
    Fact("mag_r", "r", 2),
    Fact("mag_z", "z", 2),
    Fact("psfsize_g", "PSF size g", 2, blind=True),
    Fact("psfsize_r", "PSF size r", 2, blind=True),
    Fact("psfsize_z", "PSF size z", 2, blind=True),
    Fact("psfdepth_g", "depth g", 2, blind=True),
    Fact("psfdepth_r", "depth r", 2, blind=True),
    Fact("psfdepth_z", "depth z", 2, blind=True),
    Fact("ebv", "E(B−V)", 3),
    Fact("bands", "bands", blind=True),
    Fact("maskbits_any", "maskbits", blind=True),
    Fact("bad_fraction", "bad pixels", 2, True, blind=True),
    Fact("merged", "doubles merged", 0),
    Fact("viewer_url", "viewer"),
)


def described(blind: bool) -> list[dict[str, Any]]:
    """Return the facts a page shows, each with its unit and meaning."""
    columns = {c.name: c for c in CANDIDATES.columns}
    return [
        asdict(f) | {"unit": columns[f.name].unit, "meaning": columns[f.name].meaning}
        for f in FACTS
        if f.blind or not blind
    ]


def values(items: list[Item], blind: bool) -> dict[str, list[Any]]:
    """Return the facts' values by column, one an item; None where a value is not known or not finite."""
    found: dict[str, list[Any]] = {}
    for fact in FACTS:
        if blind and not fact.blind:
            continue
        cells = column(items, fact.name)
        if fact.name == "maskbits_any":
            found[fact.name] = [mask_names(v) for v in cells]
        else:
            found[fact.name] = cells if fact.digits is None else [_rounded(v, fact) for v in cells]
    return found


def column(items: list[Item], name: str) -> list[Any]:
    """Return one column of the items, whichever catalogues they are from."""
    cells = {c: catalogue.table.column(name).to_pylist() for c, catalogue in _catalogues(items).items()}
    return [cells[id(i.catalogue)][i.row] for i in items]


def _catalogues(items: list[Item]) -> dict[int, Catalogue]:
    return {id(i.catalogue): i.catalogue for i in items}


def _rounded(value: float | None, fact: Fact) -> float | None:
    """Return a number with a digit more than is shown: the page need not carry sixteen."""
    if value is None or not math.isfinite(value):
        return None
    digits = (fact.digits or 0) + 1
    return float(f"{value:.{digits}g}") if fact.significant else round(value, digits)


def mask_names(value: int | None) -> str:
    """Return the names of maskbits that are set anywhere in a stamp."""
    if value is None or value < 0:
        return "no maskbits"
    return " ".join(name for name, bit in BITS.items() if value >> bit & 1) or "none"


def centres(items: list[Item]) -> list[list[float]]:
    """Return (x, y) of the galaxy in each item's stamp, pixels."""
    made = {c: catalogue.centres().round(2).tolist() for c, catalogue in _catalogues(items).items()}
    return [made[id(i.catalogue)][i.row] for i in items]
