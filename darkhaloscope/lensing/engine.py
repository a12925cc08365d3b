"""The light of a batch on the pixel lattice: drives the panels of every row, one row after the other."""

from __future__ import annotations

import numpy as np

from .fastmath import F32
from .jit import njit
from .panels import BLOCK, N_ORDER, ORDERS, choose_sersic, place_rays, spread
from .rays import sersic_rays

MAX_LEVEL = 20  # halvings of a cell; tolerance stops the splitting long before
ORDER_ARRAY = np.array(ORDERS, np.int64)


@njit
def light_on_lattice(rows, lattice, border, tolerance, nodes, weights, orders, n_rays):  # type: ignore[no-untyped-def]
    """Spread every row's unit-flux lensed source on its lattice.

    Args:
        rows: (n, N_CONST) float32 constants.
        lattice: (n, ny, nx) float32, zeros; filled.
        border: lattice points at each edge that get no rays of their own (at least 1).
        tolerance: error allowed to one panel, of the source's flux.
        nodes: Gauss-Legendre nodes on [0, 1], (order, 6).
        weights: their weights.
        orders: nodes per axis of each order.
        n_rays: (n,) int64, filled with the number of rays used.
    """
    ny, nx = lattice.shape[1], lattice.shape[2]
    cells_y, cells_x = ny - 2 * border - 1, nx - 2 * border - 1
    room = cells_y * cells_x + 4096
    todo_x, todo_y = np.empty(room, np.float32), np.empty(room, np.float32)
    next_x, next_y = np.empty(room, np.float32), np.empty(room, np.float32)
    mid_x, mid_y = np.empty(room, np.float32), np.empty(room, np.float32)
    code, value = np.empty(room, np.int32), np.empty(room, np.float32)
    list_x, list_y = np.empty((N_ORDER, room), np.float32), np.empty((N_ORDER, room), np.float32)
    count = np.empty(N_ORDER, np.int64)
    n_buffer = room * 4
    xs, ys, out = np.empty(n_buffer, np.float32), np.empty(n_buffer, np.float32), np.empty(n_buffer, np.float32)
    wx, wy, corner = np.empty((6, 4), np.float32), np.empty((6, 4), np.float32), np.empty((4, 4), np.float32)

    for row in range(rows.shape[0]):
        c, plane = rows[row], lattice[row]
        rays = 0
        n_todo = 0
        for j in range(0, cells_y, BLOCK):
            for i in range(0, cells_x, BLOCK):
                todo_x[n_todo], todo_y[n_todo] = F32(border + i), F32(border + j)
                n_todo += 1
        size = F32(BLOCK)
        for level in range(MAX_LEVEL):
            half = F32(0.5) * size
            for p in range(n_todo):
                mid_x[p], mid_y[p] = todo_x[p] + half, todo_y[p] + half
            choose_sersic(mid_x, mid_y, n_todo, size, c, tolerance, code, value)
            parts = BLOCK if level == 0 else 2
            child = size / F32(parts)
            count[:] = 0
            n_next = 0
            for p in range(n_todo):
                k = code[p]
                if k < 0:
                    continue
                if k == N_ORDER or level == 0:
                    for j in range(parts):
                        for i in range(parts):
                            x, y = todo_x[p] + F32(i) * child, todo_y[p] + F32(j) * child
                            if n_next < room and x < cells_x + border and y < cells_y + border:
                                next_x[n_next], next_y[n_next] = x, y
                                n_next += 1
                else:
                    q = count[k]
                    list_x[k, q], list_y[k, q] = todo_x[p], todo_y[p]
                    if k == 0:
                        out[q] = value[p]
                    count[k] = q + 1
            spread(list_x[0], list_y[0], count[0], size, 0, 1, out, nodes, weights, plane, wx, wy, corner)
            rays += n_todo
            for k in range(1, N_ORDER):
                m = orders[k]
                chunk = n_buffer // (m * m)
                for start in range(0, count[k], chunk):
                    stop = min(start + chunk, count[k])
                    px, py, n = list_x[k, start:stop], list_y[k, start:stop], stop - start
                    place_rays(px, py, n, size, k, m, nodes, xs, ys)
                    sersic_rays(xs, ys, n * m * m, c, out)
                    spread(px, py, n, size, k, m, out, nodes, weights, plane, wx, wy, corner)
                    rays += n * m * m
            if n_next == 0:
                break
            todo_x, next_x = next_x, todo_x
            todo_y, next_y = next_y, todo_y
            n_todo, size = n_next, child
        n_rays[row] = rays
