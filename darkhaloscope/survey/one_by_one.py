"""Bricks asked for one square at a time, such as images in memory, with the interface of those read all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.errors import BrickUnreadable

T = TypeVar("T")


class OneByOne:
    """Gives `cuts` and `psfsizes`, as `coadds.BrickReader` does, to a brick that has `cut` and `psfsize`."""

    def cut(self, x0: int, y0: int, size: int) -> Cutout:
        """Return the square whose first pixel is (x0, y0)."""
        raise NotImplementedError

    def psfsize(self, x: float, y: float) -> tuple[np.ndarray, str]:
        """Return the survey's PSF size per band, arcsec, and where it is from."""
        raise NotImplementedError

    def cuts(self, corners: np.ndarray, size: int) -> list[Cutout | Exception]:
        """Return a `cut` at each of corners (n, 2), or its error."""
        return [_tried(self.cut, x, y, size) for x, y in np.asarray(corners).tolist()]

    def psfsizes(self, x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, str] | Exception]:
        """Return the `psfsize` at each position, or its error."""
        return [_tried(self.psfsize, *at) for at in zip(x.tolist(), y.tolist(), strict=True)]


def _tried(function: Callable[..., T], *arguments: Any) -> T | Exception:
    try:
        return function(*arguments)
    except (ValueError, BrickUnreadable) as error:
        return error
