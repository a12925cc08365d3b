"""A made sweep with the columns of DR10's, for benchmarks and tests: sky, magnitudes and colours by chance."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np

from darkhaloscope.survey.bricks import brick_at, brick_id, names_at
from darkhaloscope.survey.photometry import flux

OPTICAL, ALL = ("G", "R", "I", "Z"), ("G", "R", "I", "Z", "W1", "W2", "W3", "W4")


def _each(names: str, bands: tuple[str, ...], kind: str) -> list[tuple[str, str]]:
    return [(f"{name}_{band}", kind) for name in names.split() for band in bands]


# legacysurvey.org/dr10/files, sweep catalogues: 165 columns, 701 bytes a row
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
    rows["RA"], rows["DEC"] = rng.uniform(*ra, n), rng.uniform(*dec, n)
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


def write_sweep(path: Path, n: int, seed: int = 1, rows_at_a_time: int = 100_000, **where) -> Path:
    """Write a sweep of `n` rows in pieces, so that the writer's memory stays small."""
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        for start in range(0, n, rows_at_a_time):
            rows = sweep_rows(min(rows_at_a_time, n - start), seed + start, **where)
            rows["OBJID"] += start // rows_at_a_time * 2000  # ids stay distinct from piece to piece
            if start == 0:
                fits.write(rows)
            else:
                fits[-1].append(rows)
    return path
