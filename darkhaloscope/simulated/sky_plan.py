"""Where the mini sky lies and what is special about each of its bricks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from darkhaloscope.survey.bricks import brick_at, brick_bounds, brick_centre, brick_name, parse_names
from darkhaloscope.survey.wcs import TanWcs

Role = Literal["plain", "bright_star", "edge", "no_g"]


@dataclass(frozen=True)
class BrickPlan:
    """One brick: its name and what is special about it."""

    name: str
    role: Role


PLAN = (
    BrickPlan("3353m025", "plain"),
    BrickPlan("3356m025", "plain"),
    BrickPlan("0195m347", "bright_star"),
    BrickPlan("0296m040", "edge"),
    BrickPlan("2053p020", "no_g"),
    BrickPlan("1905p247", "plain"),
)
"""Bricks in the order they are added. The first two share an edge. Each lies whole inside one HEALPix nside 64
cell; with seed 42 those of the first two are train, of the third val, of the fourth and sixth test, whether
the fractions are 0.7, 0.15, 0.15 or 0.5, 0.25, 0.25."""


@dataclass(frozen=True)
class SkyConfig:
    """What to paint. Two skies of one config are identical.

    seed: changes every object and every pixel. The default's six bricks have typical DR10 conditions: depth r
        24.0 to 25.1, psfsize r 1.20" to 1.53".
    bricks: how many bricks of the plan, 1 to 6.
    size: "smoke", whole survey bricks with realistic statistics, or "small", 600-pixel bricks for unit tests.
    lrg_boost: times the real surface density of target galaxies (2,227 per square degree, 153 a brick); real
        regions reach 4,389. Field galaxies make room, so that total counts stay the published ones.
    faint_r: faintest galaxy painted, AB outside the Galaxy.
    moffat_beta: slope of the point-spread function.
    """

    seed: int = 5
    bricks: int = 6
    size: Literal["small", "smoke"] = "smoke"
    lrg_boost: float = 1.5
    faint_r: float = 25.3
    moffat_beta: float = 2.7

    def __post_init__(self) -> None:
        if not 1 <= self.bricks <= len(PLAN):
            raise ValueError(f"mini sky: bricks is {self.bricks}, expected 1 to {len(PLAN)}")
        if self.size not in ("small", "smoke"):
            raise ValueError(f"mini sky: size is {self.size!r}, expected 'small' or 'smoke'")
        if not 0 < self.lrg_boost <= 20:
            raise ValueError(f"mini sky: lrg_boost is {self.lrg_boost}, expected above 0 and at most 20")

    @property
    def pixels(self) -> int:
        """Side of a brick."""
        return 3600 if self.size == "smoke" else 600

    @property
    def plan(self) -> tuple[BrickPlan, ...]:
        """The bricks to paint."""
        return PLAN[: self.bricks]


def generator(config: SkyConfig, *key: str) -> np.random.Generator:
    """Return the random generator of one thing (such as "noise", brick, band): no other draw moves it."""
    text = "/".join((str(config.seed), *key))
    return np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])))


def brick_wcs(name: str, pixels: int) -> TanWcs:
    """Return a brick's WCS: the survey's, cut down around the centre for small bricks."""
    (ra,), (dec,) = brick_centre(*parse_names([name]))
    return TanWcs.of_brick(float(ra), float(dec), pixels)


def bricks_touched(wcs: TanWcs, margin: int) -> list[str]:
    """Return the names of the bricks whose primary areas lie under the image or `margin` pixels around it."""
    grid = np.linspace(-margin, wcs.width - 1 + margin, 9)
    ra, dec = wcs.pixel_to_sky(*np.meshgrid(grid, grid))
    row, column = brick_at(ra.ravel(), dec.ravel())
    unique = np.unique(np.stack([row, column], axis=1), axis=0)
    return sorted(str(n) for n in brick_name(unique[:, 0], unique[:, 1]))


def brick_area_deg2(name: str) -> float:
    """Return the area of a brick's primary region."""
    ra1, ra2, dec1, dec2 = (float(v[0]) for v in brick_bounds(*parse_names([name])))
    return (ra2 - ra1) * np.degrees(np.sin(np.radians(dec2)) - np.sin(np.radians(dec1)))
