"""Does it look like lenses? python -m local_spark.gallery (or `make gallery`).

Draws the same arcs, over theta_E and source magnitude, of smooth (Sersic) and clumpy (image) sources on galaxies
of the simulated sky and, where the shared data are there, on real DES stamps: <out>/gallery-<hosts>-<source>.png.
A last sheet shows what the natural prior draws for the real hosts: <out>/gallery-<hosts>-natural.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from tqdm import tqdm

from darkhaloscope.experiment import Experiment, from_dict
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import make_stamps
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import BANDS
from darkhaloscope.report.pictures import lupton_rgb
from local_spark.real_hosts import DEFAULT_REAL, StampBrick, des_stamps, with_columns
from local_spark.sky_hosts import sky_stamps

THETA_E = (0.75, 1.0, 1.25, 1.5, 2.0, 2.5)
SOURCE_R = (22.0, 23.0, 24.0, 25.0)  # unlensed, outside the Galaxy
OFFSETS = (0.05, 0.25, 0.45, 0.65)  # of theta_E: from ring to arc and counter-image
NATURAL_SHEET = 24

Hosts = tuple[list[StampBrick], pa.RecordBatch]


def experiment_of(source: str, prior: str = "grid") -> Experiment:
    """Return an experiment that makes every host a positive."""
    injection = {"control_frac": 0.0, "source": source, "prior": prior}
    names = {"name": "gallery", "variant": "gallery", "experiment_id": "gallery"}
    return from_dict({**names, "injection": injection}, "gallery")


def grid_rows(hosts: pa.RecordBatch, experiment: Experiment) -> list[pa.RecordBatch]:
    """Return one manifest row a cell of the sheet: theta_E along x, magnitude along y, hosts in turn."""
    rows = lay_out_injections(hosts, experiment)
    made = []
    for i, mag in enumerate(SOURCE_R):
        for j, theta in enumerate(THETA_E):
            k = (i * len(THETA_E) + j) % rows.num_rows
            row = rows.slice(k, 1)
            offset = OFFSETS[(i + j) % len(OFFSETS)] * theta
            angle = 2.4 * k  # turned from cell to cell
            old = {b: row.column(f"src_mag_{b}")[0].as_py() for b in BANDS}
            made.append(with_columns(row, {
                "theta_e_arcsec": [theta], "src_x_arcsec": [offset * np.cos(angle)],
                "src_y_arcsec": [offset * np.sin(angle)],
                **{f"src_mag_{b}": [mag + old[b] - old["r"]] for b in BANDS},
            }))  # fmt: skip
    return made


def stamps_of(bricks: list[StampBrick], rows: list[pa.RecordBatch], experiment: Experiment) -> pa.Table:
    """Make the stamps of rows on the bricks they name."""
    by_name = {b.brickname: b for b in bricks}
    quiet = f"gallery, {experiment.injection.source} sources"
    return pa.Table.from_batches(
        [make_stamps(by_name[r.column("brickname")[0].as_py()], r, experiment) for r in tqdm(rows, quiet)]
    )


def sheet(stamps: pa.Table, columns: int, title: str, path: Path) -> None:
    """Draw stamps in Lupton RGB, in rows of `columns`, each with what was injected."""
    lines = -(-len(stamps) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.2 * lines), layout="constrained")
    axes = figure.subplots(lines, columns)
    figure.suptitle(title)
    for axis, row, image in zip(axes.ravel(), stamps.to_pylist(), pixels_of(stamps), strict=False):
        axis.imshow(lupton_rgb(image), origin="lower")
        axis.set_title(
            f'theta_E {row["theta_e_arcsec"]:.2f}"  r {row["src_mag_r"]:.1f}\n'
            f"SNR {row['arc_snr']:.0f}  mu {row['magnification']:.1f}",
            fontsize=7,
        )  # fmt: skip
    for axis in axes.ravel():
        axis.axis("off")
    figure.savefig(path, dpi=90)


def draw(name: str, hosts: Hosts, out: Path) -> list[Path]:
    """Draw the sheets of one set of hosts; return their paths."""
    bricks, targets = hosts
    paths = []
    for source in ("sersic", "image"):
        experiment = experiment_of(source)
        stamps = stamps_of(bricks, grid_rows(targets, experiment), experiment)
        paths.append(out / f"gallery-{name}-{source}.png")
        title = f"{name}: {source} sources; theta_E grows to the right, sources fade downwards"
        sheet(stamps, len(THETA_E), title, paths[-1])
    experiment = experiment_of("image", "natural")
    rows = lay_out_injections(targets, experiment)
    chosen = [rows.slice(i, 1) for i in range(min(NATURAL_SHEET, rows.num_rows))]
    paths.append(out / f"gallery-{name}-natural.png")
    stamps = stamps_of(bricks, chosen, experiment)
    sheet(stamps, 6, f"{name}: as the natural prior draws them", paths[-1])
    return paths


def main(argv: list[str] | None = None) -> int:
    """Draw every sheet; return the exit status."""
    parser = argparse.ArgumentParser(
        "python -m local_spark.gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("gallery-out"), help="folder (default: %(default)s)")
    parser.add_argument("--sky", default="smoke-out/sky", help="simulated sky; painted if it is not there")
    parser.add_argument("--real", type=Path, default=DEFAULT_REAL, help="folder of the real survey data")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    sets = {"mini-sky": sky_stamps(args.sky, NATURAL_SHEET)}
    real = args.real / "real" / "des_lrg" / "des_lrg_grz.npz"
    if real.exists():
        sets["des-lrg"] = des_stamps(real)
    else:
        print(f"gallery: no real stamps at {real} (name their folder with --real): the simulated sky only")
    for name, hosts in sets.items():
        for path in draw(name, hosts, args.out):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
