"""Adaptive quadrature of the lensed light on the pixel lattice: how many rays, where.

The lattice's points are pixel centres; a panel is a cell between four of them, or a part of one. A panel gets
an m x m Gauss-Legendre rule whose rays are spread on the 4 x 4 lattice points around with the cubic B-spline
(whose knots are the lattice lines, so that it is one polynomial inside a panel). The rule's order follows an
estimate of its error from the panel's footprint in the source plane and the brightness there; where the
highest order is not enough (the cusp of a small source, the deflector's centre), the panel is split in four.
"""

from __future__ import annotations

import numpy as np

from .fastmath import F32, exp2, log2
from .jit import inline, njit
from .rays import ALPHA, CENTRE, COS, POWER, PXX, PXY, PYX, PYY, REACH, RXX, RXY, RYX, RYY, SIN, SLOPE, to_source

ORDERS = (1, 2, 3, 4, 6)  # Gauss-Legendre nodes per axis that a panel can have
N_ORDER = len(ORDERS)
DARK, SPLIT = -1, N_ORDER
# Error of the m-point rule on exp(t x) over a unit interval: t^(2m) (m!)^4 / ((2m+1) ((2m)!)^3)
# (Abramowitz & Stegun 25.4.30).
SMOOTH = tuple(F32(c) for c in (1 / 24.0, 1 / 4320.0, 1 / 2016000.0, 1 / 1778112000.0, 1.0 / 5.3e15))
CUSP = tuple(F32(c) for c in (0.5, 0.08, 0.03, 0.015, 0.006))  # of a panel that holds the source's centre
BLOCK = 4  # the first look is at blocks of 4 x 4 cells
ONE, HALF, ZERO = F32(1.0), F32(0.5), F32(0.0)


def rule_tables():  # type: ignore[no-untyped-def]
    """Nodes and weights on [0, 1], float32, (order, 6) each."""
    nodes, weights = np.zeros((N_ORDER, max(ORDERS)), np.float32), np.zeros((N_ORDER, max(ORDERS)), np.float32)
    for k, m in enumerate(ORDERS):
        x, w = np.polynomial.legendre.leggauss(m)
        nodes[k, :m], weights[k, :m] = 0.5 * (x + 1.0), 0.5 * w
    return nodes, weights


@njit
def choose_sersic(xs, ys, n, size, c, tolerance, code, value):  # type: ignore[no-untyped-def]
    """Which rule each of n square panels of edge ``size`` gets.

    ``xs, ys`` are the panels' centres on the lattice. Writes the index into ORDERS, DARK or SPLIT into
    ``code`` and the surface brightness at the centre, flux per lattice cell, into ``value``.
    """
    slope, power, centre = c[SLOPE], c[POWER], c[CENTRE]
    scale2 = c[COS] * c[COS] + c[SIN] * c[SIN]
    step = size * np.sqrt(scale2)  # arcsec
    base = np.sqrt(c[RXX] * c[RXX] + c[RXY] * c[RXY] + c[RYX] * c[RYX] + c[RYY] * c[RYY])
    area = size * size
    for i in range(n):
        wx, wy, tx, ty, r, psi = to_source(xs[i], ys[i], c)
        e = np.sqrt(wx * wx + wy * wy)
        value[i] = centre * exp2(-slope * exp2(power * log2(e * e + F32(1e-12))))
        # Jacobian P - R (2 kappa t t^T): an isothermal lens stretches tangentially only.
        near = max(r - HALF * step, HALF * step) / r
        kappa2 = HALF * c[ALPHA] / (psi * near)
        ux, uy = -ty / r, tx / r
        bx, by = kappa2 * (c[RXX] * ux + c[RXY] * uy), kappa2 * (c[RYX] * ux + c[RYY] * uy)
        jxx, jxy, jyx, jyy = c[PXX] - bx * ux, c[PXY] - bx * uy, c[PYX] - by * ux, c[PYY] - by * uy
        trace = jxx * jxx + jxy * jxy + jyx * jyx + jyy * jyy
        det = jxx * jyy - jxy * jyx
        stretch2 = HALF * (trace + np.sqrt(max(trace * trace - F32(4.0) * det * det, ZERO)))
        delta = min(step * np.sqrt(stretch2), step * base * F32(1.5) + c[REACH])
        inner = max(e - F32(0.7) * delta, F32(0.05) * delta) + F32(1e-6)
        x = exp2(power * F32(2.0) * log2(inner))
        light = area * centre * exp2(-slope * x)
        # change of log-brightness over the panel, capped where the profile is flat within it
        t = delta / max(inner, F32(0.35) * delta) * slope * F32(0.6931472) * F32(2.0) * power * x
        smooth = (t + size) * (t + size)
        ratio = min(delta / (F32(2.0) * e + F32(1e-6)), ONE)
        ratio2 = ratio * ratio
        kink = min(t, ONE) * light
        s1 = smooth * SMOOTH[0] * light + kink * ratio2 * CUSP[0]
        smooth2, r4 = smooth * smooth, ratio2 * ratio2
        s2 = smooth2 * SMOOTH[1] * light + kink * r4 * CUSP[1]
        s3 = smooth2 * smooth * SMOOTH[2] * light + kink * r4 * ratio2 * CUSP[2]
        s4 = smooth2 * smooth2 * SMOOTH[3] * light + kink * r4 * r4 * CUSP[3]
        s6 = smooth2 * smooth2 * smooth2 * SMOOTH[4] * light + kink * r4 * r4 * r4 * CUSP[4]
        k = np.int32(s1 > tolerance) + np.int32(s2 > tolerance) + np.int32(s3 > tolerance)
        k += np.int32(s4 > tolerance) + np.int32(s6 > tolerance)
        code[i] = k if light > F32(0.003) * tolerance else np.int32(-1)


@inline
def _spline(t):  # type: ignore[no-untyped-def]
    """Cubic B-spline weights of the four lattice points around a point at fraction t of its cell."""
    s, sixth = ONE - t, F32(1.0 / 6.0)
    t2, s2 = t * t, s * s
    return (
        s2 * s * sixth,
        (F32(4.0) - F32(6.0) * t2 + F32(3.0) * t2 * t) * sixth,
        (F32(4.0) - F32(6.0) * s2 + F32(3.0) * s2 * s) * sixth,
        t2 * t * sixth,
    )


@njit
def spread(px, py, n, size, order, m, light, nodes, weights, lattice, wx, wy, rows):  # type: ignore[no-untyped-def]
    """Add n panels' rays (their brightness in ``light``, panel-major) to the lattice."""
    for p in range(n):
        x0, y0 = np.floor(px[p]), np.floor(py[p])
        for k in range(m):
            weight = weights[order, k] * size
            w = _spline(px[p] - x0 + nodes[order, k] * size)
            v = _spline(py[p] - y0 + nodes[order, k] * size)
            for a in range(4):
                wx[k, a], wy[k, a] = w[a] * weight, v[a] * weight
        for a in range(4):
            for b in range(4):
                rows[a, b] = ZERO
        first = p * m * m
        for j in range(m):
            h0, h1, h2, h3 = ZERO, ZERO, ZERO, ZERO
            for i in range(m):
                s = light[first + j * m + i]
                h0 += s * wx[i, 0]
                h1 += s * wx[i, 1]
                h2 += s * wx[i, 2]
                h3 += s * wx[i, 3]
            for a in range(4):
                rows[a, 0] += wy[j, a] * h0
                rows[a, 1] += wy[j, a] * h1
                rows[a, 2] += wy[j, a] * h2
                rows[a, 3] += wy[j, a] * h3
        iy, ix = int(y0) - 1, int(x0) - 1
        for a in range(4):
            for b in range(4):
                lattice[iy + a, ix + b] += rows[a, b]


@njit
def place_rays(px, py, n, size, order, m, nodes, xs, ys):  # type: ignore[no-untyped-def]
    """Lattice positions of the rays of n panels whose lower corners are (px, py), panel-major."""
    for p in range(n):
        for j in range(m):
            y = py[p] + nodes[order, j] * size
            for i in range(m):
                xs[p * m * m + j * m + i] = px[p] + nodes[order, i] * size
                ys[p * m * m + j * m + i] = y
