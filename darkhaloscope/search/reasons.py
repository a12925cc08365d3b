"""Why targets were refused, to count by: a reason without the numbers and names of its own row or brick."""

from __future__ import annotations

import re

OUTSIDE = "outside the model's training: "
_BRICK = r"^\d{4}[mp]\d{3}: "
_KINDS = (
    (r"^position ", "position not on the sky"),
    (r"^host at ", "the brick's images do not reach there"),
    (rf"^psfsize_|{_BRICK}(psfsize maps give|has no psfsize map)", "no usable PSF size"),
    (rf"{_BRICK}no image or invvar", "the brick has no coadds"),
    (rf"{_BRICK}.* not found in .*bands with image", "the brick lacks a band"),
    (rf"{_BRICK}.* took more than ", "the brick took too long"),
    (_BRICK, "the brick's files cannot be read"),
)
"""Beginning of a reason -> what it is counted as; the first that fits."""


def short(reason: str) -> str:
    """Return what a reason is counted as: however many bricks a search has, its kinds are few."""
    if reason.startswith(OUTSIDE):
        return OUTSIDE + reason.removeprefix(OUTSIDE).split(" ")[0]
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, reason)), "")
    return kind or reason.split(": ")[0]
