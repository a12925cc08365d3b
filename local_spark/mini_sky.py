"""Paint a small simulated sky in the layout of DR10-south, for the smoke run and for tests.

    python -m local_spark.mini_sky --out sky

writes below sky/ what the survey's public server has below dr10/south/: six 3600 x 3600 pixel bricks
(coadd/<AAA>/<brick>/legacysurvey-<brick>-{image,invvar,psfsize}-{g,r,z}.fits.fz and -maskbits.fits.fz), the
catalogue (sweep/10.1/sweep-*.fits) and the table of bricks (survey-bricks-dr10-south.fits.gz). One brick holds a
bright star with its masks, one is cut by the survey's edge, one has no g band, two are neighbours. The painter's
truth goes to truth/ for tests. The same seed gives the same pixels, whatever the number of processes; a sky that
is already there is not painted again. About 90 MB a brick pair and half a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from darkhaloscope.lensing.psf import psfsize_to_fwhm
from darkhaloscope.survey.bricks import brick_bounds, parse_names
from darkhaloscope.survey.maskbits import BITS
from darkhaloscope.survey.photometry import flux
from darkhaloscope.survey.wcs import TanWcs
from local_spark import observing, painter, populations
from local_spark.catalogue import Observed, brick_row, in_primary, measure, sweep_name
from local_spark.fits_layout import STEPS_PER_SIGMA, write_plane, write_table
from local_spark.observing import BANDS, PIXEL_SCALE, Conditions, draw_conditions
from local_spark.populations import Objects
from local_spark.sky_plan import (
    BrickPlan,
    SkyConfig,
    brick_area_deg2,
    brick_wcs,
    bricks_touched,
    config_hash,
    generator,
)

STATE = "_sky_config.json"
BRICK_TABLE = "survey-bricks-dr10-south.fits.gz"
EDGE_AT = 0.62  # of the edge brick's width is covered
FLOOR = 0.08  # of the sky sigma: light fainter than this is not drawn
MARGIN = 300  # pixels around a brick from which sources may shine in
BRIGHT_STAR = {"mag_g": 9.1, "mag_r": 8.5, "mag_z": 8.2, "mag_w1": 9.5}
AUREOLE = {"share": 0.04, "fwhm_arcsec": 8.0, "beta": 1.5}  # wings of stars brighter than r = 13


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
    return objects


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


def paint_model(objects: Objects, psfsize: np.ndarray, sigma: np.ndarray, beta: float) -> np.ndarray:
    """Paint the noiseless image.

    Args:
        objects: with x, y.
        psfsize: (band, y, x) the survey's noise-equivalent size, arcsec: the PSF at each object is the Moffat
            of slope `beta` that has it.
        sigma: (band,) sky sigma, which says how faint wings matter.
        beta: Moffat slope.

    Returns:
        (band, y, x) float32, nmgy/pixel.
    """
    image = np.zeros(psfsize.shape, np.float32)
    at_y = np.clip(objects["y"], 0, psfsize.shape[1] - 1).astype(int)
    at_x = np.clip(objects["x"], 0, psfsize.shape[2] - 1).astype(int)
    fwhm = psfsize_to_fwhm(psfsize[:, at_y, at_x].T.astype(np.float64), "moffat", beta)
    light = np.stack([flux(objects[f"mag_{band}"]) for band in BANDS], axis=1)
    floor = FLOOR * sigma
    stars = objects["kind"] == "star"
    wings = stars & (objects["mag_r"] < 13.0)
    light[wings] *= 1.0 - AUREOLE["share"]
    g = {name: values[~stars] for name, values in objects.items()}
    painter.paint_galaxies(
        image, g["x"], g["y"], light[~stars], g["reff_arcsec"], g["q"], g["phi_rad"], g["n"],
        fwhm[~stars], beta, floor,
    )  # fmt: skip
    painter.paint_stars(
        image, objects["x"][stars], objects["y"][stars], light[stars], fwhm[stars], beta, floor
    )
    halo = light[wings] * AUREOLE["share"] / (1.0 - AUREOLE["share"])
    width = np.full(halo.shape, AUREOLE["fwhm_arcsec"])
    painter.paint_stars(image, objects["x"][wings], objects["y"][wings], halo, width, AUREOLE["beta"], floor)
    return image


def observe(config: SkyConfig, plan: BrickPlan) -> tuple[np.ndarray, np.ndarray, Observed, Objects]:
    """Paint and observe one brick, in memory.

    Returns:
        image (band, y, x) nmgy/pixel and invvar (band, y, x), float32; what the catalogue needs; the truth.
    """
    wcs = brick_wcs(plan.name, config.pixels)
    shape = (wcs.height, wcs.width)
    conditions = conditions_of(config, plan.name)
    sigma = np.array([conditions.sky_sigma(band) for band in BANDS])
    maps = [
        observing.psfsize_map(generator(config, "psfsize", plan.name, b), conditions.psfsize[b], shape)
        for b in BANDS
    ]
    psfsize = np.stack(maps)
    edge = EDGE_AT if plan.role == "edge" else None
    covers = [observing.coverage(generator(config, "coverage", plan.name, b), shape, edge) for b in BANDS]
    nexp = np.stack([c[0] for c in covers])
    invvar = np.stack([c[1] / np.float32(s) ** 2 for c, s in zip(covers, sigma, strict=True)])
    if plan.role == "no_g":
        nexp[0], invvar[0] = 0, 0.0
    objects = sources_under(config, plan, wcs)
    model = paint_model(objects, psfsize, sigma, config.moffat_beta)
    maskbits = np.zeros(shape, np.int32)
    _mark_neighbours(maskbits, wcs, plan.name)
    bright = (objects["kind"] == "star") & (objects["mag_r"] < 16.0)
    star = [objects[name][bright] for name in ("x", "y", "mag_r")]
    observing.star_halos(maskbits, *star)
    observing.saturate(model, invvar, maskbits, *star)
    observed = Observed(plan.name, wcs, conditions, invvar.copy(), psfsize, nexp, maskbits)
    _add_noise(config, plan.name, model, invvar)
    return model, invvar, observed, objects


def _mark_neighbours(maskbits: np.ndarray, wcs: TanWcs, name: str) -> None:
    """Set NPRIMARY where the pixel belongs to a neighbouring brick."""
    for y in range(maskbits.shape[0]):
        ra, dec = wcs.pixel_to_sky(np.arange(maskbits.shape[1]), np.full(maskbits.shape[1], y))
        maskbits[y, ~in_primary(name, ra, dec)] |= 1 << BITS["NPRIMARY"]


def _add_noise(config: SkyConfig, name: str, image: np.ndarray, invvar: np.ndarray) -> None:
    """Turn model and sky inverse variance into image and total inverse variance, in place."""
    for i, band in enumerate(BANDS):
        noise = painter.correlated_noise(
            generator(config, "noise", name, band), image[i].shape, config.noise_lag1
        )
        invvar[i] /= 1.0 + np.maximum(image[i], 0.0) / np.float32(observing.SKY_BRIGHTNESS[band])
        seen = invvar[i] > 0
        noise /= np.sqrt(np.where(seen, invvar[i], 1.0))
        # Saturated pixels keep their clipped value; pixels nobody exposed hold zero.
        saturated = (image[i] == np.float32(observing.SATURATION[band])) & ~seen
        image[i] = np.where(seen, image[i] + noise, np.where(saturated, image[i], 0.0))


def paint_brick(
    out: str, config: SkyConfig, plan: BrickPlan
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Paint one brick and write its files; return its catalogue columns and its row of the brick table."""
    root = Path(out)
    image, invvar, observed, objects = observe(config, plan)
    for i, band in enumerate(BANDS):
        if band == "g" and plan.role == "no_g":
            continue
        sigma = observed.conditions.sky_sigma(band)
        psfsize = np.where(observed.nexp[i] > 0, observed.psfsize[i], np.float32(0.0))
        args = (root, observed.wcs, plan.name)
        write_plane(*args, "image", band, image[i], step=sigma / STEPS_PER_SIGMA)
        write_plane(*args, "invvar", band, invvar[i], step=1e-3 / sigma**2)
        write_plane(*args, "psfsize", band, psfsize)
    write_plane(root, observed.wcs, plan.name, "maskbits", "", observed.maskbits)
    measured = measure(generator(config, "measure", plan.name), objects, observed)
    write_table(root / "truth" / f"truth-{plan.name}.fits", objects)
    return measured, brick_row(observed, measured)


def paint_sky(
    out: str | Path, config: SkyConfig | None = None, processes: int | None = None, progress: bool = False
) -> dict[str, Any]:
    """Paint the sky into a folder, unless the very same sky is there already.

    Args:
        out: folder; made where it does not exist. An older mini sky in it is replaced; anything else is refused.
        config: what to paint.
        processes: bricks painted at a time; the number of cores by default. Changes no pixel.
        progress: show a bar.

    Returns:
        Summary: config, hash, painted (False where it was there), seconds, bricks with their objects and
        conditions, and the paths of the brick table and sweeps.

    Raises:
        FileExistsError: the folder holds something that is not a mini sky.
    """
    root, config = Path(out), config or SkyConfig()
    wanted = config_hash(config)
    state = json.loads((root / STATE).read_text()) if (root / STATE).exists() else None
    if state and state.get("hash") == wanted and state.get("finished"):
        return state | {"painted": False}
    _clear(root, state is not None)
    root.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    _write_state(root, {"hash": wanted, "finished": False})
    made = list(
        tqdm(
            _painted(root, config, processes),
            total=config.bricks,
            desc="painting bricks",
            disable=not progress,
        )
    )
    sweeps = _write_tables(root, [m[0] for m in made], [m[1] for m in made])
    roles = {p.name: p.role for p in config.plan}
    bricks = [
        {k: _plain(v) for k, v in row.items()} | {"role": roles[str(row["brickname"])]} for _, row in made
    ]
    summary = {
        "config": asdict(config), "hash": wanted, "finished": True, "seconds": round(time.monotonic() - start, 1),
        "brick_table": BRICK_TABLE, "sweeps": sweeps, "bricks": bricks,
    }  # fmt: skip
    _write_state(root, summary)
    return summary | {"painted": True}


def _painted(
    root: Path, config: SkyConfig, processes: int | None
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, object]]]:
    """Yield each brick's catalogue and table row in the order of the plan."""
    workers = min(processes or os.cpu_count() or 1, config.bricks)
    if workers == 1:
        for plan in config.plan:
            yield paint_brick(str(root), config, plan)
        return
    # spawn, not fork: the caller may hold a Spark session with threads of its own.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(paint_brick, [str(root)] * config.bricks, [config] * config.bricks, config.plan)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _clear(root: Path, is_sky: bool) -> None:
    if root.exists() and any(root.iterdir()):
        if not is_sky:
            raise FileExistsError(
                f"painting the mini sky into {root}: the folder is not empty and holds no {STATE}, so it is not a "
                "mini sky; give an empty or new folder with --out"
            )
        for part in ("coadd", "sweep", "truth"):
            shutil.rmtree(root / part, ignore_errors=True)
        (root / BRICK_TABLE).unlink(missing_ok=True)


def _write_state(root: Path, state: dict[str, Any]) -> None:
    partial = root / (STATE + ".partial")
    partial.write_text(json.dumps(state, indent=1))
    os.replace(partial, root / STATE)


def _write_tables(
    root: Path, catalogues: list[dict[str, np.ndarray]], rows: list[dict[str, object]]
) -> list[str]:
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    write_table(root / BRICK_TABLE, table)
    blocks: dict[str, list[dict[str, np.ndarray]]] = {}
    for catalogue, row in zip(catalogues, rows, strict=True):
        blocks.setdefault(sweep_name(float(row["ra"]), float(row["dec"])), []).append(catalogue)  # type: ignore[arg-type]
    for name, parts in blocks.items():
        write_table(root / "sweep" / "10.1" / name, populations.concatenate(parts), {"PHOTSYS": "S"})
    return sorted(f"sweep/10.1/{name}" for name in blocks)


def main() -> None:
    """Parse the command line, paint, say what was painted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = {f.name: f.default for f in fields(SkyConfig)}
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder to paint into; an older mini sky in it is replaced")
    add("--seed", type=int, default=default["seed"], help="another seed, another sky (default %(default)s)")
    add("--bricks", type=int, default=default["bricks"], help="bricks to paint, 1 to 6 (default %(default)s)")
    add("--size", choices=("small", "smoke"), default=default["size"],
        help="smoke: whole 3600 pixel bricks; small: 600 pixel bricks, for unit tests")  # fmt: skip
    add("--lrg-boost", type=float, default=default["lrg_boost"],
        help="times the real density of target galaxies (default %(default)s; 1 is the sky as it is)")  # fmt: skip
    add("--processes", type=int, help="bricks painted at a time (default: one per core); changes no pixel")
    args = parser.parse_args()
    config = SkyConfig(args.seed, args.bricks, args.size, args.lrg_boost)
    summary = paint_sky(args.out, config, args.processes, progress=True)
    for brick in summary["bricks"]:
        print(
            f"{brick['brickname']}  {brick['role']:11s}  {brick['nobjs']:6d} objects  psfsize r "
            f'{brick["psfsize_r"]:.2f}"  depth r {brick["psfdepth_r"]:.2f}  E(B-V) {brick["ebv"]:.3f}'
        )
    done = f"painted in {summary['seconds']} s" if summary["painted"] else "was there already"
    print(f"mini sky {summary['hash']} in {args.out}: {done}")


if __name__ == "__main__":
    main()
