"""One brick of the mini sky, in memory: what shines on it, how it was observed, what pixels come out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from darkhaloscope.records import BANDS
from darkhaloscope.simulated import observing, populations
from darkhaloscope.simulated.catalogue import Observed, in_primary
from darkhaloscope.simulated.noise import correlated_noise
from darkhaloscope.simulated.observing import Conditions, draw_conditions
from darkhaloscope.simulated.painter import paint_objects
from darkhaloscope.simulated.populations import Objects
from darkhaloscope.simulated.sky_plan import (
    BrickPlan,
    SkyConfig,
    brick_area_deg2,
    brick_wcs,
    bricks_touched,
    generator,
)
from darkhaloscope.survey.bricks import brick_bounds, parse_names
from darkhaloscope.survey.maskbits import BITS
from darkhaloscope.survey.wcs import TanWcs

EDGE_AT = 0.62  # of the edge brick's width is covered
SATELLITE_SHARE = 0.15  # of the galaxies with g-r above 0.9 lie around an LRG
MARGIN = 300  # pixels around a brick from which sources may shine in
BRIGHT_STAR = {"mag_g": 9.1, "mag_r": 8.5, "mag_z": 8.2, "mag_w1": 9.5}


def conditions_of(config: SkyConfig, name: str) -> Conditions:
    """Return the observing conditions of any brick of the sky, painted or not."""
    return draw_conditions(generator(config, "conditions", name))


def sources_of(config: SkyConfig, name: str) -> Objects:
    """Return all objects of one brick's primary area, with ra, dec: the same whichever image they shine into."""
    rng = generator(config, "sources", name)
    area, ebv = brick_area_deg2(name), conditions_of(config, name).ebv
    galaxies = populations.draw_galaxies(rng, area, ebv, config.faint_r, config.lrg_boost)
    objects = populations.concatenate([galaxies, populations.draw_stars(rng, area, ebv, config.faint_r)])
    ra1, ra2, dec1, dec2 = (float(v[0]) for v in brick_bounds(*parse_names([name])))
    count = len(objects["q"])
    sine = np.sin(np.radians([dec1, dec2]))
    objects["ra"] = rng.uniform(ra1, ra2, count)
    objects["dec"] = np.degrees(np.arcsin(rng.uniform(sine[0], sine[1], count)))
    gather(rng, objects)
    return objects


def gather(rng: np.random.Generator, objects: Objects) -> None:
    """Move a share of the redder galaxies next to LRGs, in place: massive galaxies have company.

    Surface density falls as 1 / distance between 2" and 45", about a group's profile at z = 0.4.
    """
    lrgs = np.flatnonzero(objects["kind"] == "lrg")
    movable = (objects["kind"] != "star") & (objects["mag_g"] - objects["mag_r"] > 0.9)
    moved = np.flatnonzero(movable & (rng.random(len(movable)) < SATELLITE_SHARE))
    if not len(lrgs):
        return
    host = lrgs[rng.integers(0, len(lrgs), len(moved))]
    distance, angle = rng.uniform(2.0, 45.0, len(moved)) / 3600.0, rng.uniform(0.0, 2.0 * np.pi, len(moved))
    dec = objects["dec"][host]
    objects["ra"][moved] = (objects["ra"][host] + distance * np.cos(angle) / np.cos(np.radians(dec))) % 360.0
    objects["dec"][moved] = dec + distance * np.sin(angle)


def sources_under(config: SkyConfig, plan: BrickPlan, wcs: TanWcs) -> Objects:
    """Return the objects that shine into a brick's image, with x, y pixels added."""
    parts = [sources_of(config, name) for name in bricks_touched(wcs, MARGIN)]
    if plan.role == "bright_star":
        parts.append(_bright_star(wcs))
    objects = populations.concatenate(parts)
    objects["x"], objects["y"] = wcs.sky_to_pixel(objects["ra"], objects["dec"])
    reach = np.where(objects["mag_r"] < 18.0, MARGIN, 40)
    near = (objects["x"] > -reach) & (objects["x"] < wcs.width + reach)
    near &= (objects["y"] > -reach) & (objects["y"] < wcs.height + reach)
    return {name: values[near] for name, values in objects.items()}


def _bright_star(wcs: TanWcs) -> Objects:
    ra, dec = wcs.pixel_to_sky(np.array([0.62 * wcs.width]), np.array([0.45 * wcs.height]))
    star: Objects = {"kind": np.array(["star"]), "type": np.array(["PSF"]), "ra": ra, "dec": dec}
    star |= {name: np.array([value]) for name, value in BRIGHT_STAR.items()}
    return star | {
        name: np.array([v]) for name, v in {"reff_arcsec": 0.0, "q": 1.0, "phi_rad": 0.0, "n": 0.0}.items()
    }


def observe(config: SkyConfig, plan: BrickPlan) -> tuple[np.ndarray, np.ndarray, Observed, Objects]:
    """Paint and observe one brick, in memory.

    Returns:
        image (band, y, x) nmgy/pixel and invvar (band, y, x), float32; what the catalogue needs; the truth.
    """
    wcs = brick_wcs(plan.name, config.pixels)
    objects = sources_under(config, plan, wcs)
    conditions, draws = conditions_of(config, plan.name), partial(generator, config)
    image, invvar, observed = expose(objects, wcs, plan, conditions, draws, config.moffat_beta)
    return image, invvar, observed, objects


def expose(
    objects: Objects,
    wcs: TanWcs,
    plan: BrickPlan,
    conditions: Conditions,
    draws: Callable[..., np.random.Generator],
    moffat_beta: float,
) -> tuple[np.ndarray, np.ndarray, Observed]:
    """Observe objects as the survey would.

    Args:
        objects: with x, y in pixels.
        wcs: of the image.
        plan: name, and what is special about the image.
        conditions: seeing, depth, reddening.
        draws: the generator of a thing by name, see `sky_plan.generator`.
        moffat_beta: slope of the point-spread function.

    Returns:
        image and invvar, (band, y, x) float32, and what the catalogue needs.
    """
    shape = (wcs.height, wcs.width)
    sigma = np.array([conditions.sky_sigma(band) for band in BANDS])
    maps = [
        observing.psfsize_map(draws("psfsize", plan.name, b), conditions.psfsize[b], shape) for b in BANDS
    ]
    psfsize = np.stack(maps)
    edge = EDGE_AT if plan.role == "edge" else None
    covers = [observing.coverage(draws("coverage", plan.name, b), shape, edge) for b in BANDS]
    nexp = np.stack([c[0] for c in covers])
    invvar = np.stack([c[1] / np.float32(s) ** 2 for c, s in zip(covers, sigma, strict=True)])
    if plan.role == "no_g":
        nexp[0], invvar[0] = 0, 0.0
    model = paint_objects(objects, psfsize, sigma, moffat_beta)
    maskbits = np.zeros(shape, np.int32)
    _mark_neighbours(maskbits, wcs, plan.name)
    bright = (objects["kind"] == "star") & (objects["mag_r"] < 16.0)
    star = [objects[name][bright] for name in ("x", "y", "mag_r")]
    observing.star_halos(maskbits, *star)
    observing.saturate(model, invvar, maskbits, *star)
    observed = Observed(plan.name, wcs, conditions, invvar.copy(), psfsize, nexp, maskbits)
    _add_noise(draws, plan.name, model, invvar)
    return model, invvar, observed


def _mark_neighbours(maskbits: np.ndarray, wcs: TanWcs, name: str) -> None:
    """Set NPRIMARY where the pixel belongs to a neighbouring brick."""
    height, width = maskbits.shape
    corners = np.array([[0, 0, width - 1, width - 1], [0, height - 1, 0, height - 1]])
    if in_primary(name, *wcs.pixel_to_sky(*corners)).all():  # a small image in the middle of its brick
        return
    for y in range(maskbits.shape[0]):
        ra, dec = wcs.pixel_to_sky(np.arange(maskbits.shape[1]), np.full(maskbits.shape[1], y))
        maskbits[y, ~in_primary(name, ra, dec)] |= 1 << BITS["NPRIMARY"]


def _add_noise(
    draws: Callable[..., np.random.Generator], name: str, image: np.ndarray, invvar: np.ndarray
) -> None:
    """Turn model and sky inverse variance into image and total inverse variance, in place."""
    for i, band in enumerate(BANDS):
        rng = draws("noise", name, band)
        noise = correlated_noise(rng, image[i].shape, observing.NOISE_CORRELATION)
        invvar[i] /= 1.0 + np.maximum(image[i], 0.0) / np.float32(observing.SKY_BRIGHTNESS[band])
        seen = invvar[i] > 0
        noise *= np.float32(observing.NOISE_OVER_INVVAR) / np.sqrt(np.where(seen, invvar[i], 1.0))
        # Saturated pixels keep their clipped value; pixels nobody exposed hold zero.
        saturated = (image[i] == np.float32(observing.SATURATION[band])) & ~seen
        image[i] = np.where(seen, image[i] + noise, np.where(saturated, image[i], 0.0))
