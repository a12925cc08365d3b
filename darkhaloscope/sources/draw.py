"""Which galaxy of a bank a row gets, and how it is turned: functions of the row's draw id alone."""

from __future__ import annotations

import numpy as np

from darkhaloscope.draws import Ids, uniforms
from darkhaloscope.sources.bank import SourceIndex

SOURCE_STREAM, MIRROR_STREAM = 2, 4


def draw_sources(index: SourceIndex, ids: Ids, split: np.ndarray) -> np.ndarray:
    """Return a source_id for each row, (n,) int64: uniform among the galaxies of the row's split.

    Args:
        index: the bank's galaxies.
        ids: draw ids, 32 hex digits each.
        split: (n,) train, val or test: the split of each row's host.

    Raises:
        ValueError: a split without galaxies.
    """
    draw = uniforms(ids, SOURCE_STREAM, 1)[:, 0]
    chosen = np.empty(len(ids), np.int64)
    for name in sorted(set(split.tolist())):
        members = index.ids(name)
        if not len(members):
            raise ValueError(
                f"the source bank has no galaxies of split {name!r}; hosts there cannot get a source"
            )
        rows = split == name
        chosen[rows] = members[np.minimum((draw[rows] * len(members)).astype(np.int64), len(members) - 1)]
    return chosen


def mirrored(ids: Ids) -> np.ndarray:
    """Return (n,) bool: whether the row's image is mirrored before it is turned; half of them are."""
    return uniforms(ids, MIRROR_STREAM, 1)[:, 0] < 0.5
