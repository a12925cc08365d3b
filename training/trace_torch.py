"""Light of a batch on the pixel lattice, on any torch device: the twin of `darkhaloscope.lensing.engine`.

Panels of all rows are refined together, one level after the other: choose a rule for every panel, sort by rule,
spread the rays of those that are good enough, split the rest. The host waits for the device once a level, to
learn how many panels each rule got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from darkhaloscope.lensing.engine import BLOCK, FAR_LOG, FAR_NODES, FAR_WEIGHTS, MAX_LEVEL
from darkhaloscope.lensing.panels import N_ORDER, ORDERS
from darkhaloscope.lensing.pixelised import unit_stamps
from darkhaloscope.lensing.render import BORDER, Lattice
from darkhaloscope.lensing.spread import NODES, WEIGHTS
from training.rays_torch import DARK, choose_image, choose_sersic, image_rays, sersic_rays

Panels = tuple[Tensor, Tensor, Tensor]  # row, and lower corner x, y on the lattice; each (p,)


@dataclass(frozen=True)
class SourceBank:
    """Image sources on a device.

    Attributes:
        pixels: (m, y, x) float32 unit stamps with a border of zeros.
        envelopes: (m, k) float32 highest brightness at k or more pixels from the middle.
    """

    pixels: Tensor
    envelopes: Tensor

    @staticmethod
    def of(stamps: np.ndarray, device: torch.device | str) -> SourceBank:
        """Put the stamps (m, y, x) of a `SourceImages` on a device, once for many batches."""
        return SourceBank(*(torch.from_numpy(a).to(device) for a in unit_stamps(stamps)))


@dataclass(frozen=True)
class Source:
    """What panels of the rows of one kind of source are asked.

    Attributes:
        choose: (x, y, size, parts, c, row) -> codes of p squares, see `rays_torch.choose_sersic`.
        square: (px, py, nodes, weights, whole, c, row) -> light (p, 4, 4) of p panels on the lattice points around,
            see `rays_of`.
    """

    choose: Callable[..., Tensor]
    square: Callable[..., Tensor]


def make_source(image_of: Tensor, bank: SourceBank | None, tolerance: float, fused: bool) -> Source:
    """The source of every row: Sersic where there is no bank, else the bank's images ``image_of`` (n,)."""
    wrap = _compiled if fused else (lambda function: function)
    if bank is None:
        return Source(partial(wrap(_sersic_codes), tolerance=tolerance), wrap(_sersic_square))
    bank_of = {"image_of": image_of, "pixels": bank.pixels}
    codes = partial(wrap(_image_codes), tolerance=tolerance, image_of=image_of, envelopes=bank.envelopes)
    return Source(codes, partial(wrap(_image_square), **bank_of))


@lru_cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(function, dynamic=True)


# What is compiled, if anything is: from panels to codes, and from panels to squares of light.


def _sersic_codes(x, y, size, parts, c, row, tolerance):
    return choose_sersic(x, y, size, parts, c[:, row], tolerance)


def _image_codes(x, y, size, parts, c, row, tolerance, image_of, envelopes):
    return choose_image(x, y, size, parts, c[:, row], tolerance, image_of[row], envelopes)


def _sersic_square(px, py, nodes, weights, whole, c, row):
    x, y, wx, wy = rays_of(px, py, nodes, weights, whole)
    return gather(sersic_rays(x, y, c[:, row, None, None]), wx, wy)


def _image_square(px, py, nodes, weights, whole, c, row, image_of, pixels):
    x, y, wx, wy = rays_of(px, py, nodes, weights, whole)
    return gather(image_rays(x, y, c[:, row, None, None], image_of[row, None, None], pixels), wx, wy)


def rays_of(px: Tensor, py: Tensor, nodes: Tensor, weights: Tensor, whole: bool) -> tuple[Tensor, ...]:
    """Places x (p, 1, m), y (p, m, 1) of the rays of panels, and their weights (p or 1, m, 4) along each axis.

    Args:
        px: (p,) lower corners of the panels on the lattice.
        py: see ``px``.
        nodes: (m,) of the panels' rule, from their corners.
        weights: (m, 1) of the rule.
        whole: the panels are whole cells, which share their weights.
    """
    x, y = (px[:, None] + nodes)[:, None], (py[:, None] + nodes)[:, :, None]
    if whole:
        weight = (spline(nodes) * weights)[None]
        return x, y, weight, weight
    wx, wy = (spline((p - torch.floor(p))[:, None] + nodes) * weights for p in (px, py))
    return x, y, wx, wy


def gather(rays: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """Sum rays (p, m, m) onto the 4 x 4 lattice points around their panel, weights (p or 1, m, 4) per axis.

    Two products of small matrices, written as sums: a matrix product would be rounded to TF32 on a GPU whose
    trainer allows that.
    """
    across = (rays[..., None] * wx[:, None]).sum(2)
    return (across[:, :, None] * wy[..., None]).sum(1)


def trace(c: Tensor, source: Source, lattice: Lattice, rays_at_once: int) -> tuple[Tensor, int]:
    """Spread every row's unit-flux lensed source on its lattice, as `engine.light_on_lattice`.

    Args:
        c: (N_CONST, n) constants of the rows.
        source: their sources.
        lattice: theirs.
        rays_at_once: upper limit of rays in flight, which bounds the memory.

    Returns:
        (n, y, x) float32 light, and the number of rays and panel estimates.
    """
    light = torch.zeros((c.shape[1], *lattice.size), device=c.device)
    panels, edge, rays = _blocks(c, lattice.stop), float(BLOCK), 0
    for level in range(MAX_LEVEL):
        parts = BLOCK if level == 0 else 1
        rays += len(panels[0])
        by_rule = _sort(panels, c, source, edge, parts, rays_at_once, last=level == MAX_LEVEL - 1)
        if level == 0:  # a block where one ray a cell will do needs no second look
            edge = 1.0
            easy = _inside(_split(by_rule[0], edge, BLOCK), lattice.stop)
            _spread(light, easy, c, source, edge, 0, rays_at_once)
            rays += len(easy[0])
            rest = [torch.cat(v) for v in zip(*by_rule[1:], strict=True)]
            panels = _inside(_split((rest[0], rest[1], rest[2]), edge, BLOCK), lattice.stop)
            continue
        for k, m in enumerate(ORDERS):
            _spread(light, by_rule[k], c, source, edge, k, rays_at_once)
            rays += len(by_rule[k][0]) * m * m
        edge *= 0.5
        panels = _split(by_rule[N_ORDER], edge, 2)
        if not len(panels[0]):
            break
    return light, rays


def _blocks(c: Tensor, stop: tuple[int, int]) -> Panels:
    """The squares of the first look: BLOCK cells wide, from BORDER to ``stop``, in every row."""
    y, x = (torch.arange(BORDER, end, BLOCK, device=c.device, dtype=torch.float32) for end in stop)
    row = torch.arange(c.shape[1], device=c.device)[:, None, None]
    return tuple(v.flatten() for v in torch.broadcast_tensors(row, x, y[:, None]))


def _inside(cells: Panels, stop: tuple[int, int]) -> Panels:
    """The cells before ``stop``; blocks reach beyond it where they do not divide the region."""
    if all((end - BORDER) % BLOCK == 0 for end in stop):
        return cells
    row, x, y = cells
    inside = torch.nonzero((x < stop[1]) & (y < stop[0])).squeeze(1)  # once: it waits for the device
    return row[inside], x[inside], y[inside]


def _split(panels: Panels, edge: float, parts: int) -> Panels:
    """The ``parts x parts`` panels of edge ``edge`` inside each panel."""
    row, x, y = panels
    step = torch.arange(parts, device=x.device, dtype=torch.float32) * edge
    y, x = torch.broadcast_tensors((y[:, None] + step)[:, :, None], (x[:, None] + step)[:, None, :])
    return row.repeat_interleave(parts * parts), x.flatten(), y.flatten()


def _chunks(panels: Panels, at_once: int) -> Iterator[Panels]:
    """The panels, ``at_once`` of them at a time; nothing where there are none."""
    if 0 < len(panels[0]) <= at_once:
        yield panels  # not a view of itself: compiled functions are compiled anew for views
    elif len(panels[0]):
        yield from zip(*(v.split(at_once) for v in panels), strict=True)


def _sort(
    panels: Panels, c: Tensor, source: Source, edge: float, parts: int, at_once: int, last: bool
) -> list[Panels]:
    """The panels by the rule each one gets: one entry per order, then those to split; dark ones are dropped."""
    codes = []
    size = torch.full((), edge, device=c.device)
    for row, x, y in _chunks(panels, at_once):
        half = 0.5 * edge
        codes.append(source.choose(x + half, y + half, size, parts, c, row))
    code = torch.cat(codes) if codes else torch.zeros(0, dtype=torch.uint8, device=c.device)
    if last:
        code = torch.where(code == N_ORDER, N_ORDER - 1, code)
    code, order = torch.sort(code, stable=True)
    edges = torch.searchsorted(code, torch.arange(DARK + 1, dtype=torch.uint8, device=c.device))
    edges = (
        edges.tolist()
    )  # waits for the device, the one time on a level; bincount would wait for itself too
    rules = [order[a:b] for a, b in pairwise(edges)]
    return [(panels[0][rule], panels[1][rule], panels[2][rule]) for rule in rules]


@lru_cache
def _nodes(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights of rule k on [0, 1]."""
    nodes, weights = (torch.from_numpy(table[k, : ORDERS[k]].copy()) for table in (NODES, WEIGHTS))
    return nodes.to(device), weights.to(device)


def spline(t: Tensor) -> Tensor:
    """Weights (..., 4) of the four lattice points around a point at fraction t of its cell (`spread._spline`)."""
    s = 1.0 - t
    inner = [4.0 - 6.0 * u * u + 3.0 * u * u * u for u in (t, s)]
    return torch.stack([s * s * s, *inner, t * t * t], -1) / 6.0


def _spread(
    light: Tensor, panels: Panels, c: Tensor, source: Source, edge: float, k: int, at_once: int
) -> None:
    """Add the rays of panels with rule k to the lattices, as `spread.spread`."""
    m, (_, ny, nx) = ORDERS[k], light.shape
    nodes, weights = _nodes(k, light.device)
    nodes, weights = nodes * edge, (weights * edge)[:, None]
    points = torch.arange(4, device=light.device)
    points = points[:, None] * nx + points
    for row, px, py in _chunks(panels, max(1, at_once // (m * m))):
        square = source.square(px, py, nodes, weights, edge == 1.0, c, row)
        corner = (row * ny + py.floor().long() - 1) * nx + px.floor().long() - 1
        light.view(-1).index_add_(0, (corner[:, None, None] + points).flatten(), square.flatten())


@lru_cache
def _far_rays(stop: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Places x, y and areas of the rays of `engine._far_flux`: a product rule on growing squares."""
    half_y, half_x = (0.5 * (end - BORDER) for end in stop)
    growth = np.exp(FAR_LOG * (FAR_NODES + 0.5))[:, None]
    along, side = growth * 2.0 * FAR_NODES, np.repeat(growth, len(FAR_NODES), 1)
    area = 2.0 * FAR_WEIGHTS * FAR_WEIGHTS[:, None] * FAR_LOG * growth**2 * half_x * half_y
    u, v = np.stack([-side, side, along, along]), np.stack([along, along, -side, side])
    rays = (BORDER + half_x + u * half_x, BORDER + half_y + v * half_y, np.broadcast_to(area, u.shape))
    return tuple(torch.from_numpy(r.reshape(-1).astype(np.float32)).to(device) for r in rays)  # type: ignore[return-value]


def far_flux(c: Tensor, stop: tuple[int, int]) -> Tensor:
    """Flux (n,) of Sersic sources outside the region that has rays (`engine._far_flux`)."""
    x, y, area = _far_rays(stop, c.device)
    return (sersic_rays(x, y, c[:, :, None]) * area).sum(1)
