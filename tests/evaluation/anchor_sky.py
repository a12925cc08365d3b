"""A small release with planted lenses in the survey's layout, and catalogues of where they are said to be."""

import csv

import fitsio
import numpy as np
from survey_testing import SCALE, SIDE, brick_header, galaxies, write_brick, write_plane

from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.coadds import file_path

BRICKS = ("1501p020", "1503p020", "1506p020")
WITH_TRACTOR, NO_COADD = BRICKS[1], BRICKS[2]  # the others' catalogue is the sweep
PEAK = {"g": 0.2, "r": 0.6, "z": 1.0}
THETA_E = 2.4


def place(brick, dx=0.0, dy=0.0):
    """Return ra, dec of a point dx, dy pixels east and north of a brick's centre."""
    ra, dec = (float(v[0]) for v in brick_centre(*parse_names([brick])))
    return ra + dx * SCALE / np.cos(np.radians(dec)), dec + dy * SCALE


# name -> (brick, pixels east, pixels north, arc, mag_z, type)
OBJECTS = {
    "lens one": (BRICKS[0], 20, 10, True, 18.5, "SER"),
    "lens two": (BRICKS[1], -15, 5, True, 19.0, "DEV"),
    "ring": (BRICKS[0], -60, 40, False, 18.0, "EXP"),
    "merger": (BRICKS[1], 50, -40, False, 18.3, "SER"),
    "misnamed": (BRICKS[1], -60, -60, False, 18.4, "DEV"),
    "star": (BRICKS[0], 60, -60, False, 17.0, "PSF"),
    "faint": (BRICKS[0], -60, -60, False, 21.5, "REX"),
    "alone": (NO_COADD, 0, 0, True, 18.6, "SER"),
}


def write_sky(base):
    """Write bricks, sweep, one Tractor file and the brick table."""
    for number, brick in enumerate(BRICKS[:2]):
        write_brick(base, brick, seed=number, maskbits=False)
        for band in "grz":
            path = base / file_path(brick, "image", band)
            image = fitsio.read(str(path), ext=1)
            for name, (where, dx, dy, arc, _, _) in OBJECTS.items():
                if where == brick and name != "faint":
                    image += light(dx, dy, arc) * PEAK[band]
            write_plane(base, "image", band, image.astype(np.float32), brick)
    rows = np.concatenate([_row(name, i) for i, name in enumerate(OBJECTS)])
    (base / "sweep" / "10.1").mkdir(parents=True)
    fitsio.write(str(base / "sweep" / "10.1" / "sweep-150p000-160p005.fits"), rows)
    tractor = base / "tractor" / WITH_TRACTOR[:3] / f"tractor-{WITH_TRACTOR}.fits"
    tractor.parent.mkdir(parents=True)
    fitsio.write(str(tractor), rows[rows["BRICKNAME"] == WITH_TRACTOR.encode()])
    ra, dec = brick_centre(*parse_names(BRICKS))
    columns = {"brickname": np.array(BRICKS, "S8"), "ra": ra, "dec": dec, "ebv": np.full(3, 0.03, "f4")}
    for band in "grz":
        columns |= {f"nexp_{band}": np.full(3, 3, "i2"), f"psfsize_{band}": np.full(3, 1.3, "f4")}
        columns[f"psfdepth_{band}"] = np.full(3, 24.5, "f4")
    table = base / "survey-bricks-dr10-south.fits.gz"
    fitsio.write(str(table), list(columns.values()), names=list(columns))
    return base


def light(dx, dy, arc, side=SIDE):
    """Return a galaxy with a peak of 1, with a ring around it where it is a lens, (side, side)."""
    y, x = np.mgrid[:side, :side]
    radius = np.hypot(x - ((side - 1) / 2 - dx), y - ((side - 1) / 2 + dy)) * 0.262
    ring = 0.3 * np.exp(-0.5 * ((radius - THETA_E) / 0.5) ** 2)
    return np.exp(-0.5 * (radius / 0.7) ** 2) + arc * ring


def _row(name, number):
    brick, dx, dy, _, mag_z, kind = OBJECTS[name]
    ra, dec = place(brick, dx, dy)
    rz = 0.8 if name == "lens one" else 0.1  # bluer than the target cuts allow
    return galaxies(1, mag_z, rz, 1.2, ra, dec, OBJID=number, TYPE=kind.encode())


def write_positions(path, rows, columns=("name", "ra", "dec", "type", "theta_e_arcsec", "src_mag_r")):
    """Write a CSV of dicts; return its path."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def at(known, dx=0.0, dy=0.0, **more):
    """Return the row of an object, or of a place so many pixels off it."""
    brick, x, y, *_ = OBJECTS[known]
    ra, dec = place(brick, x + dx, y + dy)
    return {"name": known, "ra": ra, "dec": dec, **more}


def write_cutout(path, name, blank=False, size=66):
    """Write what a cutout service answers for an object."""
    brick, dx, dy, arc, *_ = OBJECTS[name]
    ra, dec = place(brick, dx, dy)
    noise = np.random.default_rng(5).normal(0, 0.004, (3, size, size))
    image = noise + light(0, 0, arc, size) * np.array(list(PEAK.values()))[:, None, None]
    header = brick_header(brick, size) | {"CRVAL1": ra, "CRVAL2": dec}
    path.parent.mkdir(exist_ok=True)
    image = np.zeros_like(image) if blank else image
    fitsio.write(str(path), image.astype(np.float32), header=header, clobber=True)
