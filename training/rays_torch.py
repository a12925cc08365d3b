"""The ray formulas of the CPU renderer in torch: any device, float32, branch-free, batched over panels.

Each function restates one function of `darkhaloscope.lensing`, which its docstring names and which stays the
source of truth; the constants of a row (``c``, packed by `rays.pack_sersic` and `rays.pack_image`) and all
coefficients are imported from there. ``c`` is (N_CONST, ...): its trailing axes broadcast with the positions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from darkhaloscope.lensing import rays
from darkhaloscope.lensing.panels import CUSP, DIM, GRAIN, N_ORDER, ORDERS, SMOOTH
from darkhaloscope.lensing.rays import ALPHA, AXIS, CENTRE, COS, F2, GAP, POWER, SIN, SLOPE, WX, WY, X0, Y0, Q

from darkhaloscope.lensing.rays import PXX, PXY, PYX, PYY, RXX, RXY, RYX, RYY  # isort: skip

DARK = N_ORDER + 1  # code of a panel without light; N_ORDER is "split", lower ones are indices into ORDERS
TINY = float(rays.TINY)


def _ratio(function: Callable[[Tensor], Tensor], z2: Tensor) -> Tensor:
    """``function(z) / z`` of z squared, 1 at 0 (`deflectors._ratio`)."""
    z = torch.sqrt(z2 + TINY)
    return function(z) / z


def _atanh(z: Tensor) -> Tensor:
    """``atanh(z)``; compiled for a CPU, torch 2.13's own is 6 % off at z = 1e-6."""
    return 0.5 * torch.log1p(2.0 * z / (1.0 - z))


def sie_deflection(x: Tensor, y: Tensor, alpha: Tensor, q: Tensor, f2: Tensor) -> tuple[Tensor, ...]:
    """Deflection of the SIE in its major axis' frame, as `deflectors.sie_deflection`.

    Args:
        x: position along the major axis, arcsec.
        y: position across it.
        alpha: ``2 theta_e sqrt(q)``, arcsec.
        q: axis ratio.
        f2: ``1 - q^2``.

    Returns:
        alpha_x, alpha_y, and the radii ``r = hypot(x, y)`` and ``psi = hypot(q x, y)``.
    """
    r = torch.sqrt(x * x + y * y + TINY)
    psi = torch.sqrt(q * q * x * x + y * y + TINY)
    to_x, to_y = x / (psi + r), y / (psi + q * r)
    ax = alpha * to_x * _ratio(torch.atan, f2 * to_x * to_x)
    ay = alpha * to_y * _ratio(_atanh, f2 * to_y * to_y)
    return ax, ay, r, psi


def to_source(x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """Source-frame position of rays, their place and radii r, psi in the deflector's frame (`rays.to_source`)."""
    dx, dy = x - c[X0], y - c[Y0]
    tx, ty = c[COS] * dx + c[SIN] * dy, c[COS] * dy - c[SIN] * dx
    ax, ay, r, psi = sie_deflection(tx, ty, c[ALPHA], c[Q], c[F2])
    wx = c[PXX] * tx + c[PXY] * ty - c[RXX] * ax - c[RXY] * ay - c[WX]
    wy = c[PYX] * tx + c[PYY] * ty - c[RYX] * ax - c[RYY] * ay - c[WY]
    return wx, wy, tx, ty, r, psi


def sersic_rays(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """Surface brightness of the Sersic sources at lattice positions, flux per cell (`rays.sersic_rays`)."""
    wx, wy, *_ = to_source(x, y, c)
    e2 = wx * wx + wy * wy + TINY
    return c[CENTRE] * torch.exp2(-c[SLOPE] * torch.exp2(c[POWER] * torch.log2(e2)))


def image_rays(x: Tensor, y: Tensor, c: Tensor, image: Tensor, pixels: Tensor) -> Tensor:
    """Bilinear brightness of image sources at lattice positions, flux per cell (`rays.image_rays`).

    Args:
        x: lattice positions.
        y: see ``x``.
        c: constants.
        image: index into ``pixels``, broadcasting with the positions.
        pixels: (m, y, x) unit stamps with a border of zeros, `pixelised.unit_stamps`.
    """
    wx, wy, *_ = to_source(x, y, c)
    ny, nx = pixels.shape[1:]
    u = (wx + 0.5 * (nx - 1)).clamp(0.0, nx - 1 - 1e-3)
    v = (wy + 0.5 * (ny - 1)).clamp(0.0, ny - 1 - 1e-3)
    left, low = torch.floor(u), torch.floor(v)
    a, b = u - left, v - low
    at = (image * ny + low.long()) * nx + left.long()
    flat = pixels.reshape(-1)
    bottom = torch.lerp(flat[at], flat[at + 1], a)
    top = torch.lerp(flat[at + nx], flat[at + nx + 1], a)
    return c[CENTRE] * torch.lerp(bottom, top, b)


def _footprint(x: Tensor, y: Tensor, step: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where a square of edge ``step`` (arcsec) lands: distance, size, and step / r (`panels._footprint`)."""
    wx, wy, tx, ty, r, psi = to_source(x, y, c)
    close = step / r
    kappa2 = 0.5 * c[ALPHA] / (psi * (1.0 - 0.5 * close).clamp(min=0.5))
    ux, uy = -ty / r, tx / r
    bx, by = kappa2 * (c[RXX] * ux + c[RXY] * uy), kappa2 * (c[RYX] * ux + c[RYY] * uy)
    jxx, jxy, jyx, jyy = c[PXX] - bx * ux, c[PXY] - bx * uy, c[PYX] - by * ux, c[PYY] - by * uy
    stretch = torch.sqrt(jxx * jxx + jxy * jxy + jyx * jyx + jyy * jyy)
    return torch.sqrt(wx * wx + wy * wy), step * stretch, close


def _code(light: Tensor, errors: list[Tensor], tolerance: float) -> Tensor:
    """The lowest rule whose error is below the tolerance, ``N_ORDER`` where none is, ``DARK`` where no light."""
    code = torch.zeros_like(light, dtype=torch.uint8)
    for error in errors:
        code += error > tolerance
    return torch.where(light > float(DIM) * tolerance, code, DARK)


def choose_sersic(x: Tensor, y: Tensor, size: Tensor, parts: int, c: Tensor, tolerance: float) -> Tensor:
    """Which rule each square panel of a Sersic source gets (`panels.choose_sersic`).

    Args:
        x: centres of the squares on the lattice.
        y: see ``x``.
        size: () edge of the squares, lattice cells.
        parts: each square will be covered by ``parts x parts`` panels.
        c: constants.
        tolerance: error allowed to a panel, of the source's flux.

    Returns:
        uint8 codes: index into `panels.ORDERS`, N_ORDER to split, DARK for no light worth a ray.
    """
    step = size * torch.sqrt(c[COS] * c[COS] + c[SIN] * c[SIN])
    panel = size / parts
    e, delta, close = _footprint(x, y, step, c)
    central = close > 1.0
    gap = c[GAP] - 1.5 * step * c[AXIS]
    inner = torch.where(central, gap.clamp(min=0.0), torch.maximum(e - 0.5 * delta, 0.03 * delta)) + 1e-6
    profile = torch.exp2(2.0 * c[POWER] * torch.log2(inner))
    light = panel * panel * c[CENTRE] * torch.exp2(-c[SLOPE] * profile)
    rate = c[SLOPE] * c[POWER] * (2.0 * float(np.log(2.0)))
    t = (delta / (parts * torch.maximum(inner, 0.3 * delta)) * rate * profile).clamp(max=30.0)
    ratio = torch.maximum(delta / (2.0 * e + 1e-6), 0.5 * close).clamp(0.05, 1.0)
    ratio = torch.where(central, 1.0, ratio)
    kink = light * torch.where(central, 1.0, t.clamp(max=1.0))
    a, b = (t + panel) ** 2, ratio * ratio
    rules = zip(ORDERS, SMOOTH, CUSP, strict=True)
    errors = [light * a**m * float(smooth) + kink * b**m * float(cusp) for m, smooth, cusp in rules]
    return _code(light, errors, tolerance)


def choose_image(
    x: Tensor,
    y: Tensor,
    size: Tensor,
    parts: int,
    c: Tensor,
    tolerance: float,
    image: Tensor,
    envelopes: Tensor,
) -> Tensor:
    """Which rule each square panel of an image source gets (`panels.choose_image`).

    Args:
        x: centres of the squares on the lattice.
        y: see ``x``.
        size: () edge of the squares, lattice cells.
        parts: each square will be covered by ``parts x parts`` panels.
        c: constants.
        tolerance: error allowed to a panel, of the source's flux.
        image: index into ``envelopes``, broadcasting with the positions.
        envelopes: (m, k) highest brightness at k or more source pixels from the middle.

    Returns:
        Codes as of :func:`choose_sersic`.
    """
    step = size * torch.sqrt(c[COS] * c[COS] + c[SIN] * c[SIN])
    panel = size / parts
    e, delta, close = _footprint(x, y, step, c)
    central = close > 1.0
    inner = torch.where(central, c[GAP] - 1.5 * step * c[AXIS], e - 0.5 * delta - 1.0)
    last = envelopes.shape[1]
    at = image * last + inner.clamp(0.0, last - 1.0).long()
    light = panel * panel * c[CENTRE] * envelopes.reshape(-1)[at]
    spacing = delta / parts
    grain = light * float(GRAIN) * spacing**3
    kink = torch.where(central, light, 0.0)
    first, *middle, last_rule = ORDERS
    errors = [grain / first**3 + 0.5 * light * spacing, *(grain / m**3 + kink for m in middle)]
    return _code(light, [*errors, grain / last_rule**3 + kink * float(CUSP[-1])], tolerance)
