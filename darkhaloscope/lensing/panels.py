"""How many rays a panel of the lattice gets: an estimate of its quadrature error, and the cheapest rule below it.

A panel is a cell between four lattice points (pixel centres), or a part of one. It gets an m x m
Gauss-Legendre rule; where even the highest order is not enough (the cusp of a small source, the deflector's
centre), it is split in four. The estimate comes from the panel's footprint in the source plane and a bound on
the brightness there.
"""

from __future__ import annotations

import numpy as np

from .fastmath import F32, exp2, higher, log2, lower, select
from .jit import inline, njit
from .rays import (
    ALPHA,
    AXIS,
    CENTRE,
    COS,
    GAP,
    ONE,
    POWER,
    PXX,
    PXY,
    PYX,
    PYY,
    RXX,
    RXY,
    RYX,
    RYY,
    SIN,
    SLOPE,
    ZERO,
    to_source,
)  # fmt: skip

ORDERS = (1, 2, 3, 4, 6)  # Gauss-Legendre nodes per axis that a panel can have
N_ORDER = len(ORDERS)  # also the code for "split"; -1 is "dark"
# Error of the m-point rule on exp(t x) over a unit interval is t^(2m) times
# (m!)^4 / ((2m+1) ((2m)!)^3) (Abramowitz & Stegun 25.4.30).
SMOOTH = tuple(F32(c) for c in (1 / 24.0, 1 / 4320.0, 1 / 2016000.0, 1 / 1.778e9, 1 / 5.32e15))
CUSP = tuple(F32(c) for c in (0.5, 0.08, 0.03, 0.015, 0.006))  # of a panel that holds a singularity
GRAIN = F32(0.002)  # error of an image's panel with one node per source pixel
DIM = F32(0.003)  # panels fainter than this many tolerances are dark
HALF = F32(0.5)


@inline
def _footprint(x, y, step, c):
    """Where a square of edge ``step`` (arcsec) lands: distance from the source's centre, size, and step / r.

    The Jacobian is P - R (2 kappa t t^T), t the tangential unit vector: an isothermal deflector stretches
    tangentially only. 2 kappa = theta_e sqrt(q) / psi, taken at the nearest point of the square.
    """
    wx, wy, tx, ty, r, psi = to_source(x, y, c)
    inverse_r = ONE / r
    close = step * inverse_r
    kappa2 = HALF * c[ALPHA] / (psi * higher(ONE - HALF * close, HALF))
    ux, uy = -ty * inverse_r, tx * inverse_r
    bx, by = kappa2 * (c[RXX] * ux + c[RXY] * uy), kappa2 * (c[RYX] * ux + c[RYY] * uy)
    jxx, jxy, jyx, jyy = c[PXX] - bx * ux, c[PXY] - bx * uy, c[PYX] - by * ux, c[PYY] - by * uy
    return np.sqrt(wx * wx + wy * wy), step * np.sqrt(jxx * jxx + jxy * jxy + jyx * jyx + jyy * jyy), close


@inline
def _above(a, b):
    return select(a > b, ONE, ZERO)


@njit
def choose_sersic(xs, ys, n, size, parts, c, tolerance, code):
    """Which rule each of n square panels of a Sersic source gets.

    ``xs, ys`` are the centres, on the lattice, of squares of edge ``size``, each to be covered by
    ``parts x parts`` panels. Writes -1 (dark), an index into ORDERS, or N_ORDER (split) into ``code``.
    """
    slope, power, centre = c[SLOPE], c[POWER], c[CENTRE]
    step = size * np.sqrt(c[COS] * c[COS] + c[SIN] * c[SIN])
    panel = size / parts
    gap = higher(c[GAP] - F32(1.5) * step * c[AXIS], ZERO)
    rate = slope * F32(2.0 * 0.6931472) * power
    for i in range(n):
        e, delta, close = _footprint(xs[i], ys[i], step, c)
        central = close > ONE  # the square may hold the deflector's centre: rays land along a curve
        inner = select(central, gap, higher(e - HALF * delta, F32(0.03) * delta))
        inner += F32(1e-6)
        x = exp2(power * F32(2.0) * log2(inner))
        light = panel * panel * centre * exp2(-slope * x)
        # change of log-brightness over a panel, capped where the profile is flat within it
        t = lower(delta / (parts * higher(inner, F32(0.3) * delta)) * rate * x, F32(30.0))
        # how close the nearest singularity is: the source's centre or the deflector's
        ratio = higher(delta / (F32(2.0) * e + F32(1e-6)), higher(HALF * close, F32(0.05)))
        ratio = select(central, ONE, lower(ratio, ONE))
        kink = light * select(central, ONE, lower(t, ONE))
        a, b = (t + panel) * (t + panel), ratio * ratio
        a2, b2 = a * a, b * b
        k = _above(light * a * SMOOTH[0] + kink * b * CUSP[0], tolerance)
        k += _above(light * a2 * SMOOTH[1] + kink * b2 * CUSP[1], tolerance)
        k += _above(light * a2 * a * SMOOTH[2] + kink * b2 * b * CUSP[2], tolerance)
        k += _above(light * a2 * a2 * SMOOTH[3] + kink * b2 * b2 * CUSP[3], tolerance)
        k += _above(light * a2 * a2 * a2 * SMOOTH[4] + kink * b2 * b2 * b2 * CUSP[4], tolerance)
        code[i] = select(light > DIM * tolerance, k, -ONE)


@njit
def choose_image(xs, ys, n, size, parts, c, envelope, tolerance, code):
    """Which rule each of n square panels of an image source gets; as :func:`choose_sersic`.

    ``envelope[k]`` is the highest brightness at k or more source pixels from the image's centre. The error
    falls with the cube of the distance between nodes, in source pixels. ``xs, ys`` are used up: two loops,
    because the first one vectorises and the look-ups do not.
    """
    step = size * np.sqrt(c[COS] * c[COS] + c[SIN] * c[SIN])
    panel = size / parts
    gap = c[GAP] - F32(1.5) * step * c[AXIS]
    last = F32(envelope.size - 1)
    for i in range(n):
        e, delta, close = _footprint(xs[i], ys[i], step, c)
        central = close > ONE
        inner = select(central, gap, e - HALF * delta - ONE)
        xs[i], ys[i] = delta / parts, select(central, ONE, ZERO)
        code[i] = lower(higher(inner, ZERO), last)
    for i in range(n):
        light = panel * panel * c[CENTRE] * envelope[np.uint32(code[i])]
        spacing, kink = xs[i], ys[i] * light
        grain = light * GRAIN * spacing * spacing * spacing
        k = _above(grain + HALF * light * spacing, tolerance)
        k += _above(grain / F32(8.0) + kink, tolerance)
        k += _above(grain / F32(27.0) + kink, tolerance)
        k += _above(grain / F32(64.0) + kink, tolerance)
        k += _above(grain / F32(216.0) + kink * CUSP[4], tolerance)
        code[i] = select(light > DIM * tolerance, k, -ONE)
