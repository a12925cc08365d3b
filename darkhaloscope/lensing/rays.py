"""The ray loops: lattice position -> source plane -> surface brightness, float32 and branch-free.

Every row of a batch is a vector of the constants below (:func:`pack_rows`), in which rotations, shear and
scales are already folded. A ray at lattice position (x, y) is rotated to the deflector's major axis,
``theta = (x, y)`` in arcsec; with the SIE's deflection ``alpha(theta)`` its place in the source's own frame
is ``w = P theta - R alpha - w0``, where R rotates and scales and ``P = R (1 - shear)``. The unit of w is the
half-light radius of the product-averaged axis for a Sersic source, the source's pixel for an image. These are
the formulas of `deflectors` and `light`; tests compare them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .deflectors import sie_deflection
from .fastmath import F32, atan_ratio, atanh_ratio, exp2, higher, log2, lower
from .jit import inline, njit
from .light import sersic_bn, sersic_central_brightness
from .scene import Scene

# Places of the constants in a row.
X0, Y0, COS, SIN = 0, 1, 2, 3  # deflector on the lattice; rotation times the pixel scale
Q, F2, ALPHA = 4, 5, 6  # axis ratio, 1 - q^2, 2 theta_e sqrt(q)
PXX, PXY, PYX, PYY, RXX, RXY, RYX, RYY, WX, WY = range(7, 17)
GAP, AXIS = 17, 18  # source's distance from where rays near the deflector's centre land; units per arcsec
CENTRE = 19  # flux of a lattice cell: at the source's centre (Sersic), per unit of brightness (image)
SLOPE, POWER = 20, 21  # b_n log2(e), 1 / (2n); not used by images
N_CONST = 22

TINY = F32(1e-12)
ONE, ZERO = F32(1.0), F32(0.0)


def pack_rows(
    scene: Scene, origin: tuple[float, float], pixel_scale: float, source_unit: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The constants of every row that lens and geometry decide.

    Args:
        scene: n rows.
        origin: stamp pixel (x, y) at lattice position (0, 0).
        pixel_scale: arcsec per pixel.
        source_unit: (n, 2) arcsec per unit of the source's frame along its first and second axis; a negative
            first one mirrors the source.

    Returns:
        (n, N_CONST) float32; CENTRE, SLOPE and POWER are left at zero.
    """
    s, rows = scene, np.zeros((len(scene), N_CONST))
    rows[:, X0], rows[:, Y0] = s.x_lens - origin[0], s.y_lens - origin[1]
    rows[:, COS], rows[:, SIN] = pixel_scale * np.cos(s.lens_phi_rad), pixel_scale * np.sin(s.lens_phi_rad)
    rows[:, Q], rows[:, F2] = s.lens_q, 1.0 - s.lens_q**2
    rows[:, ALPHA] = 2.0 * s.theta_e_arcsec * np.sqrt(s.lens_q)
    turn = s.src_phi_rad - s.lens_phi_rad
    to_unit = np.stack([np.cos(turn), np.sin(turn), -np.sin(turn), np.cos(turn)], 1).reshape(-1, 2, 2)
    to_unit /= source_unit[:, :, None]
    two_phi = 2.0 * (s.shear_phi_rad - s.lens_phi_rad)
    g1, g2 = s.shear * np.cos(two_phi), s.shear * np.sin(two_phi)
    unsheared = np.stack([1.0 - g1, -g2, -g2, 1.0 + g1], 1).reshape(-1, 2, 2)
    rows[:, PXX : PYY + 1] = (to_unit @ unsheared).reshape(-1, 4)
    rows[:, RXX : RYY + 1] = to_unit.reshape(-1, 4)
    cos, sin = np.cos(s.lens_phi_rad), np.sin(s.lens_phi_rad)
    centre = np.stack(
        [cos * s.src_x_arcsec + sin * s.src_y_arcsec, cos * s.src_y_arcsec - sin * s.src_x_arcsec]
    )
    rows[:, WX : WY + 1] = (to_unit @ centre.T[:, :, None])[:, :, 0]
    # Rays close to the deflector's centre land on a closed curve, nearest and farthest on its axes.
    near = abs(sie_deflection(1.0, 0.0, s.theta_e_arcsec, s.lens_q, 0.0)[0])
    far = abs(sie_deflection(0.0, 1.0, s.theta_e_arcsec, s.lens_q, 0.0)[1])
    offset = np.hypot(s.src_x_arcsec, s.src_y_arcsec)
    rows[:, AXIS] = 1.0 / abs(source_unit).max(1)
    rows[:, GAP] = np.maximum(0.0, np.maximum(near - offset, offset - far)) * rows[:, AXIS]
    return rows.astype(np.float32)


def pack_sersic(scene: Scene, origin: tuple[float, float], pixel_scale: float) -> NDArray[np.float32]:
    """The constants (n, N_CONST) of rows with Sersic sources of unit flux; see :func:`pack_rows`."""
    axes = np.stack([1.0 / np.sqrt(scene.src_q), np.sqrt(scene.src_q)], 1) * scene.src_reff_arcsec[:, None]
    rows = pack_rows(scene, origin, pixel_scale, axes)
    rows[:, SLOPE], rows[:, POWER] = sersic_bn(scene.src_n) / np.log(2.0), 0.5 / scene.src_n
    rows[:, CENTRE] = sersic_central_brightness(scene.src_reff_arcsec, scene.src_n) * pixel_scale**2
    return rows


def pack_image(
    scene: Scene, origin: tuple[float, float], pixel_scale: float, source_unit: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The constants (n, N_CONST) of rows with image sources of unit sum; see :func:`pack_rows`."""
    rows = pack_rows(scene, origin, pixel_scale, source_unit)
    rows[:, CENTRE] = (pixel_scale / source_unit[:, 1]) ** 2  # per source pixel -> per arcsec^2 -> per cell
    return rows


@inline
def to_source(x, y, c):
    """Source-frame position of a ray, and its place and radii r, psi in the deflector's frame."""
    dx, dy = x - c[X0], y - c[Y0]
    tx, ty = c[COS] * dx + c[SIN] * dy, c[COS] * dy - c[SIN] * dx
    q = c[Q]
    x2, y2 = tx * tx, ty * ty
    r = np.sqrt(x2 + y2 + TINY)
    psi = np.sqrt(q * q * x2 + y2 + TINY)
    bottom_x, bottom_y = psi + r, psi + q * r
    inverse = ONE / (bottom_x * bottom_y)  # one division for both
    to_x, to_y = tx * bottom_y * inverse, ty * bottom_x * inverse
    ax = c[ALPHA] * to_x * atan_ratio(c[F2] * to_x * to_x)
    ay = c[ALPHA] * to_y * atanh_ratio(c[F2] * to_y * to_y)
    wx = c[PXX] * tx + c[PXY] * ty - c[RXX] * ax - c[RXY] * ay - c[WX]
    wy = c[PYX] * tx + c[PYY] * ty - c[RYX] * ax - c[RYY] * ay - c[WY]
    return wx, wy, tx, ty, r, psi


@njit
def sersic_rays(xs, ys, n, c, out):
    """Surface brightness of the Sersic source at n lattice positions, flux per lattice cell, into ``out``."""
    slope, power, centre = c[SLOPE], c[POWER], c[CENTRE]
    for i in range(n):
        wx, wy, _, _, _, _ = to_source(xs[i], ys[i], c)
        e2 = wx * wx + wy * wy + TINY
        out[i] = centre * exp2(-slope * exp2(power * log2(e2)))


@njit
def image_rays(xs, ys, n, c, pixels, out):
    """Bilinear brightness of an image source at n lattice positions, flux per lattice cell, into ``out``.

    ``pixels`` (y, x) has a border of zeros, so that a ray clipped to it is dark. ``xs, ys`` become the rays'
    places on it: two loops, because the first one vectorises and the look-ups do not.
    """
    ny, nx = pixels.shape
    middle_x, middle_y = F32(0.5) * F32(nx - 1), F32(0.5) * F32(ny - 1)
    last_x, last_y = F32(nx - 1) - F32(1e-3), F32(ny - 1) - F32(1e-3)
    for i in range(n):
        wx, wy, _, _, _, _ = to_source(xs[i], ys[i], c)
        xs[i] = lower(higher(wx + middle_x, ZERO), last_x)
        ys[i] = lower(higher(wy + middle_y, ZERO), last_y)
    for i in range(n):
        left, low = np.uint32(xs[i]), np.uint32(ys[i])
        a, b = xs[i] - F32(left), ys[i] - F32(low)
        bottom = pixels[low, left] + a * (pixels[low, left + 1] - pixels[low, left])
        top = pixels[low + 1, left] + a * (pixels[low + 1, left + 1] - pixels[low + 1, left])
        out[i] = c[CENTRE] * (bottom + b * (top - bottom))
