"""The same injection on real pixels: python -m local_spark.smoke_real (or `make smoke-real`).

1. Finds the galaxies in the exposed region of a real DR9 brick, and runs stages 4a, 4b and 4c on them through
   their entry points, with the survey's own coadd PSF as the kernel.
2. Puts arcs on 34 real DES stamps of luminous red galaxies, with the same injection code.
3. Compares the result with the untouched pixels: noise, colours, and that a source without light changes nothing.
4. Draws untouched host, arc and stamp side by side: <out>/dr9_brick.png and <out>/des_lrg.png.

The pixels are not part of the repository: --real names the folder that has them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import commit_chunk, committed_chunks, read_table, write_part
from darkhaloscope.experiment import Experiment, from_dict, load
from darkhaloscope.injection.arcs import arc_of
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import make_stamps, stamp_schema
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, place
from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.writing import replace_file
from local_spark.real_hosts import (
    BRICK,
    DEFAULT_REAL,
    StampBrick,
    des_stamps,
    find_galaxies,
    null_rows,
    sky_sigma,
)
from local_spark.real_pictures import draw_rows
from local_spark.steps import Step, StepFailed, run_steps, spark

PICTURES = 10


def experiment_text(real: Path) -> str:
    """Return the experiment file of the real brick: its own PSF, every control unpaired, all hosts used."""
    source = real / "real" / "dr9_brick_0591m305"
    return f"""# Written by local_spark.smoke_real.
name = "real_dr9"
variant = "real_dr9"
experiment_id = "stamp64_bandsgrz_gridgrid_sota"

[survey]
source = {json.dumps(str(source))}

[injection]
grid = "grid_sota"
n_total_per_split = 400
replicates = 20
control_frac = 0.03

[psf]
model = "kernel"
kernel = {json.dumps(str(source / "coadd_psf_{band}.npy"))}
"""


def write_targets(experiment: Experiment, out: str, facts: dict[str, Any]) -> int:
    """Write the galaxies found in the real brick as the target table that stage 4a reads; return how many."""
    corners = tuple(facts["exposed_pixels_x0_y0_x1_y1"])
    columns = find_galaxies(experiment.survey.source, corners, facts["psfsize_equivalent_arcsec"])
    output = place(out, "phase3", experiment)
    with StageRun(output, "3", experiment, ("survey",), {}) as run:
        if not committed_chunks(output):
            batch = to_batch(TARGETS, columns)
            commit_chunk(output, 0, [write_part(output, 0, 0, [batch], TARGETS.arrow())])
        run.finish(rows=len(columns["ra"]))
    return len(columns["ra"])


def colours(images: np.ndarray, radius: float = 8.0) -> dict[str, list[float]]:
    """Return quartiles of g - r and r - z of the light within `radius` pixels of the middle."""
    middle = (images.shape[-1] - 1) / 2
    y, x = np.indices(images.shape[-2:]) - middle
    inside = images[:, :, np.hypot(x, y) < radius].sum(axis=2)
    mags = magnitude(np.where(inside > 0, inside, np.nan))
    pairs = {"g_r": mags[:, 0] - mags[:, 1], "r_z": mags[:, 1] - mags[:, 2]}
    return {name: rounded(np.nanpercentile(c, [25, 50, 75])) for name, c in pairs.items()}


def rounded(values: np.ndarray) -> list[float]:
    """Return values with the digits that mean something."""
    return [float(f"{v:.4g}") for v in values]


def compare(stamps: np.ndarray, hosts: np.ndarray, arcs: np.ndarray, control: np.ndarray) -> dict[str, Any]:
    """Return how stamps differ from the untouched pixels under them.

    Args:
        stamps: (n, band, y, x) as 4c made them.
        hosts: the same pixels of the coadd, untouched.
        arcs: the arcs without noise.
        control: (n,) bool.
    """
    injected = ~control
    noise = np.array([sky_sigma(s) for s in stamps[injected]])
    before = np.array([sky_sigma(h) for h in hosts[injected]])
    return {
        "stamps": len(stamps),
        "controls_identical_to_the_coadd": bool(np.array_equal(stamps[control], hosts[control])),
        "sky_noise_ratio_median": rounded(np.median(noise / before, axis=0)),
        "sky_noise_nmgy": rounded(np.median(before, axis=0)),
        "colours_untouched_hosts": colours(hosts),
        "colours_stamps": colours(stamps[injected]),
        "colours_arcs": colours(arcs[injected], 1e3),
        "photon_noise_of_the_arc_over_sky_noise": rounded(
            np.median((stamps - arcs - hosts)[injected].std(axis=(2, 3)) / before, axis=0)
        ),
    }  # fmt: skip


def coadd_under(stamps: pa.Table, experiment: Experiment) -> np.ndarray:
    """Return the coadd's own pixels under stamps of the real brick, read anew."""
    size = experiment.stamps.size
    with BrickReader(experiment.survey.source, BRICK) as brick:
        x, y = brick.sky_to_pixel(stamps["ra"].to_numpy(), stamps["dec"].to_numpy())
        corners = [(int(np.floor(v + 0.5)) - size // 2 for v in pair) for pair in zip(x, y, strict=True)]
        return np.stack([brick.cut(*corner, size).image for corner in corners])


def on_the_brick(experiment: Experiment, out: str) -> dict[str, Any]:
    """Compare and draw what stage 4c made of the real brick."""
    table = read_table(place(out, "phase4c", experiment))
    good = table.filter(pc.field("cutout_ok") == 1)
    hosts, arcs = coadd_under(good, experiment), arc_of(good, experiment)
    stamps = pixels_of(good)
    control = good["is_control"].to_numpy() == 1
    draw_rows(good, hosts, arcs, stamps, Path(out) / "dr9_brick.png", PICTURES, "DR9 brick 0591m305")
    with BrickReader(experiment.survey.source, BRICK) as brick:
        dark = make_stamps(brick, null_rows(_manifest(out, experiment)), experiment)
    kept = pa.Table.from_batches([dark]).filter(pc.field("cutout_ok") == 1)
    null = np.array_equal(pixels_of(kept), coadd_under(kept, experiment))
    return {"rows": len(table), "failed": len(table) - len(good), **compare(stamps, hosts, arcs, control),
            "null_injection_leaves_every_pixel_identical": bool(null), "null_stamps": len(kept)}  # fmt: skip


def _manifest(out: str, experiment: Experiment) -> pa.RecordBatch:
    return read_table(place(out, "phase4a", experiment)).combine_chunks().to_batches()[0]


def on_des_stamps(real: Path, out: str) -> dict[str, Any]:
    """Inject into the real DES LRG stamps, compare and draw."""
    experiment = from_dict(
        {"name": "real_des", "variant": "real_des", "experiment_id": "stamp64",
         "injection": {"replicates": 2, "control_frac": 0.2}}, "smoke_real",
    )  # fmt: skip
    bricks, hosts = des_stamps(real / "real" / "des_lrg" / "des_lrg_grz.npz")
    manifest = lay_out_injections(hosts, experiment)
    made, dark, under = [], [], []
    for brick in bricks:
        rows = manifest.filter(pa.array([n == brick.brickname for n in manifest["brickname"].to_pylist()]))
        made.append(make_stamps(brick, rows, experiment))
        dark.append(make_stamps(brick, null_rows(rows), experiment))
        under += [_middle(brick, experiment.stamps.size)] * rows.num_rows
    table = pa.Table.from_batches(made, stamp_schema(experiment))
    good = np.asarray(table["cutout_ok"]) == 1
    table, untouched = table.filter(pa.array(good)), np.stack(under)[good]
    stamps, arcs = pixels_of(table), arc_of(table, experiment)
    draw_rows(table, untouched, arcs, stamps, Path(out) / "des_lrg.png", PICTURES, "DES LRG stamps")
    null = pixels_of(pa.Table.from_batches(dark).filter(pa.array(good)))
    return {"rows": len(good), "failed": int((~good).sum()),
            **compare(stamps, untouched, arcs, table["is_control"].to_numpy() == 1),
            "null_injection_leaves_every_pixel_identical": bool(np.array_equal(null, untouched)),
            "null_stamps": len(null)}  # fmt: skip


def _middle(brick: StampBrick, size: int) -> np.ndarray:
    start = brick.image.shape[1] // 2 - size // 2
    return brick.image[:, start : start + size, start : start + size]


def main(argv: list[str] | None = None) -> int:
    """Run on real pixels; return the exit status: 0 where they were absent too, after saying so."""
    parser = argparse.ArgumentParser(
        "python -m local_spark.smoke_real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", default="smoke-real-out", help="workspace to fill (default: %(default)s)")
    parser.add_argument("--real", type=Path, default=DEFAULT_REAL, help="folder of the real survey data")
    args = parser.parse_args(argv)
    real = args.real.resolve()
    facts_file = real / "real" / "dr9_brick_0591m305" / "facts.json"
    if not facts_file.exists():
        print(f"smoke-real: skipped: no real survey data at {real} (name its folder with --real)")
        return 0
    path = Path(args.out, "experiment.toml")
    replace_file(str(path), experiment_text(real).encode())
    experiment = load(path)
    facts = json.loads(facts_file.read_text())
    print(f"found {write_targets(experiment, args.out, facts)} galaxies in the exposed region of {BRICK}")
    shared = ("--experiment", str(path), "--output-s3", args.out)
    what = {"4a": "lay out injections", "4b": "cache the brick", "4c": "cut stamps and inject arcs"}
    stages = [Step(s, w, spark("phase4_pipeline.py", "--stage", s, *shared)) for s, w in what.items()]
    try:
        seconds = run_steps(stages)
    except StepFailed as error:
        print(f"smoke-real: {error}", file=sys.stderr)
        return 1
    summary = {"dr9_brick": on_the_brick(experiment, args.out), "des_lrg": on_des_stamps(real, args.out),
               "seconds": seconds}  # fmt: skip
    replace_file(str(Path(args.out, "summary.json")), json.dumps(summary, indent=1).encode())
    print(json.dumps(summary, indent=1))
    print(f"pictures: {args.out}/dr9_brick.png, {args.out}/des_lrg.png; summary: {args.out}/summary.json")
    failed = [k for k in ("dr9_brick", "des_lrg")
              if not (summary[k]["null_injection_leaves_every_pixel_identical"]
                      and summary[k]["controls_identical_to_the_coadd"])]  # fmt: skip
    if failed:
        print(f"smoke-real: pixels that should be untouched are not: {failed}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
