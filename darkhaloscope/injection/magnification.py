"""Point sources behind an isothermal ellipsoid with external shear: total magnification and number of images.

The deflection of an isothermal lens depends on the direction only, so the lens equation ``M theta - alpha(phi) =
beta`` (M the identity less the shear) asks, in each direction phi, for one radius: theta = M^-1 (beta + alpha(phi))
must point along phi. Its images are the zeros of one function of phi, and are found on a ring of directions for
many lenses and sources at once. Everything is in units of theta_E: the lens has no other scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from darkhaloscope.lensing.deflectors import shear_deflection, sie_convergence, sie_deflection

Array = NDArray[np.float64]

DIRECTIONS = 360


@dataclass(frozen=True)
class Lenses:
    """Lenses of theta_E = 1 on a ring of directions; (n, direction) float64 unless said.

    Attributes:
        cos: of the directions, (direction,).
        sin: see `cos`.
        alpha_x: deflection by the ellipsoid.
        alpha_y: see `alpha_x`.
        kappa: convergence at radius 1; it falls as 1 / radius.
        g1: (n, 1), shear strength times cos 2 phi.
        g2: (n, 1), shear strength times sin 2 phi.
    """

    cos: Array
    sin: Array
    alpha_x: Array
    alpha_y: Array
    kappa: Array
    g1: Array
    g2: Array

    @staticmethod
    def of(q: Array, phi_rad: Array, shear: Array, shear_phi_rad: Array) -> Lenses:
        """Prepare lenses; arguments (n,), conventions of `lensing.deflectors`."""
        angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        cos, sin = np.cos(angle), np.sin(angle)
        shape = (1.0, np.asarray(q)[:, None], np.asarray(phi_rad)[:, None])
        strength, towards = np.asarray(shear)[:, None], np.asarray(shear_phi_rad)[:, None]
        g1, g2 = shear_deflection(1.0, 0.0, strength, towards)
        alpha_x, alpha_y = sie_deflection(cos, sin, *shape)
        return Lenses(cos, sin, alpha_x, alpha_y, sie_convergence(cos, sin, *shape), g1, g2)

    @property
    def across(self) -> Array:
        """The product t adj(M) t, t being the tangential direction."""
        return (1 + self.g1) * self.sin**2 - 2 * self.g2 * self.sin * self.cos + (1 - self.g1) * self.cos**2

    @property
    def determinant(self) -> Array:
        """Determinant of M, (n, 1)."""
        return 1 - self.g1**2 - self.g2**2


def tangential_caustic(lenses: Lenses) -> tuple[Array, Array]:
    """Return the caustic whose inside has two images more, (n, direction) each, in units of theta_E.

    The magnification is 1 / (det M - 2 kappa t adj(M) t); it diverges at one radius in each direction.
    """
    radius = 2 * lenses.kappa * lenses.across / lenses.determinant
    x, y = radius * lenses.cos, radius * lenses.sin
    return (
        (1 - lenses.g1) * x - lenses.g2 * y - lenses.alpha_x,
        (1 + lenses.g1) * y - lenses.g2 * x - lenses.alpha_y,
    )


def reach(lenses: Lenses) -> Array:
    """Return how far from the centre a source may have several images, (n,), in units of theta_E.

    The farthest point of the tangential caustic and of the cut, the curve ``-alpha(phi)`` that takes the place of the
    radial caustic (Kormann, Schneider & Bartelmann 1994, A&A 284, 285).
    """
    cut = np.hypot(lenses.alpha_x, lenses.alpha_y).max(axis=1)
    return np.maximum(cut, np.hypot(*tangential_caustic(lenses)).max(axis=1))


def point_magnification(lenses: Lenses, x: Array, y: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return total magnification and number of images of point sources.

    Good to 1e-3 away from caustics. Two images less than a degree apart may be missed: just inside a caustic the value
    can be that of just outside.

    Args:
        lenses: n of them.
        x: (n, m) source positions from the centre, in units of theta_E; m sources for each lens.
        y: see `x`.

    Returns:
        (magnification, images), (n, m) each. The image of zero magnification at the centre does not count.
    """
    to_x = np.asarray(x, float)[:, :, None] + lenses.alpha_x[:, None, :]
    to_y = np.asarray(y, float)[:, :, None] + lenses.alpha_y[:, None, :]
    g1, g2, det = lenses.g1[:, :, None], lenses.g2[:, :, None], lenses.determinant[:, :, None]
    theta_x = ((1 + g1) * to_x + g2 * to_y) / det
    theta_y = (g2 * to_x + (1 - g1) * to_y) / det
    astray = theta_y * lenses.cos - theta_x * lenses.sin
    radius = theta_x * lenses.cos + theta_y * lenses.sin
    row, source, left = np.nonzero(np.signbit(astray) != np.signbit(np.roll(astray, -1, axis=2)))
    right = (left + 1) % DIRECTIONS
    a, b = astray[row, source, left], astray[row, source, right]
    share = a / (a - b)

    def between(table: Array) -> Array:
        at_left, at_right = (table[row, left], table[row, right]) if table.ndim == 2 else (
            table[row, source, left], table[row, source, right]
        )  # fmt: skip
        return at_left + share * (at_right - at_left)

    distance = between(radius)
    jacobian = lenses.determinant[row, 0] - 2 * between(lenses.kappa * lenses.across) / distance
    image = distance > 0
    magnification, images = np.zeros(to_x.shape[:2]), np.zeros(to_x.shape[:2], np.int64)
    np.add.at(magnification, (row[image], source[image]), 1 / np.abs(jacobian[image]))
    np.add.at(images, (row[image], source[image]), 1)
    return magnification, images
