"""Build a source bank from a RealGalaxy catalogue.

    python -m darkhaloscope.sources.build CATALOGUE.fits bank.h5 [--sheet sheet.png]

For each galaxy: background off, the object in the middle kept, all else set to zero (`isolate`); half-light
radius with the PSF removed, S/N, clumpiness (`morphology`); HSC magnitudes in DECam bands and the redshift
where the catalogue has them; a split by hash. What gives no usable source is refused, with a reason, and listed
in `bank.refused.csv`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darkhaloscope.sources.bank import OPTIONAL, split_of, write_bank
from darkhaloscope.sources.isolate import NotAGalaxy, isolate
from darkhaloscope.sources.morphology import clumpiness, half_light_radius, moments, without_psf
from darkhaloscope.sources.realgalaxy import CatalogueBroken, RealGalaxy, open_catalogue

STAMP_SIZE = 96
ASSUMED_PSF_RADIUS_ARCSEC = 0.075  # half-light, ACS F814W on COSMOS, where no PSF image is given
MIN_RESOLVED = 1.15  # half-light radius over the PSF's, below which it may be a star
MAX_LOST = 0.03  # of the light, outside the bank's stamp
SPLIT_FRACTIONS = (0.7, 0.15, 0.15)


@dataclass(frozen=True)
class Source:
    """A galaxy for the bank: image (y, x) centred in the stamp, and its measurements."""

    image: np.ndarray
    hlr_arcsec: float
    hlr_image_arcsec: float
    axis_ratio: float
    clumpiness: float
    snr: float


def measure_source(
    stamp: np.ndarray, psf: np.ndarray | None, pixel_arcsec: float, stamp_size: int = STAMP_SIZE
) -> Source:
    """Turn a stamp into a source.

    Args:
        stamp: (y, x) with noise and neighbours, any flux unit.
        psf: (y, x) at the same pixel size, or None (ACS F814W is assumed).
        pixel_arcsec: size of a pixel.
        stamp_size: side of the bank's stamps, pixels.

    Raises:
        NotAGalaxy: the stamp gives no usable source; the message says why.
    """
    galaxy = isolate(stamp)
    shape = moments(galaxy.image)
    radius = half_light_radius(galaxy.image, shape) * pixel_arcsec
    psf_radius = ASSUMED_PSF_RADIUS_ARCSEC
    if psf is not None:
        psf_radius = half_light_radius(np.maximum(psf, 0), moments(np.maximum(psf, 0))) * pixel_arcsec
    if radius < MIN_RESOLVED * psf_radius:
        raise NotAGalaxy(f"not resolved: half-light radius {radius:.3f}, the PSF's {psf_radius:.3f} arcsec")
    image = _centred(galaxy.image, shape.x, shape.y, stamp_size)
    lost = 1 - image.sum() / galaxy.image.sum()
    if lost > MAX_LOST:
        raise NotAGalaxy(f"too large: {lost:.0%} of its light is outside {stamp_size} pixels")
    return Source(
        image,
        without_psf(radius, psf_radius),
        radius,
        shape.q,
        clumpiness(galaxy.image, radius / pixel_arcsec),
        galaxy.snr,
    )


def _centred(image: np.ndarray, x: float, y: float, size: int) -> np.ndarray:
    """Return (size, size) with the centroid within half a pixel of the middle, zero beyond the image."""
    out = np.zeros((size, size))
    x0, y0 = (round(centre - (size - 1) / 2) for centre in (x, y))
    ya, yb = max(y0, 0), min(y0 + size, image.shape[0])
    xa, xb = max(x0, 0), min(x0 + size, image.shape[1])
    out[ya - y0 : yb - y0, xa - x0 : xb - x0] = image[ya:yb, xa:xb]
    return out


def build_bank(
    galaxies: Iterable[RealGalaxy],
    pixel_arcsec: float,
    kind: str,
    out: str | Path,
    stamp_size: int = STAMP_SIZE,
) -> list[tuple[int, str]]:
    """Write the bank of some galaxies and the list of those refused; return the latter.

    Args:
        galaxies: e.g. of `open_catalogue(...).galaxies()`.
        pixel_arcsec: size of a pixel.
        kind: name of the sample; with a galaxy's number it decides the split.
        out: the HDF5 file; the refused go to `<out without suffix>.refused.csv` as index, reason.
        stamp_size: side of the bank's stamps, pixels.

    Raises:
        NotAGalaxy: none of them gave a source.
    """
    kept: list[tuple[RealGalaxy, Source]] = []
    refused: list[tuple[int, str]] = []
    for galaxy in galaxies:
        try:
            kept.append((galaxy, measure_source(galaxy.stamp, galaxy.psf, pixel_arcsec, stamp_size)))
        except NotAGalaxy as reason:
            refused.append((galaxy.index, str(reason)))
    if not kept:
        raise NotAGalaxy(f"{kind}: none of {len(refused)} galaxies gave a source, e.g. {refused[:3]}")
    index = np.array([galaxy.index for galaxy, _ in kept])
    measured = ("hlr_arcsec", "hlr_image_arcsec", "axis_ratio", "clumpiness", "snr")
    meta = {name: np.array([getattr(s, name) for _, s in kept], np.float32) for name in measured}
    known = set(OPTIONAL) - set(measured)
    meta |= {name: np.array([getattr(g, name) for g, _ in kept], np.float32) for name in known}
    meta |= {"index": index, "split": split_of(index, kind, SPLIT_FRACTIONS)}
    write_bank(out, np.stack([s.image for _, s in kept]), meta, pixel_arcsec, kind)
    with Path(out).with_suffix(".refused.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index", "reason"), *refused])
    return refused


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        "python -m darkhaloscope.sources.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("catalogue", help="real_galaxy_catalog*.fits; its image files lie beside it")
    made.add_argument("out", help="the bank to write, e.g. cosmos_bank.h5")
    made.add_argument("--stamp-size", type=int, default=STAMP_SIZE, help="pixels (default: %(default)s)")
    made.add_argument("--sheet", help="also draw accepted and refused galaxies into this PNG")
    return made


def main(argv: list[str] | None = None) -> int:
    """Build a bank; return the exit status."""
    args = parser().parse_args(argv)
    try:
        catalogue = open_catalogue(args.catalogue)
        kind = f"real {Path(args.catalogue).stem}"
        refused = build_bank(catalogue.galaxies(), catalogue.pixel_arcsec, kind, args.out, args.stamp_size)
    except (CatalogueBroken, NotAGalaxy, OSError) as error:
        print(f"sources.build: {error}", file=sys.stderr)
        return 1
    n = len(catalogue.rows)
    print(
        f"{args.out}: {n - len(refused)} of {n} galaxies; {len(refused)} refused, see the .refused.csv beside it"
    )
    if args.sheet:
        from darkhaloscope.sources.sheet import draw_sheet

        draw_sheet(args.sheet, catalogue, args.out, dict(refused))
        print(f"{args.sheet}: picture sheet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
