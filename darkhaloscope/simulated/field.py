"""A field: a small piece of simulated sky with many target galaxies on it, for shards made where they are used.

Target galaxies are as real ones, but denser: one in each cell of a lattice, a little off its middle, so that a stamp
shows one host, its neighbours and the sky. All else is the simulated sky's: counts of galaxies and stars, seeing,
depth, masks, noise. A share of the targets is made peculiar (`MIMICS`): what a finder takes for lenses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from darkhaloscope.draws import digest, uniforms
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.simulated import observing, populations
from darkhaloscope.simulated.brick import MARGIN, expose, gather
from darkhaloscope.simulated.catalogue import measure
from darkhaloscope.simulated.populations import Objects
from darkhaloscope.simulated.sky_plan import BrickPlan, SkyConfig, brick_wcs, generator
from darkhaloscope.survey.bricks import brick_id, brick_name
from darkhaloscope.survey.catalogue import Catalogue, catalogue_of
from darkhaloscope.survey.coadds import Cutout
from darkhaloscope.survey.one_by_one import OneByOne
from darkhaloscope.survey.wcs import TanWcs

PITCH = 96  # pixels between neighbouring targets: beyond a stamp of 64 there is only the wing of the next one
JITTER = 8.0  # pixels a target may be off the middle of its cell
ROWS = (280, 480)  # of the survey's brick grid: Dec -20 to +30
MIMICS = ("ring", "companions", "edge_on", "merger")
SHINE_IN = 40  # pixels beyond the border from which objects shine in
FRESH_PIXELS = 4  # a catalogued galaxy this near to a lattice target is that target


@dataclass(frozen=True)
class FieldPlan:
    """What fields are like.

    seed: of everything. cells: targets along a side. mimics: share of the targets that are peculiar.
    faint_r, moffat_beta: as of `sky_plan.SkyConfig`.
    """

    seed: int
    cells: int = 8
    mimics: float = 0.1
    faint_r: float = 25.3
    moffat_beta: float = 2.7


@dataclass(frozen=True)
class MemoryBrick(OneByOne):
    """An image with its catalogue's sky, in memory: what `injection.stamps` needs of a brick."""

    brickname: str
    wcs: TanWcs
    image: np.ndarray  # (band, y, x) float32, nmgy/pixel
    invvar: np.ndarray  # (band, y, x) float32
    maskbits: np.ndarray  # (y, x) int32
    psfsize_maps: np.ndarray  # (band, y, x) float32, arcsec

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return 0-based x, y of positions in degrees."""
        return self.wcs.sky_to_pixel(ra, dec)

    def cut(self, x0: int, y0: int, size: int) -> Cutout:
        """Return the square whose first pixel is (x0, y0).

        Raises:
            ValueError: it reaches beyond the image.
        """
        if not (0 <= x0 <= self.wcs.width - size and 0 <= y0 <= self.wcs.height - size):
            raise ValueError(
                f"{self.brickname}: a stamp of {size} pixels at ({x0}, {y0}) is not inside the field"
            )
        here = (..., slice(y0, y0 + size), slice(x0, x0 + size))
        return Cutout(self.image[here], self.invvar[here], self.maskbits[here], True, 0, 0)

    def psfsize(self, x: float, y: float) -> tuple[np.ndarray, str]:
        """Return the survey's PSF size per band, arcsec, and where it is from."""
        return self.psfsize_maps[:, int(y + 0.5), int(x + 0.5)], "map"


@dataclass(frozen=True)
class Field:
    """A painted field.

    brick: its pixels. catalogue: what the survey would have measured. gains: (band,) electrons per nmgy.
    mimics: name of a peculiar kind -> (n, 2) pixels of the targets that are of it.
    """

    brick: MemoryBrick
    catalogue: Catalogue
    gains: np.ndarray
    mimics: dict[str, np.ndarray]


def field_names(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Return the bricks that fields lie at the centres of, (n,) str, another for each number."""
    rows = np.arange(*ROWS)
    first = brick_id(rows, np.zeros_like(rows))
    total = int(brick_id(np.array([ROWS[1]]), np.array([0]))[0] - first[0])
    start = int(uniforms([digest("fields", seed)], 0, 1)[0, 0] * total)
    step = round(0.6180339887 * total)  # golden ratio: neighbouring numbers lie far apart
    while np.gcd(step, total) > 1:
        step += 1
    place = first[0] + (start + np.asarray(numbers) * step) % total
    row = np.searchsorted(first, place, side="right") - 1
    return brick_name(rows[row], place - first[row])


def paint_field(plan: FieldPlan, name: str) -> Field:
    """Paint the field at the centre of a brick, and measure it as the survey would."""
    sky = SkyConfig(seed=plan.seed, moffat_beta=plan.moffat_beta, faint_r=plan.faint_r)
    draws = partial(generator, sky, "field")
    wcs = brick_wcs(name, plan.cells * PITCH)
    conditions = observing.draw_conditions(draws("conditions", name))
    objects, mimics = _objects(plan, draws("sources", name), wcs, conditions.ebv)
    image, invvar, observed = expose(
        objects, wcs, BrickPlan(name, "plain"), conditions, draws, plan.moffat_beta
    )
    columns = {k.lower(): v for k, v in measure(draws("measure", name), objects, observed).items()}
    sigma = np.array([conditions.sky_sigma(b) for b in BANDS])
    gains = np.array([observing.SKY_BRIGHTNESS[b] for b in BANDS]) / sigma**2
    brick = MemoryBrick(name, wcs, image, invvar, observed.maskbits, observed.psfsize)
    return Field(brick, catalogue_of(columns, f"simulated field {name}"), gains, mimics)


def _objects(
    plan: FieldPlan, rng: np.random.Generator, wcs: TanWcs, ebv: float
) -> tuple[Objects, dict[str, np.ndarray]]:
    """Draw the objects of a field, with x, y, ra, dec; and where the peculiar targets are."""
    side = wcs.width + 2 * SHINE_IN
    area = (side * PIXEL_SCALE_ARCSEC / 3600.0) ** 2
    galaxies = populations.draw_galaxies(rng, area, ebv, plan.faint_r, 1.0)
    sky = populations.concatenate([galaxies, populations.draw_stars(rng, area, ebv, plan.faint_r)])
    sky |= {k: rng.uniform(-SHINE_IN, wcs.width + SHINE_IN, len(sky["q"])) for k in ("x", "y")}
    targets = populations.draw_lrgs(rng, plan.cells**2)
    middle = PITCH * (np.arange(plan.cells) + 0.5)
    at = np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
    at = at + rng.uniform(-JITTER, JITTER, at.shape)
    targets |= {"x": at[:, 0], "y": at[:, 1]}
    peculiar, mimics = np.flatnonzero(rng.random(len(at)) < plan.mimics), {}
    parts = [sky, targets]
    for kind, members in zip(MIMICS, np.array_split(rng.permutation(peculiar), len(MIMICS)), strict=True):
        mimics[kind] = at[members]
        parts += [_peculiar(rng, kind, {k: v[i : i + 1] for k, v in targets.items()}) for i in members]
        if kind == "edge_on":
            targets["q"][members] = rng.uniform(0.12, 0.25, len(members))
    objects = populations.concatenate(parts)
    objects["ra"], objects["dec"] = wcs.pixel_to_sky(objects["x"], objects["y"])
    fixed = len(sky["q"])  # company gathers around targets; targets and their parts stay
    company = {k: v[:fixed].copy() for k, v in objects.items()}
    gather(rng, company)
    for axis in ("ra", "dec"):
        objects[axis][:fixed] = company[axis]
    objects["x"], objects["y"] = wcs.sky_to_pixel(objects["ra"], objects["dec"])
    near = np.all([(objects[k] > -MARGIN) & (objects[k] < wcs.width + MARGIN) for k in ("x", "y")], axis=0)
    return {k: v[near] for k, v in objects.items()}, mimics


def _peculiar(rng: np.random.Generator, kind: str, target: dict[str, Any]) -> Objects:
    """Return what surrounds a peculiar target: blue knots in a ring, a few companions, a second nucleus, nothing."""
    count = {"ring": 14, "companions": int(rng.integers(1, 4)), "edge_on": 0, "merger": 1}[kind]
    around = {k: np.repeat(v, count) for k, v in target.items()}
    radius = rng.uniform(1.2, 2.8) if kind == "ring" else rng.uniform(0.9, 2.6, count)
    angle = 2 * np.pi * (np.arange(count) + rng.random()) / max(count, 1)
    angle = angle if kind == "ring" else rng.uniform(0, 2 * np.pi, count)
    squeeze = rng.uniform(0.6, 1.0) if kind == "ring" else 1.0
    around["x"] = around["x"] + radius * np.cos(angle) / PIXEL_SCALE_ARCSEC
    around["y"] = around["y"] + squeeze * radius * np.sin(angle) / PIXEL_SCALE_ARCSEC
    if kind == "merger":
        fainter = {"g": 0.7, "r": 0.7, "z": 0.7, "w1": 0.7}
    else:  # star-forming: bluer than the target by about a magnitude in g - r
        total = rng.uniform(1.5, 2.8) + (2.5 * np.log10(max(count, 1)) if kind == "ring" else 0.0)
        fainter = {"g": total - 0.9, "r": total, "z": total + 0.6, "w1": total + 1.5}
        around |= {"reff_arcsec": np.full(count, 0.35), "n": np.ones(count), "q": np.full(count, 0.8)}
        around["type"] = np.full(count, "EXP", around["type"].dtype)
        around["kind"] = np.full(count, "field", around["kind"].dtype)
    for band, dimmer in fainter.items():
        around[f"mag_{band}"] = around[f"mag_{band}"] + dimmer
    return around


def mimic_of(field: Field, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which peculiar kind each position is of, (n,) str; "" for none."""
    found = np.full(len(x), "", object)
    for kind, at in field.mimics.items():
        far = np.hypot(x[:, None] - at[:, 0], y[:, None] - at[:, 1])
        found[(far < FRESH_PIXELS).any(axis=1)] = kind
    return found
