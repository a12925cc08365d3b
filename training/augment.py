"""Orientations: a sky image has no preferred one, so training shows each stamp in all eight.

Which one a row gets depends on (seed, epoch, rank, position, row) alone, so that a resumed run repeats them.
"""

from __future__ import annotations

import torch

from darkhaloscope.draws import digest, uniforms


def draw_orientations(rows: int, *key: object) -> torch.Tensor:
    """Return mirror-x, mirror-y and transpose for each row, (rows, 3) bool: each of the eight alike."""
    draws = uniforms([digest("orientation", *key)], 0, 3 * rows)
    return torch.from_numpy(draws.reshape(rows, 3) < 0.5)


def orient(stamps: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    """Turn and mirror square stamps (n, band, y, x), each as its row of `choice` (n, 3) says."""
    mirror_x, mirror_y, transpose = choice.to(stamps.device)[:, :, None, None, None].unbind(1)
    stamps = torch.where(mirror_x, stamps.flip(-1), stamps)
    stamps = torch.where(mirror_y, stamps.flip(-2), stamps)
    return torch.where(transpose, stamps.transpose(-1, -2), stamps)
