"""Deflectors: singular isothermal ellipsoid (SIE) and external shear, in lenstronomy's conventions.

The Einstein radius is the circularised one: ``kappa = theta_e / (2 sqrt(q x^2 + y^2 / q))`` with the major
axis along ``phi``, so the mean convergence inside the ellipse of area ``pi theta_e^2`` is 1. Positions are in
arcsec from the deflector's centre; angles in radians from +x, counter-clockwise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .light import elliptical_radius

Array = NDArray[np.float64]


def sie_convergence(
    x: ArrayLike, y: ArrayLike, theta_e: ArrayLike, q: ArrayLike, phi_rad: ArrayLike
) -> Array:
    """Convergence of the SIE (Kormann, Schneider & Bartelmann 1994, A&A 284, 285, eq. 7a, circularised).

    Args:
        x: position, arcsec; all arguments broadcast.
        y: see ``x``.
        theta_e: circularised Einstein radius, arcsec.
        q: axis ratio in (0, 1].
        phi_rad: angle of the major axis.

    Returns:
        ``theta_e / (2 R)``, R the product-averaged elliptical radius; infinite at the centre.
    """
    return np.asarray(theta_e) / (2.0 * elliptical_radius(x, y, q, phi_rad))


def sie_deflection(
    x: ArrayLike, y: ArrayLike, theta_e: ArrayLike, q: ArrayLike, phi_rad: ArrayLike
) -> tuple[Array, Array]:
    """Deflection of the SIE (Kormann, Schneider & Bartelmann 1994, eq. 27a).

    With ``f = sqrt(1 - q^2)`` and ``psi = sqrt(q^2 x^2 + y^2)`` in the major axis' frame, the textbook is
    ``theta_e sqrt(q) / f * (atan(f x / psi), atanh(f y / psi))``. Halving both angles gives the form below,
    whose arguments stay under ``sqrt((1 - q) / (1 + q))`` and which needs no special case at q = 1.

    Args:
        x: position, arcsec; all arguments broadcast.
        y: see ``x``.
        theta_e: circularised Einstein radius, arcsec.
        q: axis ratio in (0, 1], 1 included exactly.
        phi_rad: angle of the major axis.

    Returns:
        The deflection (alpha_x, alpha_y), arcsec; (0, 0) at the centre itself, where it is undefined.
    """
    cos, sin = np.cos(phi_rad), np.sin(phi_rad)
    along = np.asarray(x) * cos + np.asarray(y) * sin
    across = np.asarray(y) * cos - np.asarray(x) * sin
    q = np.asarray(q, float)
    f = np.sqrt(np.maximum(1.0 - q**2, 0.0))
    r = np.hypot(along, across)
    psi = np.hypot(q * along, across)
    tiny = np.finfo(float).tiny
    to_x = along / np.maximum(psi + r, tiny)
    to_y = across / np.maximum(psi + q * r, tiny)
    scale = 2.0 * np.asarray(theta_e) * np.sqrt(q)
    alpha_along = scale * to_x * _ratio(np.arctan, f * to_x)
    alpha_across = scale * to_y * _ratio(np.arctanh, f * to_y)
    return alpha_along * cos - alpha_across * sin, alpha_along * sin + alpha_across * cos


def _ratio(function: np.ufunc, z: Array) -> Array:
    """``function(z) / z`` with its limit 1 at z = 0."""
    safe = np.where(z == 0.0, 0.5, z)
    return np.where(z == 0.0, 1.0, function(safe) / safe)


def shear_deflection(x: ArrayLike, y: ArrayLike, shear: ArrayLike, phi_rad: ArrayLike) -> tuple[Array, Array]:
    """Deflection of an external shear about the deflector's centre (Keeton 2001, astro-ph/0102341, sec. 2).

    Args:
        x: position, arcsec; all arguments broadcast.
        y: see ``x``.
        shear: strength gamma >= 0.
        phi_rad: its angle; images of a distant source stretch along it.

    Returns:
        ``(g1 x + g2 y, g2 x - g1 y)`` with ``g1 = shear cos 2 phi``, ``g2 = shear sin 2 phi``, arcsec.
    """
    g1 = np.asarray(shear) * np.cos(2.0 * np.asarray(phi_rad))
    g2 = np.asarray(shear) * np.sin(2.0 * np.asarray(phi_rad))
    x, y = np.asarray(x), np.asarray(y)
    return g1 * x + g2 * y, g2 * x - g1 * y


def to_source_plane(
    x: ArrayLike,
    y: ArrayLike,
    theta_e: ArrayLike,
    q: ArrayLike,
    phi_rad: ArrayLike,
    shear: ArrayLike,
    shear_phi_rad: ArrayLike,
) -> tuple[Array, Array]:
    """Where a ray through (x, y) meets the source plane: ``beta = theta - alpha_sie - alpha_shear``.

    Args:
        x: image-plane position from the deflector, arcsec; all arguments broadcast.
        y: see ``x``.
        theta_e: circularised Einstein radius, arcsec.
        q: axis ratio of the SIE.
        phi_rad: angle of its major axis.
        shear: external shear.
        shear_phi_rad: angle of the shear.

    Returns:
        Source-plane position (beta_x, beta_y) from the deflector, arcsec.
    """
    sie_x, sie_y = sie_deflection(x, y, theta_e, q, phi_rad)
    shear_x, shear_y = shear_deflection(x, y, shear, shear_phi_rad)
    return np.asarray(x) - sie_x - shear_x, np.asarray(y) - sie_y - shear_y
