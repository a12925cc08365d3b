"""Spread rays on the lattice with the cubic B-spline, which the PSF step divides out in Fourier space.

The spline's knots are the lattice lines, so inside a cell its weights are one cubic and Gauss-Legendre rules
keep their order.
"""

from __future__ import annotations

import numpy as np

from .fastmath import F32
from .jit import inline, njit
from .panels import N_ORDER, ORDERS
from .rays import ONE, ZERO

# Gauss-Legendre nodes and weights on [0, 1], (order, 6), rows as in ORDERS.
NODES, WEIGHTS = np.zeros((N_ORDER, 6), np.float32), np.zeros((N_ORDER, 6), np.float32)
for _k, _m in enumerate(ORDERS):
    _x, _w = np.polynomial.legendre.leggauss(_m)
    NODES[_k, :_m], WEIGHTS[_k, :_m] = 0.5 * (_x + 1.0), 0.5 * _w


@inline
def _spline(t, weight):
    """Weights of the four lattice points around a point at fraction t of its cell."""
    s, sixth = ONE - t, F32(1.0 / 6.0) * weight
    t2, s2 = t * t, s * s
    return (
        s2 * s * sixth,
        (F32(4.0) - F32(6.0) * t2 + F32(3.0) * t2 * t) * sixth,
        (F32(4.0) - F32(6.0) * s2 + F32(3.0) * s2 * s) * sixth,
        t2 * t * sixth,
    )


@njit
def place_rays(px, py, n, size, order, xs, ys):
    """Lattice positions of the rays of n panels with lower corners (px, py), panel by panel; their number."""
    m, ray = ORDERS[order], 0
    for p in range(n):
        for j in range(m):
            y = py[p] + NODES[order, j] * size
            for i in range(m):
                xs[ray], ys[ray] = px[p] + NODES[order, i] * size, y
                ray += 1
    return ray


@njit
def spread(px, py, n, size, order, light, lattice, wx, wy):
    """Add the rays of n panels, placed by :func:`place_rays`, to the lattice; wx, wy are (6, 4) scratch."""
    m = ORDERS[order]
    for p in range(n):
        x0, y0 = np.floor(px[p]), np.floor(py[p])
        if p == 0 or size < ONE:  # whole cells share their weights
            for k in range(m):
                node, weight = NODES[order, k] * size, WEIGHTS[order, k] * size
                wx[k, 0], wx[k, 1], wx[k, 2], wx[k, 3] = _spline(px[p] - x0 + node, weight)
                wy[k, 0], wy[k, 1], wy[k, 2], wy[k, 3] = _spline(py[p] - y0 + node, weight)
        iy, ix, ray = int(y0) - 1, int(x0) - 1, p * m * m
        for j in range(m):
            h0, h1, h2, h3 = ZERO, ZERO, ZERO, ZERO
            for i in range(m):
                s = light[ray]
                ray += 1
                h0 += s * wx[i, 0]
                h1 += s * wx[i, 1]
                h2 += s * wx[i, 2]
                h3 += s * wx[i, 3]
            for a in range(4):
                w = wy[j, a]
                lattice[iy + a, ix] += w * h0
                lattice[iy + a, ix + 1] += w * h1
                lattice[iy + a, ix + 2] += w * h2
                lattice[iy + a, ix + 3] += w * h3


@njit
def spread_singles(single, lattice, across):
    """Spread cells with one ray at their centre, ``single[y, x]``, in two passes of four taps; clears it."""
    ny, nx = lattice.shape
    w0, w1 = F32(1.0 / 48.0), F32(23.0 / 48.0)
    for j in range(ny):
        one, to = single[j], across[j, 2:]
        for i in range(nx - 3):
            to[i] = w0 * (one[i] + one[i + 3]) + w1 * (one[i + 1] + one[i + 2])
    for j in range(ny - 3):
        r0, r1, r2, r3, to = across[j], across[j + 1], across[j + 2], across[j + 3], lattice[j + 2]
        for i in range(nx):
            to[i] += w0 * (r0[i] + r3[i]) + w1 * (r1[i] + r2[i])
    single[:] = ZERO
