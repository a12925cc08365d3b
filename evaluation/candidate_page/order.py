"""Who is shown when: in the order of rank, or blinded, with repeats and planted objects whose answer is known.

A blinded page shows neither names, scores nor positions, only opaque items. What each item is stands in the key, a
CSV file beside the page that graders do not get. Every order is a pure function of the catalogue and the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darkhaloscope.sky import nearest
from evaluation.candidate_page.catalogue import Catalogue, CatalogueError
from evaluation.gradebook import CANDIDATE, LENS, NONLENS, REPEAT

SAME_ARCSEC = 1.0  # a planted object this near to a candidate is that candidate


@dataclass(frozen=True)
class Item:
    """One picture to grade: its id on the page, what it is, and its row in its catalogue."""

    item: str
    kind: str
    catalogue: Catalogue
    row: int

    @property
    def name(self) -> str:
        """Name of the object; a repeat has that of its original."""
        return self.catalogue.table.column("name")[self.row].as_py()


def by_rank(catalogue: Catalogue) -> list[Item]:
    """Return every candidate under its own name, best first."""
    names = catalogue.table.column("name").to_pylist()
    return [Item(name, CANDIDATE, catalogue, i) for i, name in enumerate(names)]


def blinded(
    catalogue: Catalogue,
    seed: int,
    repeats: int = 0,
    lenses: Catalogue | None = None,
    nonlenses: Catalogue | None = None,
    planted: int = 30,
) -> list[Item]:
    """Return candidates, planted objects and repeats under opaque ids, in an order drawn by the seed.

    Args:
        catalogue: the candidates.
        seed: of the order, the ids and the choice of what repeats and what is planted.
        repeats: candidates shown twice; from the first third of the page, again in its last third.
        lenses: known lenses to plant.
        nonlenses: objects known to be none.
        planted: at most so many of each.

    Raises:
        CatalogueError: more repeats than a third of the page, or the planted stamps are of another kind.
    """
    shown = [(CANDIDATE, catalogue, i) for i in range(catalogue.table.num_rows)]
    for kind, plants in ((LENS, lenses), (NONLENS, nonlenses)):
        if plants is not None:
            shown += [(kind, plants, i) for i in _plants(catalogue, plants, kind, planted, seed)]
    shown.sort(key=lambda s: _draw(seed, "order", s[0], s[1].hash, s[2]))
    third = len(shown) // 3
    again = [s for s in shown[:third] if s[0] == CANDIDATE]
    if repeats > len(again):
        raise CatalogueError(
            f"{repeats} repeats asked for, but only {len(again)} candidates are in the first third of the page; "
            "ask for fewer"
        )
    again = sorted(again, key=lambda s: _draw(seed, "repeat", s[1].hash, s[2]))[:repeats]
    tail = shown[2 * third :] + [(REPEAT, c, i) for _, c, i in again]
    tail.sort(key=lambda s: _draw(seed, "tail", s[0], s[1].hash, s[2]))
    order = shown[: 2 * third] + tail
    return [Item(_draw(seed, "id", k, c.hash, i)[:12], k, c, i) for k, c, i in order]


def _plants(catalogue: Catalogue, plants: Catalogue, kind: str, n: int, seed: int) -> list[int]:
    """Return rows to plant: none that is a candidate of the page, and no known lens as a non-lens."""
    theirs, ours = ((p.bands, p.size) for p in (plants, catalogue))
    if theirs != ours:
        raise CatalogueError(
            f"{plants.root}: stamps of (bands, size) {theirs}, the candidates' are {ours}: a grader would know "
            "planted objects by their look; make them by the same search"
        )
    _, arcsec = nearest(*_positions(plants), *_positions(catalogue))
    usable = arcsec > SAME_ARCSEC
    if kind == NONLENS:
        usable &= np.array([not name for name in plants.table.column("known_name").to_pylist()])
    rows = np.flatnonzero(usable).tolist()
    return sorted(rows, key=lambda i: _draw(seed, "plant", plants.hash, i))[:n]


def _positions(catalogue: Catalogue) -> tuple[np.ndarray, np.ndarray]:
    return catalogue.table.column("ra").to_numpy(), catalogue.table.column("dec").to_numpy()


def _draw(seed: int, *what: object) -> str:
    """Return hex digits that stand for a random number keyed by the seed and what it is drawn for."""
    return hashlib.sha256(repr((seed, *what)).encode()).hexdigest()


def page_id(items: Sequence[Item]) -> str:
    """Return 16 hex digits that name a page: its catalogues, its items and their order."""
    content = [(i.item, i.kind, i.catalogue.hash, i.row) for i in items]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
