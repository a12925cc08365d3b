"""A release in the survey's layout, small enough to run every Spark stage in seconds."""

from pathlib import Path

import fitsio
import numpy as np
from survey_testing import SCALE, SWEEP_TYPES, write_brick, write_plane

from darkhaloscope.survey.bricks import brick_centre, brick_id, names_at, parse_names
from darkhaloscope.survey.coadds import file_path

SIDE = 400
GOOD = ("0591m305", "0601m305", "1216p190", "2001p002", "2213p005", "0102m100", "3001p057")
TRUNCATED, LACKS_Z, MISSING = "1501p010", "1701p010", "1801p010"
PER_BRICK = 12
DEPTH_IVAR = (10 ** (-0.4 * (24.5 - 22.5)) / 5) ** -2


def _real_name(near: str) -> str:
    """Return the name of the brick that a rounded name lies in: names must be those of the brick grid."""
    ra, dec = float(near[:4]) / 10, (1 if near[4] == "p" else -1) * float(near[5:]) / 10
    return str(names_at(np.array([ra]), np.array([dec]))[0])


def write_small_sky(base: Path) -> dict[str, list[str]]:
    """Write coadds, one sweep and the brick table; return brick names by what is wrong with them."""
    names = {"good": [_real_name(n) for n in GOOD]}
    names |= {
        k: [_real_name(v)] for k, v in (("truncated", TRUNCATED), ("lacks_z", LACKS_Z), ("missing", MISSING))
    }
    for i, name in enumerate(names["good"] + names["truncated"]):
        write_brick(base, name, side=SIDE, seed=i)
    (cut,) = names["truncated"]
    path = base / file_path(cut, "image", "r")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_brick(base, names["lacks_z"][0], bands="gr", side=SIDE)
    edge = base / file_path(names["good"][0], "image", "g")
    pixels = fitsio.read(str(edge), ext=1)
    pixels[:100] = np.nan
    write_plane(base, "image", "g", pixels, names["good"][0])
    everything = [n for group in names.values() for n in group]
    _write_sweep(base, everything)
    _write_table(base, everything)
    return names


def _write_sweep(base: Path, names: list[str]) -> None:
    rows = np.zeros(len(names) * PER_BRICK, SWEEP_TYPES)
    rng = np.random.default_rng(0)
    row, column = parse_names(names)
    ra, dec = brick_centre(row, column)
    at = np.repeat(np.arange(len(names)), PER_BRICK)
    offset = rng.uniform(-0.42 * SIDE, 0.42 * SIDE, (2, len(rows))) * SCALE
    rows["RA"] = ra[at] + offset[0] / np.cos(np.radians(dec[at]))
    rows["DEC"] = dec[at] + offset[1]
    rows["BRICKNAME"], rows["BRICKID"] = np.array(names)[at], brick_id(row, column)[at]
    rows["RELEASE"], rows["OBJID"] = 10000, np.tile(np.arange(PER_BRICK), len(names))
    rows["TYPE"], rows["EBV"] = "DEV", 0.03
    for band, flux in (("G", 3.0), ("R", 12.0), ("Z", 25.0), ("W1", 80.0)):
        rows[f"FLUX_{band}"] = flux * rng.uniform(0.8, 1.3, len(rows))
        rows[f"FLUX_IVAR_{band}"] = 400.0
    for band in "GRZ":
        rows[f"NOBS_{band}"], rows[f"PSFSIZE_{band}"], rows[f"PSFDEPTH_{band}"] = 3, 1.3, DEPTH_IVAR
    rows["SHAPE_R"] = 1.0
    rows["TYPE"][::PER_BRICK] = "PSF"  # one star a brick, for the counts
    (base / "sweep" / "10.1").mkdir(parents=True)
    fitsio.write(str(base / "sweep" / "10.1" / "sweep-000m090-360p090.fits"), rows)


def _write_table(base: Path, names: list[str]) -> None:
    row, column = parse_names(names)
    ra, dec = brick_centre(row, column)
    columns = {"brickname": np.array(names, "S8"), "ra": ra, "dec": dec, "ebv": np.full(len(ra), 0.03, "f4")}
    for band in "grz":
        columns[f"nexp_{band}"] = np.full(len(ra), 3, "i2")
        columns[f"psfsize_{band}"] = np.full(len(ra), 1.3, "f4")
        columns[f"psfdepth_{band}"] = np.full(len(ra), 24.5, "f4")
    data = list(columns.values())
    fitsio.write(str(base / "survey-bricks-dr10-south.fits.gz"), data, names=list(columns))
