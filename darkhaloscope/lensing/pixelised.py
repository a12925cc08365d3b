"""Pixelised sources: images of real galaxies as surface brightness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class SourceImages:
    """A bank of source images and which of them each row of a scene uses.

    The image is bilinear between its pixels' centres and zero outside. The scene's ``flux`` is its total
    unlensed flux, its ``src_x_arcsec, src_y_arcsec`` the image's middle ``((nx - 1) / 2, (ny - 1) / 2)``, its
    ``src_phi_rad`` the angle of the image's x axis; the Sersic fields are not used.

    Example::

        bank = SourceImages(stamps, index=[0, 2, 1], pixel_scale_arcsec=0.03, flip=[False, True, False])
        made = render(scene, psf, sources=bank)

    Attributes:
        stamps: (m, y, x) float32, brightness on any scale: only its shape counts.
        index: (n,) stamp of each row, or -1 for the row's Sersic source.
        pixel_scale_arcsec: (n,) or scalar, arcsec per stamp pixel; a brightness per stamp pixel is divided by
            its square, which makes it one per arcsec^2.
        flip: (n,) or scalar, mirror the stamp's x axis before turning it.
    """

    stamps: NDArray[np.float32]
    index: ArrayLike
    pixel_scale_arcsec: ArrayLike
    flip: ArrayLike = False

    def __post_init__(self) -> None:
        """Cast, broadcast, and check the bank before any work starts.

        Raises:
            ValueError: if the stamps are not (m, y, x), are not finite, or one of them holds no light.
        """
        stamps = np.asarray(self.stamps, np.float32)
        index = np.atleast_1d(np.asarray(self.index, np.int64))
        object.__setattr__(self, "stamps", stamps)
        object.__setattr__(self, "index", index)
        for name, dtype in (("pixel_scale_arcsec", float), ("flip", bool)):
            object.__setattr__(
                self, name, np.broadcast_to(np.asarray(getattr(self, name), dtype), index.shape)
            )
        if stamps.ndim != 3:
            raise ValueError(f"source stamps have shape {stamps.shape}, expected (stamp, y, x)")
        total = stamps.sum((1, 2), dtype=float)
        bad = np.flatnonzero(~np.isfinite(total) | (total <= 0))
        if len(bad):
            raise ValueError(
                f"source stamp {bad[0]} sums to {total[bad[0]]:g} ({len(bad)} such stamps), expected a finite, "
                "positive sum; leave empty and corrupt stamps out of the bank"
            )

    def __len__(self) -> int:
        return len(np.asarray(self.index))

    def units(self) -> NDArray[np.float64]:
        """(n, 2) arcsec per pixel along x and y, x negative where mirrored."""
        scale = np.asarray(self.pixel_scale_arcsec, float)
        return np.stack([np.where(np.asarray(self.flip), -scale, scale), scale], 1)

    def take(self, rows: NDArray[np.integer]) -> SourceImages:
        """The same bank with the given rows of the scene."""
        return SourceImages(
            self.stamps,
            np.asarray(self.index)[rows],
            np.asarray(self.pixel_scale_arcsec)[rows],
            np.asarray(self.flip)[rows],
        )

    def why_not(self) -> tuple[str, ...]:
        """Why each row's image cannot be used; "" where it can."""
        index, scale = np.asarray(self.index), np.asarray(self.pixel_scale_arcsec)
        reasons = []
        for row in range(len(index)):
            reason = ""
            if not -1 <= index[row] < len(self.stamps):
                reason = f"row {row}: source index is {index[row]}, expected -1 to {len(self.stamps) - 1}"
            elif index[row] >= 0 and not (np.isfinite(scale[row]) and scale[row] > 0):
                reason = f"row {row}: source pixel_scale_arcsec is {scale[row]}, expected finite and positive"
            reasons.append(reason)
        return tuple(reasons)


def unit_stamps(stamps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Stamps scaled to unit sum with a border of zeros, and their brightness envelopes.

    Args:
        stamps: (m, y, x).

    Returns:
        (m, y + 2, x + 2) float32; and (m, k) float32, the highest |brightness| at k or more pixels from the
        middle.
    """
    m, ny, nx = stamps.shape
    padded = np.zeros((m, ny + 2, nx + 2), np.float32)
    padded[:, 1:-1, 1:-1] = stamps / stamps.sum((1, 2), dtype=float)[:, None, None]
    y, x = np.indices((ny + 2, nx + 2))
    radius = np.hypot(y - 0.5 * (ny + 1), x - 0.5 * (nx + 1)).astype(int).ravel()
    order = np.argsort(radius, kind="stable")
    rings, first = np.unique(radius[order], return_index=True)
    envelope = np.zeros((m, radius.max() + 2), np.float32)
    envelope[:, rings] = np.maximum.reduceat(abs(padded).reshape(m, -1)[:, order], first, axis=1)
    return padded, np.maximum.accumulate(envelope[:, ::-1], 1)[:, ::-1].copy()
