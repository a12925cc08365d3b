"""Rejection sampling whose draws are a function of the row alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from darkhaloscope.draws import Ids, Keys, keys_of, uniforms

TRIES, ROUNDS = (
    8,
    64,
)  # a row gets TRIES x ROUNDS proposals: one accepted in thirty leaves 1 in 30 million without
STREAMS = ROUNDS  # streams used, from the first
BLOCK = 512  # rows at a time: bounds the memory of proposals

Propose = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def first_accepted(ids: Ids, stream: int, width: int, propose: Propose) -> tuple[np.ndarray, np.ndarray]:
    """Return the first accepted proposal of each row; the best one where none was accepted.

    Args:
        ids: n draw ids.
        stream: first of `STREAMS` streams of draws.
        width: uniform draws per proposal.
        propose: maps (k row numbers, (k, TRIES, width) draws) to the proposals (k, TRIES, values), whether each is
            accepted (k, TRIES), and how good it is (k, TRIES).

    Returns:
        (n, values) the proposals, and (n,) bool whether they were accepted.
    """
    ids = keys_of(ids)
    parts = [_block(ids[i : i + BLOCK], i, stream, width, propose) for i in range(0, max(len(ids), 1), BLOCK)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _block(
    keys: Keys, first: int, stream: int, width: int, propose: Propose
) -> tuple[np.ndarray, np.ndarray]:
    values: np.ndarray | None = None
    best, done = np.full(len(keys), -np.inf), np.zeros(len(keys), bool)
    for number in range(ROUNDS):
        rows = np.flatnonzero(~done)
        if values is not None and not len(rows):
            break
        draws = uniforms(keys[rows], stream + number, TRIES * width).reshape(len(rows), TRIES, width)
        proposed, accepted, quality = propose(first + rows, draws)
        values = np.zeros((len(keys), proposed.shape[2])) if values is None else values
        some = accepted.any(axis=1)
        chosen = np.where(some, accepted.argmax(axis=1), quality.argmax(axis=1))
        one = np.arange(len(rows))
        better = some | (quality[one, chosen] > best[rows])
        values[rows[better]] = proposed[one, chosen][better]
        best[rows] = np.maximum(best[rows], quality[one, chosen])
        done[rows] = some
    assert values is not None
    return values, done
