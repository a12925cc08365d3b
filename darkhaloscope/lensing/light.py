"""Light profiles of galaxies: the Sersic law with its exact normalisation.

The half-light radius is that of the product-averaged axis: the ellipse of area ``pi * reff**2`` holds half
the light. ``b_n`` is exact (incomplete gamma function), not the line ``1.9992 n - 0.3271``, which is 0.4 %
off in radius at n = 1 and 1.5 % at n = 0.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gamma, gammaincinv

Array = NDArray[np.float64]


def sersic_bn(n: ArrayLike) -> Array:
    """The Sersic ``b_n``, so that the effective radius holds half the light.

    Args:
        n: Sersic index, > 0, any shape.

    Returns:
        ``b_n``, shape of ``n``: the root of ``gamma(2n, b) = Gamma(2n) / 2`` (Graham & Driver 2005,
        PASA 22, 118, sec. 2.1).
    """
    return np.asarray(gammaincinv(2.0 * np.asarray(n, float), 0.5))


def sersic_central_brightness(reff_arcsec: ArrayLike, n: ArrayLike) -> Array:
    """Surface brightness at the centre of a Sersic profile of total flux 1, in arcsec^-2.

    Args:
        reff_arcsec: half-light radius of the product-averaged axis, arcsec.
        n: Sersic index.

    Returns:
        ``b^(2n) / (2 pi n Gamma(2n) reff^2)``: the whole plane holds flux 1 (Graham & Driver 2005,
        sec. 2.1, with the brightness at reff carried to the centre).
    """
    n = np.asarray(n, float)
    return sersic_bn(n) ** (2.0 * n) / (2.0 * np.pi * n * gamma(2.0 * n) * np.square(reff_arcsec))


def elliptical_radius(x: ArrayLike, y: ArrayLike, q: ArrayLike, phi_rad: ArrayLike) -> Array:
    """Radius ``sqrt(q x'^2 + y'^2 / q)`` of the product-averaged axis, major axis along ``phi_rad``.

    Args:
        x: first coordinate from the centre, any unit.
        y: second coordinate from the centre, same unit.
        q: axis ratio, minor over major.
        phi_rad: angle of the major axis from +x, counter-clockwise.

    Returns:
        The radius, in the unit of ``x``: the ellipse through the point has area ``pi * radius**2``.
    """
    cos, sin = np.cos(phi_rad), np.sin(phi_rad)
    along = np.asarray(x) * cos + np.asarray(y) * sin
    across = np.asarray(y) * cos - np.asarray(x) * sin
    return np.asarray(np.sqrt(q * along**2 + across**2 / q))


def sersic_surface_brightness(
    x_arcsec: ArrayLike,
    y_arcsec: ArrayLike,
    flux: ArrayLike,
    reff_arcsec: ArrayLike,
    q: ArrayLike,
    phi_rad: ArrayLike,
    n: ArrayLike,
) -> Array:
    """Surface brightness of a Sersic galaxy, flux per arcsec^2.

    Args:
        x_arcsec: position from the galaxy's centre, arcsec; all arguments broadcast.
        y_arcsec: see ``x_arcsec``.
        flux: total flux over the whole plane.
        reff_arcsec: half-light radius of the product-averaged axis, arcsec.
        q: axis ratio in (0, 1].
        phi_rad: angle of the major axis from +x, counter-clockwise.
        n: Sersic index.

    Returns:
        ``flux * central_brightness * exp(-b_n (R / reff)^(1/n))`` (Graham & Driver 2005,
            eq. 1).
    """
    radius = elliptical_radius(x_arcsec, y_arcsec, q, phi_rad) / np.asarray(reff_arcsec, float)
    shape = np.exp(-sersic_bn(n) * radius ** (1.0 / np.asarray(n, float)))
    return np.asarray(np.asarray(flux) * sersic_central_brightness(reff_arcsec, n) * shape)
