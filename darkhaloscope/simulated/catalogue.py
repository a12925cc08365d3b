"""What a survey's catalogue would say of the painted sky: measured, blended and typed, not the painter's truth.

Columns, types and units are those of DR10 sweep files and of survey-bricks-dr10-south: PSFDEPTH_* is inverse
variance (nmgy^-2) in the sweeps, a 5-sigma magnitude in the brick table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from darkhaloscope.lensing.psf import SIGMA_TO_FWHM
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC
from darkhaloscope.simulated.observing import Conditions, noise_pixels
from darkhaloscope.simulated.populations import Objects
from darkhaloscope.simulated.sky_plan import brick_area_deg2
from darkhaloscope.survey.bricks import brick_bounds, brick_centre, brick_id, parse_names
from darkhaloscope.survey.extinction import COEFFICIENTS, extinction
from darkhaloscope.survey.photometry import depth_magnitude, flux
from darkhaloscope.survey.wcs import TanWcs

DETECTION_SNR = 6.0
BLEND_ARCSEC = 1.0
# Correlated pixels make fluxes scatter more than FLUX_IVAR says; the survey's own columns have the same fault.
EXCESS_SCATTER = 1.1
SYSTEMATIC = 0.015  # of the flux: no galaxy is exactly a Sersic profile
WISE_IVAR = {"w1": 3.9, "w2": 0.95}  # nmgy^-2, those of the DR9 Tractor file
ALL_BANDS = "griz"
RELEASE = 10000  # DR10, DECam


@dataclass(frozen=True)
class Observed:
    """One observed brick: what the catalogue is measured on.

    sky_invvar, psfsize: (band, y, x), in BANDS order; a band that was not observed has sky_invvar 0.
    nexp: (band, y, x); maskbits: (y, x).
    """

    name: str
    wcs: TanWcs
    conditions: Conditions
    sky_invvar: np.ndarray
    psfsize: np.ndarray
    nexp: np.ndarray
    maskbits: np.ndarray


def in_primary(name: str, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Tell which positions are in the brick's own area, [RA1, RA2) x [DEC1, DEC2)."""
    ra1, ra2, dec1, dec2 = (float(v[0]) for v in brick_bounds(*parse_names([name])))
    return (ra >= ra1) & (ra < ra2) & (dec >= dec1) & (dec < dec2)


def measure(rng: np.random.Generator, objects: Objects, observed: Observed) -> dict[str, np.ndarray]:
    """Measure a brick's objects as the survey would.

    Faint neighbours within a second of arc are swallowed by the brighter; what is below 6 sigma in all bands
    together is lost; fluxes, positions, sizes and shapes scatter by the noise; poorly resolved galaxies become
    REX or PSF.

    Args:
        rng: the brick's own generator.
        objects: with x, y (pixels), ra, dec added.
        observed: the brick's conditions.

    Returns:
        Sweep columns, upper-case names, for objects in the brick's primary area.
    """
    width, height = observed.wcs.width, observed.wcs.height
    inside = (objects["x"] > -0.5) & (objects["x"] < width - 0.5)
    inside &= (objects["y"] > -0.5) & (objects["y"] < height - 0.5)
    inside &= in_primary(observed.name, objects["ra"], objects["dec"])
    seen = {name: values[inside] for name, values in objects.items()}
    truth = np.stack([flux(seen[f"mag_{band}"]) for band in (*BANDS, "w1")], axis=1)
    survives, truth = _blend(seen, truth)
    seen, truth = {name: values[survives] for name, values in seen.items()}, truth[survives]
    at = (np.floor(seen["y"] + 0.5).astype(int), np.floor(seen["x"] + 0.5).astype(int))
    psfsize, sky_ivar = observed.psfsize[:, at[0], at[1]].T, observed.sky_invvar[:, at[0], at[1]].T
    spread = (psfsize / SIGMA_TO_FWHM) ** 2 + (0.7 * seen["reff_arcsec"][:, None]) ** 2
    ivar = sky_ivar / noise_pixels(SIGMA_TO_FWHM * np.sqrt(spread))
    snr = np.sqrt(np.sum(truth[:, :3] ** 2 * ivar, axis=1))
    kept = snr > DETECTION_SNR
    seen = {name: values[kept] for name, values in seen.items()}
    at = (at[0][kept], at[1][kept])
    columns = _identity(rng, seen, observed, snr[kept], psfsize[kept].max(axis=1))
    columns |= _fluxes(rng, truth[kept], ivar[kept], observed.conditions.ebv)
    columns |= _shapes(rng, seen, snr[kept], psfsize[kept].min(axis=1))
    columns |= _depths(observed, at, psfsize[kept], sky_ivar[kept])
    return columns


def _blend(seen: Objects, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the light of faint neighbours to the brighter one; return who survives, and the fluxes."""
    survives, truth = np.ones(len(truth), dtype=bool), truth.copy()
    if len(truth) > 1:
        position = np.stack([seen["x"], seen["y"]], axis=1) * PIXEL_SCALE_ARCSEC
        pairs = cKDTree(position).query_pairs(BLEND_ARCSEC, output_type="ndarray")
        order = np.argsort(-truth[pairs, 1].max(axis=1, initial=0.0), kind="stable")
        for a, b in pairs[order]:
            bright, faint = (a, b) if truth[a, 1] >= truth[b, 1] else (b, a)
            if survives[bright] and survives[faint]:
                truth[bright] += truth[faint]
                survives[faint] = False
    return survives, truth


def _identity(
    rng: np.random.Generator, seen: Objects, observed: Observed, snr: np.ndarray, psfsize: np.ndarray
) -> dict[str, np.ndarray]:
    count = len(snr)
    sigma = np.maximum(0.01, 0.6 * psfsize / snr)  # arcsec, each axis
    east, north = sigma * rng.standard_normal((2, count)) / PIXEL_SCALE_ARCSEC
    ra, dec = observed.wcs.pixel_to_sky(seen["x"] - east, seen["y"] + north)
    brick = int(brick_id(*parse_names([observed.name]))[0])
    ivar = ((3600.0 / sigma) ** 2).astype(np.float32)
    return {
        "RELEASE": np.full(count, RELEASE, np.int16),
        "BRICKID": np.full(count, brick, np.int32),
        "BRICKNAME": np.full(count, observed.name, dtype="U8"),
        "OBJID": np.arange(count, dtype=np.int32),
        "RA": ra,
        "DEC": dec,
        "RA_IVAR": ivar,
        "DEC_IVAR": ivar,
        "EBV": np.full(count, observed.conditions.ebv, np.float32),
    }


def _fluxes(
    rng: np.random.Generator, truth: np.ndarray, ivar: np.ndarray, ebv: float
) -> dict[str, np.ndarray]:
    """Measured fluxes: grz from the images, i not observed, WISE by forced photometry."""
    columns: dict[str, np.ndarray] = {}
    count = len(truth)
    wise = {"w1": truth[:, 3], "w2": truth[:, 3] * 10 ** (-0.4 * 0.35)}
    for band in (*ALL_BANDS, "w1", "w2"):
        if band in BANDS:
            value, inverse = truth[:, BANDS.index(band)], ivar[:, BANDS.index(band)]
        elif band in wise:
            value, inverse = wise[band], np.full(count, WISE_IVAR[band])
        else:
            value, inverse = np.zeros(count), np.zeros(count)
        sigma = EXCESS_SCATTER / np.sqrt(np.where(inverse > 0, inverse, 1.0))
        noisy = value * (1.0 + SYSTEMATIC * rng.standard_normal(count)) + sigma * rng.standard_normal(count)
        columns[f"FLUX_{band.upper()}"] = np.where(inverse > 0, noisy, 0.0).astype(np.float32)
        columns[f"FLUX_IVAR_{band.upper()}"] = inverse.astype(np.float32)
        through = np.full(count, 10.0 ** (-0.4 * COEFFICIENTS[band] * ebv))
        columns[f"MW_TRANSMISSION_{band.upper()}"] = through.astype(np.float32)
    return columns


def _shapes(
    rng: np.random.Generator, seen: Objects, snr: np.ndarray, psfsize: np.ndarray
) -> dict[str, np.ndarray]:
    """Type and shape. SHAPE_R is the half-light radius along the major axis; E1, E2 follow the sky, E of N."""
    count = len(snr)
    resolved = snr * (seen["reff_arcsec"] / psfsize) ** 2
    kind = np.where(resolved < 8.0, "REX", seen["type"])
    kind = np.where((resolved < 0.8) | (seen["kind"] == "star"), "PSF", kind)
    radius = seen["reff_arcsec"] / np.sqrt(np.where(kind == "REX", 1.0, seen["q"]))
    noise = np.minimum(0.5, 0.02 + 1.0 / snr)
    radius = np.where(kind == "PSF", 0.0, radius * np.exp(noise * rng.standard_normal(count)))
    e = (1.0 - seen["q"]) / (1.0 + seen["q"])
    position_angle = seen["phi_rad"] - np.pi / 2.0  # north is +y and east is -x
    shaped = ~np.isin(kind, ("PSF", "REX"))
    e1, e2 = (
        np.where(shaped, e * f(2.0 * position_angle) + 0.5 * noise * rng.standard_normal(count), 0.0)
        for f in (np.cos, np.sin)
    )
    shrink = np.minimum(1.0, 0.95 / np.maximum(np.hypot(e1, e2), 1e-9))
    index = np.select([kind == "PSF", kind == "DEV", kind == "SER"], [0.0, 4.0, seen["n"]], 1.0)
    index = np.where(
        kind == "SER", np.clip(index * np.exp(noise * rng.standard_normal(count)), 0.5, 6.0), index
    )
    columns = {"SERSIC": index, "SHAPE_R": radius, "SHAPE_E1": e1 * shrink, "SHAPE_E2": e2 * shrink}
    columns["SHAPE_R_IVAR"] = np.where(radius > 0, 1.0 / np.maximum(noise * radius, 1e-6) ** 2, 0.0)
    for name in ("SHAPE_E1_IVAR", "SHAPE_E2_IVAR"):
        columns[name] = np.where(shaped, 1.0 / (0.5 * noise) ** 2, 0.0)
    columns["SERSIC_IVAR"] = np.where(kind == "SER", 1.0 / np.maximum(noise * index, 1e-6) ** 2, 0.0)
    return {"TYPE": kind.astype("U3")} | {name: v.astype(np.float32) for name, v in columns.items()}


def _depths(
    observed: Observed, at: tuple[np.ndarray, np.ndarray], psfsize: np.ndarray, sky_ivar: np.ndarray
) -> dict[str, np.ndarray]:
    """Exposures, seeing, depth (inverse variance of a point source's flux) and masks at each object's pixel."""
    count = len(psfsize)
    columns = {"MASKBITS": observed.maskbits[at].astype(np.int32), "FITBITS": np.zeros(count, np.int16)}
    for band in ALL_BANDS:
        there = BANDS.index(band) if band in BANDS else None
        ivar = np.zeros(count) if there is None else sky_ivar[:, there]
        size = np.zeros(count) if there is None else np.where(ivar > 0, psfsize[:, there], 0.0)
        nexp = np.zeros(count, np.int16) if there is None else observed.nexp[there][at]
        depth = np.where(ivar > 0, ivar / np.maximum(noise_pixels(size), 1e-9), 0.0)
        upper = band.upper()
        columns[f"NOBS_{upper}"] = nexp.astype(np.int16)
        columns[f"PSFSIZE_{upper}"] = size.astype(np.float32)
        columns[f"PSFDEPTH_{upper}"] = depth.astype(np.float32)
        columns[f"GALDEPTH_{upper}"] = (depth * (size**2 / (size**2 + 0.8**2))).astype(np.float32)
        allmask = 0 if there is None else (observed.maskbits[at] >> (5 + there)) & 1
        columns[f"ALLMASK_{upper}"] = np.broadcast_to(allmask, count).astype(np.int16)
    return columns


def brick_row(observed: Observed, measured: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Return a brick's row of survey-bricks-dr10-south: depths here are 5-sigma magnitudes."""
    (ra,), (dec,) = brick_centre(*parse_names([observed.name]))
    ra1, ra2, dec1, dec2 = (float(v[0]) for v in brick_bounds(*parse_names([observed.name])))
    row: dict[str, object] = {"brickname": observed.name, "ra": float(ra), "dec": float(dec)}
    medians = {}
    for band in ALL_BANDS:
        i = BANDS.index(band) if band in BANDS else None
        covered = None if i is None else observed.sky_invvar[i][::4, ::4] > 0
        if i is None or covered is None or not covered.any():
            medians[band] = (0, 0.0, 0.0)
            continue
        size = float(np.median(observed.psfsize[i][::4, ::4][covered]))
        ivar = float(np.median(observed.sky_invvar[i][::4, ::4][covered]))
        medians[band] = (
            int(np.median(observed.nexp[i][::4, ::4])),
            size,
            float(depth_magnitude(ivar / noise_pixels(size))),
        )
    row |= {f"nexp_{b}": np.int16(m[0]) for b, m in medians.items()}
    kinds = measured["TYPE"]
    row |= {"nobjs": np.int32(len(kinds))}
    row |= {f"n{t.lower()}": np.int32((kinds == t).sum()) for t in ("PSF", "REX", "EXP", "DEV", "SER")}
    row |= {f"psfsize_{b}": np.float32(m[1]) for b, m in medians.items()}
    row |= {f"psfdepth_{b}": np.float32(m[2]) for b, m in medians.items()}
    row |= {f"galdepth_{b}": np.float32(max(m[2] - 0.25, 0.0)) for b, m in medians.items()}
    row |= {"ebv": np.float32(observed.conditions.ebv)}
    row |= {
        f"ext_{b}": np.float32(extinction(np.asarray(observed.conditions.ebv), b))
        for b in (*ALL_BANDS, "w1", "w2")
    }
    row |= {"survey_primary": np.bool_(True), "brickid": np.int32(brick_id(*parse_names([observed.name]))[0])}
    row |= {"ra1": ra1, "ra2": ra2, "dec1": dec1, "dec2": dec2}
    return row | {"area": np.float32(brick_area_deg2(observed.name))}


def sweep_name(ra: float, dec: float) -> str:
    """Return the name of the sweep file a position is in: blocks of 10 by 5 degrees."""
    ra0, dec0 = int(ra // 10) * 10, int(dec // 5) * 5

    def corner(a: int, d: int) -> str:
        return f"{a:03d}{'m' if d < 0 else 'p'}{abs(d):03d}"

    return f"sweep-{corner(ra0, dec0)}-{corner(ra0 + 10, dec0 + 5)}.fits"
