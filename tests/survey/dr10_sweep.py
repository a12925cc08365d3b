"""A made sweep with the columns of DR10's, a million rows if need be: positions, magnitudes and colours by chance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fitsio
import numpy as np

from darkhaloscope.sections import Splits, Targets
from darkhaloscope.survey.bricks import BrickTable, brick_at, brick_centre, brick_id, names_at, parse_names
from darkhaloscope.survey.catalogue import read_chunks
from darkhaloscope.survey.photometry import flux
from darkhaloscope.survey.targets import select_targets

OPTICAL, ALL = ("G", "R", "I", "Z"), ("G", "R", "I", "Z", "W1", "W2", "W3", "W4")


def _each(names: str, bands: tuple[str, ...], kind: str) -> list[tuple[str, str]]:
    return [(f"{name}_{band}", kind) for name in names.split() for band in bands]


# Columns about as in a DR10 sweep, from the DR8 and DR9 extracts and memory; the light curves are cut short
DR10_SWEEP: list[tuple] = [
    ("RELEASE", "i2"), ("BRICKID", "i4"), ("BRICKNAME", "S8"), ("OBJID", "i4"), ("TYPE", "S3"), ("RA", "f8"),
    ("DEC", "f8"), ("RA_IVAR", "f4"), ("DEC_IVAR", "f4"), ("DCHISQ", "f4", (5,)), ("EBV", "f4"),
    *_each("FLUX FLUX_IVAR MW_TRANSMISSION", ALL, "f4"), *_each("NOBS", ALL, "i2"),
    *_each("RCHISQ FRACFLUX", ALL, "f4"), *_each("FRACMASKED FRACIN", OPTICAL, "f4"),
    *_each("ANYMASK ALLMASK", OPTICAL, "i2"), ("WISEMASK_W1", "u1"), ("WISEMASK_W2", "u1"),
    *_each("PSFSIZE PSFDEPTH GALDEPTH", OPTICAL, "f4"), ("PSFDEPTH_W1", "f4"), ("PSFDEPTH_W2", "f4"),
    *((f"SHAPE_{k}", "f4") for k in ("R", "R_IVAR", "E1", "E1_IVAR", "E2", "E2_IVAR")), ("SERSIC", "f4"),
    ("SERSIC_IVAR", "f4"), *_each("FIBERFLUX FIBERTOTFLUX", OPTICAL, "f4"), ("REF_CAT", "S2"), ("REF_ID", "i8"),
    ("REF_EPOCH", "f4"), *((f"GAIA_PHOT_{b}_MEAN_MAG", "f4") for b in ("G", "BP", "RP")),
    *((f"GAIA_PHOT_{b}_MEAN_FLUX_OVER_ERROR", "f4") for b in ("G", "BP", "RP")),
    ("GAIA_ASTROMETRIC_EXCESS_NOISE", "f4"), ("GAIA_DUPLICATED_SOURCE", "?"),
    ("GAIA_PHOT_BP_RP_EXCESS_FACTOR", "f4"), ("GAIA_ASTROMETRIC_SIGMA5D_MAX", "f4"),
    ("GAIA_ASTROMETRIC_PARAMS_SOLVED", "u1"), ("PARALLAX", "f4"), ("PARALLAX_IVAR", "f4"), ("PMRA", "f4"),
    ("PMRA_IVAR", "f4"), ("PMDEC", "f4"), ("PMDEC_IVAR", "f4"), ("MASKBITS", "i4"), ("FITBITS", "i2"),
    *_each("LC_FLUX LC_FLUX_IVAR", ("W1", "W2"), "f4"),
]  # fmt: skip


def sweep_rows(
    n: int, seed: int = 1, ra: tuple[float, float] = (150, 160), dec: tuple[float, float] = (0, 5)
):
    """Return `n` rows in the columns of a DR10 sweep; some in a hundred pass the loosest cuts."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, DR10_SWEEP)
    rows["RA"], rows["DEC"] = rng.uniform(150, 160, n), rng.uniform(0, 5, n)
    row, column = brick_at(rows["RA"], rows["DEC"])
    rows["BRICKID"], rows["BRICKNAME"] = brick_id(row, column), names_at(rows["RA"], rows["DEC"]).astype("S8")
    order = np.argsort(rows["BRICKID"], kind="stable")
    rows = rows[order]
    first = np.searchsorted(rows["BRICKID"], rows["BRICKID"])
    rows["RELEASE"], rows["OBJID"] = 10000, np.arange(n) - first
    kinds = np.array([b"PSF", b"REX", b"EXP", b"DEV", b"SER", b"DUP"])
    rows["TYPE"] = rng.choice(kinds, n, p=(0.35, 0.35, 0.15, 0.07, 0.07, 0.01))
    z = 23.5 - rng.exponential(1.2, n)
    r_z, g_r, z_w1 = rng.normal(0.6, 0.5, n), rng.normal(0.8, 0.4, n), rng.normal(0.5, 0.9, n)
    for band, mag in (("G", z + r_z + g_r), ("R", z + r_z), ("I", z + r_z / 2), ("Z", z), ("W1", z - z_w1)):
        noise = rng.normal(0, 0.05, n)
        rows[f"FLUX_{band}"], rows[f"FLUX_IVAR_{band}"] = flux(mag) + noise, 400.0
    rows["EBV"] = rng.gamma(4, 0.012, n)
    for band in OPTICAL:
        rows[f"NOBS_{band}"] = rng.poisson(4, n)
        rows[f"PSFSIZE_{band}"] = rng.normal(1.3, 0.12, n)
        rows[f"PSFDEPTH_{band}"] = (5 / flux(rng.normal(24.3, 0.3, n))) ** 2
    rows["SHAPE_R"] = rng.gamma(2, 0.5, n)
    return rows


def write_sweep(path: Path, n: int, block: int = 100_000, seed: int = 1) -> Path:
    """Write a sweep of `n` rows, one block of rows again and again with other OBJIDs, in little memory."""
    rows = sweep_rows(min(block, n), seed)
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        fits.write(rows)
        for start in range(block, n, block):
            rows["OBJID"] += 2000
            fits[-1].append(rows[: n - start])
    return path


def brick_table(rows: np.ndarray) -> BrickTable:
    """Return a survey-bricks table of the bricks that have rows."""
    names = np.unique(rows["BRICKNAME"]).astype("U8")
    ra, dec = brick_centre(*parse_names(names))
    values = {"ebv": 0.03, **{f"psfsize_{b}": 1.3 for b in "grz"}, **{f"psfdepth_{b}": 24.3 for b in "grz"}}
    columns = {name: np.full(len(names), value) for name, value in values.items()}
    return BrickTable({"brickname": names, "ra": ra, "dec": dec, **columns})


def memory_of_selecting(path: Path) -> dict[str, float]:
    """Return the highest memory, MiB, of a process that reads and cuts a sweep, and what it had before."""
    done = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, text=True, check=True)
    before, peak = map(float, done.stdout.split())
    return {"before_mib": before, "peak_mib": peak, "file_mib": path.stat().st_size / 2**20}


def _high_water() -> float:
    """Return this process's own highest memory in MiB (its parent's is counted in getrusage's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    start = _high_water()
    for piece in read_chunks(sys.argv[1]):
        select_targets(piece, Targets(), Splits(), 42)
    print(start, _high_water())
