"""Paint a small simulated sky in the layout of DR10-south, for the smoke run and for tests.

    python -m local_spark.mini_sky --out sky

writes below sky/ what the survey's public server has below dr10/south/: six 3600 x 3600 pixel bricks
(coadd/<AAA>/<brick>/legacysurvey-<brick>-{image,invvar,psfsize}-{g,r,z}.fits.fz and -maskbits.fits.fz), the
catalogue (sweep/10.1/sweep-*.fits) and the table of bricks (survey-bricks-dr10-south.fits.gz). One brick holds a
bright star with its masks, one is cut by the survey's edge, one has no g band, two are neighbours. The painter's
truth goes to truth/ for tests. The same seed gives the same pixels, whatever the number of processes; a sky that
is already there is not painted again. About 40 MB a brick, and half a minute in all on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from darkhaloscope import simulated
from darkhaloscope.records import BANDS
from darkhaloscope.simulated import reference
from darkhaloscope.simulated.brick import observe
from darkhaloscope.simulated.catalogue import brick_row, measure, sweep_name
from darkhaloscope.simulated.populations import concatenate
from darkhaloscope.simulated.sky_plan import BrickPlan, SkyConfig, generator
from darkhaloscope.writing import replace_file
from local_spark.fits_layout import STEPS_PER_SIGMA, write_plane, write_table

STATE = "_sky_config.json"
BRICK_TABLE = "survey-bricks-dr10-south.fits.gz"


def config_hash(config: SkyConfig) -> str:
    """Digest of the config, of the painting code and of its reference tables."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    painting, tables = resources.files(simulated), resources.files(reference)
    files = [painting / f"{n}.py" for n in
             ("brick", "catalogue", "noise", "observing", "painter", "populations", "sky_plan")]  # fmt: skip
    files += [tables / n for n in ("conditions.json", "galaxy_counts.csv", "lrg_sample.json")]
    files += [Path(__file__), Path(__file__).with_name("fits_layout.py")]
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


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
    replace_file(str(root / STATE), json.dumps(state, indent=1).encode())


def _write_tables(
    root: Path, catalogues: list[dict[str, np.ndarray]], rows: list[dict[str, object]]
) -> list[str]:
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    write_table(root / BRICK_TABLE, table)
    blocks: dict[str, list[dict[str, np.ndarray]]] = {}
    for catalogue, row in zip(catalogues, rows, strict=True):
        blocks.setdefault(sweep_name(float(row["ra"]), float(row["dec"])), []).append(catalogue)  # type: ignore[arg-type]
    for name, parts in blocks.items():
        write_table(root / "sweep" / "10.1" / name, concatenate(parts), {"PHOTSYS": "S"})
    return sorted(f"sweep/10.1/{name}" for name in blocks)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        "local_spark.mini_sky", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = {f.name: f.default for f in fields(SkyConfig)}
    add = made.add_argument
    add("--out", type=Path, required=True, help="folder to paint into; an older mini sky in it is replaced")
    add("--seed", type=int, default=default["seed"], help="another seed, another sky (default: %(default)s)")
    add(
        "--bricks", type=int, default=default["bricks"], help="bricks to paint, 1 to 6 (default: %(default)s)"
    )
    add("--size", choices=("small", "smoke"), default=default["size"],
        help="smoke: whole 3600 pixel bricks; small: 600 pixel bricks, for unit tests")  # fmt: skip
    add("--lrg-boost", type=float, default=default["lrg_boost"],
        help="times the real density of target galaxies (default: %(default)s; 1 is the sky as it is)")  # fmt: skip
    add("--processes", type=int, help="bricks painted at a time (default: one per core); changes no pixel")
    return made


def main(argv: list[str] | None = None) -> int:
    """Paint, say what was painted; return the exit status."""
    args = parser().parse_args(argv)
    try:
        config = SkyConfig(args.seed, args.bricks, args.size, args.lrg_boost)
        summary = paint_sky(args.out, config, args.processes, progress=True)
    except (ValueError, OSError) as error:
        print(f"mini-sky: {error}", file=sys.stderr)
        return 1
    for brick in summary["bricks"]:
        print(
            f"{brick['brickname']}  {brick['role']:11s}  {brick['nobjs']:6d} objects  psfsize r "
            f'{brick["psfsize_r"]:.2f}"  depth r {brick["psfdepth_r"]:.2f}  E(B-V) {brick["ebv"]:.3f}'
        )
    done = f"painted in {summary['seconds']} s" if summary["painted"] else "was there already"
    print(f"mini sky {summary['hash']} in {args.out}: {done}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
