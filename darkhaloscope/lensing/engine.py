"""The light of a batch on the pixel lattice: drives the panels of every row, one row after the other."""

from __future__ import annotations

import numpy as np

from .fastmath import F32
from .jit import njit
from .panels import N_ORDER, ORDERS, choose_image, choose_sersic
from .rays import image_rays, sersic_rays
from .spread import place_rays, spread, spread_singles

BLOCK = 4  # the first look is at blocks of 4 x 4 cells
MAX_LEVEL = 20  # halvings of a cell; the tolerance stops the splitting long before
FAR_NODES, FAR_WEIGHTS = (0.5 * v for v in np.polynomial.legendre.leggauss(8))  # on [-1/2, 1/2]
FAR_LOG = 3.0  # the far field reaches exp(3) times the lattice's half width


@njit
def _append_children(x, y, edge, parts, limit_x, limit_y, to_x, to_y, count):
    """Append the ``parts x parts`` squares of edge ``edge`` inside a square; returns the new count."""
    for j in range(parts):
        for i in range(parts):
            cx, cy = x + F32(i) * edge, y + F32(j) * edge
            if cx < limit_x and cy < limit_y:
                to_x[count], to_y[count] = cx, cy
                count += 1
    return count


@njit
def _far_flux(c, low_x, high_x, low_y, high_y, xs, ys, out):
    """Flux of a Sersic source outside the lattice's light region, by a product rule on growing squares."""
    half_x, half_y = 0.5 * (high_x - low_x), 0.5 * (high_y - low_y)
    mid_x, mid_y = low_x + half_x, low_y + half_y
    m, total = FAR_NODES.size, 0.0
    for j in range(m):
        growth = np.exp(FAR_LOG * (FAR_NODES[j] + 0.5))
        n = 0
        for i in range(m):
            t = 2.0 * FAR_NODES[i]
            for side in (-1.0, 1.0):
                xs[n], ys[n] = F32(mid_x + side * growth * half_x), F32(mid_y + t * growth * half_y)
                xs[n + 1], ys[n + 1] = F32(mid_x + t * growth * half_x), F32(mid_y + side * growth * half_y)
                n += 2
        sersic_rays(xs, ys, n, c, out)
        for k in range(n):
            area = 2.0 * FAR_WEIGHTS[k // 4] * FAR_WEIGHTS[j] * FAR_LOG * growth * growth * half_x * half_y
            total += area * out[k]
    return total


@njit
def _sort(code, n, level, size, here, lists, count, there, stop):
    """Put n panels where their ``code`` says: in the list of their order, or split in ``there``; its length.

    Blocks (level 0) become their cells: in the list of order 0 if one ray each will do, else in ``there``.
    """
    limit_x, limit_y, room, n_next = F32(stop[1]), F32(stop[0]), there.shape[1], 0
    for p in range(n):
        k, x, y = int(code[p]), here[0, p], here[1, p]
        if k < 0:
            continue
        if level == 0 and k == 0:
            to = lists[0]
            count[0] = _append_children(x, y, F32(1.0), BLOCK, limit_x, limit_y, to[0], to[1], count[0])
        elif level == 0:
            n_next = _append_children(x, y, F32(1.0), BLOCK, limit_x, limit_y, there[0], there[1], n_next)
        elif k == N_ORDER and n_next + 4 <= room:
            n_next = _append_children(x, y, F32(0.5) * size, 2, limit_x, limit_y, there[0], there[1], n_next)
        else:
            k = min(k, N_ORDER - 1)
            lists[k, 0, count[k]], lists[k, 1, count[k]] = x, y
            count[k] += 1
    return n_next


@njit
def _draw(lists, count, level, size, c, images, image, plane, single, across, scratch, weights):
    """Trace and spread the listed panels of one level; returns the number of rays."""
    xs, ys, out, rays = scratch[0], scratch[1], scratch[2], 0
    for k in range(N_ORDER):
        chunk = scratch.shape[1] // (ORDERS[k] * ORDERS[k])
        for start in range(0, count[k], chunk):
            end = min(start + chunk, count[k])
            px, py, n = lists[k, 0, start:end], lists[k, 1, start:end], end - start
            n_ray = place_rays(px, py, n, size, k, xs, ys)
            if image < 0:
                sersic_rays(xs, ys, n_ray, c, out)
            else:
                image_rays(xs, ys, n_ray, c, images[image], out)
            rays += n_ray
            if k == 0 and level == 1:
                for p in range(n):
                    single[int(py[p]), int(px[p])] = out[p]
            else:
                spread(px, py, n, size, k, out, plane, weights[0], weights[1])
    if level == 1:
        spread_singles(single, plane, across)
    return rays


@njit
def light_on_lattice(rows, images, envelopes, image_of, lattice, border, stop, tolerance, far, n_rays):
    """Spread every row's unit-flux lensed source on its lattice.

    Args:
        rows: (n, N_CONST) float32 constants.
        images: (m, y, x) float32 image sources with a border of zeros, or (0, 0, 0).
        envelopes: (m, k) float32, see :func:`panels.choose_image`.
        image_of: (n,) the image of each row, -1 for a Sersic source.
        lattice: (n, ny, nx) float32, zeros; filled.
        border: first lattice point (both axes) with rays of its own, at least 2.
        stop: lattice points (y, x) at which they end, at most the lattice's size less 2.
        tolerance: error allowed to one panel, of the source's flux.
        far: (n,) float64, filled with the flux outside the region that has rays.
        n_rays: (n,) int64, filled with the number of rays and panel estimates.
    """
    ny, nx = lattice.shape[1], lattice.shape[2]
    room = nx * ny + 4096  # panels a level may have; where more are asked for, the highest order has to do
    here, there = np.empty((2, room), np.float32), np.empty((2, room), np.float32)  # lower corners
    lists, count = np.empty((N_ORDER, 2, room), np.float32), np.zeros(N_ORDER, np.int64)
    code, scratch = np.empty(room, np.float32), np.empty((3, room), np.float32)
    single, across = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.float32)
    weights = np.empty((2, 6, 4), np.float32)
    for row in range(rows.shape[0]):
        c, plane, image = rows[row], lattice[row], image_of[row]
        rays, n, size = 0, 0, F32(BLOCK)
        count[:] = 0
        for j in range(border, stop[0], BLOCK):
            for i in range(border, stop[1], BLOCK):
                here[0, n], here[1, n] = F32(i), F32(j)
                n += 1
        for level in range(MAX_LEVEL):
            for p in range(n):
                scratch[0, p], scratch[1, p] = here[0, p] + F32(0.5) * size, here[1, p] + F32(0.5) * size
            parts = F32(BLOCK) if level == 0 else F32(1.0)
            if image < 0:
                choose_sersic(scratch[0], scratch[1], n, size, parts, c, tolerance, code)
            else:
                choose_image(scratch[0], scratch[1], n, size, parts, c, envelopes[image], tolerance, code)
            rays += n
            n_next = _sort(code, n, level, size, here, lists, count, there, stop)
            if level > 0:
                rays += _draw(
                    lists, count, level, size, c, images, image, plane, single, across, scratch, weights
                )
                count[:] = 0
                if n_next == 0:
                    break
            here, there = there, here
            n, size = n_next, F32(1.0) if level == 0 else F32(0.5) * size
        far[row] = 0.0
        if image < 0:
            far[row] = _far_flux(c, border, stop[1], border, stop[0], scratch[0], scratch[1], scratch[2])
        n_rays[row] = rays
