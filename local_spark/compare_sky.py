"""Put pictures of the mini sky and of real survey fields side by side, at one stretch, and look.

    python -m local_spark.compare_sky --sky sky --real DIR --out compare.png

DIR holds real fields in the survey's units: dr9_brick_*/ (a brick with an exposed region), fields/*_grz.fits,
des_lrg/des_lrg_grz.npz and dr10_lens_candidates/*.npz. Real fields that are absent are left out, and said so.
The left columns are the mini sky, the right ones are real; all are Lupton RGB of g, r, z with the same mapping.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
from matplotlib.figure import Figure

from darkhaloscope.records import BANDS
from darkhaloscope.report.pictures import STRETCH, Q, lupton_rgb
from darkhaloscope.survey.coadds import file_path

FIELD = 256  # pixels, side of a field picture
STAMP = 91  # pixels, side of a galaxy picture: that of the real DES stamps
Picture = tuple[str, np.ndarray]


def read_section(root: Path, brick: str, x0: int, y0: int, size: int) -> np.ndarray:
    """Read (band, y, x) out of a brick's images; a band without a file is zero."""
    planes = []
    for band in BANDS:
        path = root / file_path(brick, "image", band)
        if not path.exists():
            planes.append(np.zeros((size, size), np.float32))
            continue
        with fitsio.FITS(str(path)) as fits:
            planes.append(fits[1][y0 : y0 + size, x0 : x0 + size])
    return np.stack(planes)


def read_truth(path: Path) -> tuple[str, np.ndarray, int]:
    """Return brick name, the painter's truth and the side of the brick's images."""
    brick = path.stem.removeprefix("truth-")
    with fitsio.FITS(str(path.parents[1] / file_path(brick, "image", "r"))) as fits:
        side = int(fits[1].get_dims()[0])
    return brick, fitsio.read(str(path)), side


def mini_fields(sky: Path) -> list[Picture]:
    """Return a field of each brick of the mini sky, then the surroundings of its brightest star."""
    pictures: list[Picture] = []
    brightest: tuple[float, Picture] = (99.0, ("", np.zeros((3, 2, 2))))
    for path in sorted((sky / "truth").glob("truth-*.fits")):
        brick, truth, side = read_truth(path)
        corner = (side - FIELD) // 3
        pictures.append((f"mini {brick}", read_section(sky, brick, corner, corner, FIELD)))
        star = truth[np.argmin(truth["mag_r"])]
        if star["mag_r"] < brightest[0]:
            size = min(4 * FIELD, side)
            x0, y0 = (int(np.clip(star[c] - size // 2, 0, side - size)) for c in "xy")
            title = f"mini {brick}: star of r = {star['mag_r']:.1f}"
            brightest = (float(star["mag_r"]), (title, read_section(sky, brick, x0, y0, size)))
    return [*pictures[:6], brightest[1]]


def mini_stamps(sky: Path, count: int) -> list[Picture]:
    """Return stamps around painted LRGs where there are data in g, bright ones and faint ones mixed."""
    pictures: list[Picture] = []
    half = STAMP // 2
    for path in sorted((sky / "truth").glob("truth-*.fits")):
        brick, truth, side = read_truth(path)
        inside = np.all([(truth[c] > half) & (truth[c] < side - 1 - half) for c in "xy"], axis=0)
        lrgs = truth[inside & (truth["kind"] == "lrg") & (truth["mag_z"] < 19.8)]
        for row in lrgs[:: max(1, len(lrgs) // 6)][:6]:
            x0, y0 = int(row["x"] + 0.5) - half, int(row["y"] + 0.5) - half
            stamp = read_section(sky, brick, x0, y0, STAMP)
            if (stamp != 0).all(axis=0).mean() > 0.9:
                pictures.append(("", stamp))
    return pictures[:: max(1, len(pictures) // count)][:count]


def real_fields(real: Path) -> list[Picture]:
    """Return the real fields there are."""
    pictures: list[Picture] = []
    for folder in sorted(real.glob("dr9_brick_*/coadd/*/*")):
        base = folder.parents[2]
        pictures.append((f"DR9 {folder.name}", read_section(base, folder.name, 2540, 1880, FIELD)))
    for path in sorted((real / "fields").glob("*_grz.fits")):
        image = fitsio.read(str(path))
        y, x = ((s - min(FIELD, s)) // 2 for s in image.shape[1:])
        pictures.append((path.stem, image[:, y : y + FIELD, x : x + FIELD]))
    for path in sorted((real / "dr10_lens_candidates").glob("*.npz")):
        with np.load(path) as data:
            pictures.append((f"DR10 {path.stem}", data["cutout"].transpose(2, 0, 1)))
    return pictures


def real_stamps(real: Path, count: int) -> list[Picture]:
    """Return real LRG stamps."""
    path = real / "des_lrg" / "des_lrg_grz.npz"
    if not path.exists():
        return []
    with np.load(path) as data:
        return [("", image) for image in data["image"][:count]]


def mosaic(pictures: list[Picture], across: int, down: int) -> np.ndarray:
    """Tile stamps of one size into one (band, y, x) image."""
    images = [image for _, image in pictures[: across * down]]
    images += [np.zeros_like(images[0])] * (across * down - len(images))
    rows = [np.concatenate(images[i * across : (i + 1) * across], axis=2) for i in range(down)]
    return np.concatenate(rows[::-1], axis=1)


def compare(sky: Path, real: Path, out: Path, stretch: float, q: float) -> list[str]:
    """Draw the picture; return the names of the real parts that were absent."""
    sides: list[tuple[str, Callable[..., list[Picture]], Callable[..., list[Picture]], Path]] = [
        ("mini sky", mini_fields, mini_stamps, sky),
        ("real", real_fields, real_stamps, real),
    ]
    figure = Figure(figsize=(20, 20), facecolor="black")
    axes = figure.subplots(4, 4)
    absent = []
    for side, (label, fields, stamps, folder) in enumerate(sides):
        pictures, galaxies = fields(folder)[:7], stamps(folder, 16)
        if galaxies:
            pictures = [(f"{label}: LRGs", mosaic(galaxies, 4, 4)), *pictures]
        else:
            absent.append(f"{label}: galaxies")
        if len(pictures) < 2:
            absent.append(f"{label}: fields")
        for axis, picture in zip(
            axes[:, 2 * side : 2 * side + 2].ravel(), [*pictures, *[None] * 8], strict=False
        ):
            axis.axis("off")
            if picture is not None:
                axis.imshow(
                    lupton_rgb(picture[1], BANDS, stretch, q), origin="lower", interpolation="nearest"
                )
                axis.set_title(picture[0], color="white")
    figure.tight_layout()
    figure.savefig(out, dpi=70, facecolor="black")
    return absent


def main(argv: list[str] | None = None) -> int:
    """Draw the picture; return the exit status: 1 where there is no mini sky."""
    parser = argparse.ArgumentParser(
        "local_spark.compare_sky", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sky", type=Path, required=True, help="a painted mini sky")
    parser.add_argument("--real", type=Path, required=True, help="folder of real fields")
    parser.add_argument("--out", type=Path, required=True, help="picture to write, .png")
    parser.add_argument("--stretch", type=float, default=STRETCH, help="linear range (default: %(default)s)")
    parser.add_argument("--q", type=float, default=Q, help="asinh softening (default: %(default)s)")
    args = parser.parse_args(argv)
    if not (args.sky / "truth").is_dir():
        print(
            f"compare-sky: {args.sky} is no mini sky; paint it: python -m local_spark.mini_sky --out {args.sky}",
            file=sys.stderr,
        )
        return 1
    absent = compare(args.sky, args.real, args.out, args.stretch, args.q)
    print(f"wrote {args.out}" + (f"; absent: {', '.join(absent)}" if absent else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
