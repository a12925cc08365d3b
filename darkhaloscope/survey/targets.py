"""Stage 3: galaxies of a catalogue that pass a target variant's and the brick quality cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from darkhaloscope.experiment import Splits, Targets
from darkhaloscope.records import BANDS
from darkhaloscope.survey.bricks import BrickTable, brick_at, brick_id, parse_names
from darkhaloscope.survey.catalogue import Catalogue, host_id
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.extinction import extinction
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.splits import GUARD, assign_splits, sky_cell


@dataclass(frozen=True)
class ColourCuts:
    """z < z_max, r - z > rz_min, z - W1 > zw1_min, AB magnitudes."""

    z_max: float
    rz_min: float
    zw1_min: float


VARIANTS = {
    "v1_pure_massive": ColourCuts(20.0, 0.5, 1.6),
    "v2_baseline_dr10": ColourCuts(20.4, 0.4, 1.6),
    "v3_color_relaxed": ColourCuts(20.4, 0.4, 0.8),
    "v4_mag_relaxed": ColourCuts(21.0, 0.4, 0.8),
    "v5_very_relaxed": ColourCuts(21.5, 0.3, 0.8),
}


@dataclass(frozen=True)
class Selection:
    """What `select_targets` found.

    columns: the columns of `records.TARGETS`, by name.
    counts: rows met ("rows"), kept ("targets") and left out, by the first cut each failed; they add up:
        rows = targets + all the others.
    """

    columns: dict[str, np.ndarray]
    counts: dict[str, int]


def colour_cuts(
    mag_r: np.ndarray, mag_z: np.ndarray, mag_w1: np.ndarray, cuts: ColourCuts
) -> dict[str, np.ndarray]:
    """Return, cut by cut, which galaxies pass; a NaN magnitude passes none.

    Args:
        mag_r, mag_z, mag_w1: (n,) AB magnitudes, all observed or all dereddened.
    """
    return {
        "z too faint": mag_z < cuts.z_max,
        "r - z too blue": mag_r - mag_z > cuts.rz_min,
        "z - W1 too blue": mag_z - mag_w1 > cuts.zw1_min,
    }


def quality_cuts(
    ebv: np.ndarray, psfsize_r: np.ndarray, psfdepth_r: np.ndarray, cuts: Targets
) -> dict[str, np.ndarray]:
    """Return, cut by cut, which bricks (or galaxies) pass: E(B-V) mag, PSF size arcsec, depth AB mag."""
    return {
        "ebv too high": ebv <= cuts.max_ebv,
        "psfsize_r too large": (psfsize_r > 0) & (psfsize_r <= cuts.max_psfsize_r),
        "psfdepth_r too shallow": psfdepth_r >= cuts.min_psfdepth_r,
    }


def good_bricks(bricks: BrickTable, cuts: Targets) -> np.ndarray:
    """Return which bricks of a table have every band and pass the quality cuts: (n,) bool."""
    b = bricks.columns
    kept = np.all([v > 0 for k, v in b.items() if k in _presence_columns()], axis=0)
    for passed in quality_cuts(b["ebv"], b["psfsize_r"], b["psfdepth_r"], cuts).values():
        kept &= passed
    return kept


def _presence_columns() -> list[str]:
    return [f"{kind}_{band}" for kind in ("psfsize", "nexp") for band in BANDS]


def select_targets(
    catalogue: Catalogue,
    targets: Targets,
    splits: Splits,
    seed: int,
    bricks: BrickTable | None = None,
    brick_splits: Mapping[str, str] | None = None,
) -> Selection:
    """Select the target galaxies of a catalogue, with their splits.

    Cuts, in this order: primary in its brick (BRICK_PRIMARY, or the position where the file has no such
    column), TYPE is not PSF (nor DUP), fluxes in r, z and W1 above 0, exposures in every band, the brick
    quality cuts, the variant's colour cuts on raw or dereddened magnitudes, duplicates, and the guard between
    splits. The quality cuts use the brick's row where `bricks` is given, else the object's own EBV, PSFSIZE
    and PSFDEPTH. mag_g is NaN where the g flux is not positive.

    Args:
        catalogue: rows of one or more files.
        targets: variant, kind of magnitudes, brick cuts.
        splits: how the sky is divided.
        seed: of the division.
        bricks: the release's survey-bricks table; needed for catalogues without PSFSIZE (DR8), whose PSF
            sizes and depths then come from it (psf_source = "brick_table").
        brick_splits: brick -> split, needed when `splits.method` is "region" (`splits.region_splits`);
            galaxies of other bricks are left out.

    Raises:
        CatalogueError: PSFSIZE columns are missing and no brick table is given.
        ValueError: method "region" without `brick_splits`.
    """
    if splits.method == "region" and brick_splits is None:
        raise ValueError('splits.method is "region": give brick_splits, made by splits.region_splits')
    c = _with_psf(catalogue, bricks)
    mags = {b: magnitude(c[f"flux_{b}"]) for b in (*BANDS, "w1")}
    dered = {b: m - extinction(c["ebv"], b) for b, m in mags.items()}
    used = dered if targets.magnitudes == "dereddened" else mags
    cuts = _row_cuts(c, targets, bricks)
    cuts |= colour_cuts(used["r"], used["z"], used["w1"], VARIANTS[targets.variant])
    counts = {"rows": len(catalogue)}
    kept = _apply(cuts, counts)
    ids = host_id(c["release"][kept], c["brickid"][kept], c["objid"][kept])
    unique = keep_unique(ids, c["ra"][kept], c["dec"][kept])
    counts["duplicate"] = int(np.count_nonzero(~unique))
    kept, ids = kept[unique], ids[unique]
    cell, split = _splits(c, kept, splits, seed, brick_splits)
    counts[GUARD] = int(np.count_nonzero(split == GUARD))
    counts["brick not in a region"] = int(np.count_nonzero(split == ""))
    final = (split != GUARD) & (split != "")
    counts["targets"] = int(np.count_nonzero(final))
    columns = {"host_id": ids, "sky_cell": cell, "region_split": split.astype(object)}
    columns |= {k: c[k][kept] for k in ("ra", "dec", "ebv", *_psf_columns())}
    columns |= {k: c[k][kept].astype(object) for k in ("brickname", "type", "psf_source")}
    columns |= {f"mag_{b}": m[kept] for b, m in mags.items()}
    columns |= {f"mag_dered_{b}": m[kept] for b, m in dered.items()}
    nothing = np.full(len(kept), np.nan, np.float32)
    columns |= {k: c[k][kept] if k in c else nothing for k in ("shape_r", "shape_e1", "shape_e2")}
    return Selection({k: v[final] for k, v in columns.items()}, counts)


def _psf_columns() -> list[str]:
    return [f"{kind}_{band}" for kind in ("psfsize", "psfdepth") for band in BANDS]


def _with_psf(catalogue: Catalogue, bricks: BrickTable | None) -> dict[str, np.ndarray]:
    """Return the columns, PSF sizes and depths from the brick table where the catalogue has no sizes."""
    c = dict(catalogue.columns)
    missing = [n for n in _psf_columns() if n in catalogue.absent]
    if not missing:
        return {**c, "psf_source": np.full(len(catalogue), "catalogue")}
    if bricks is None:
        raise CatalogueError(
            f"{catalogue.source}: no columns {', '.join(n.upper() for n in missing)} (DR8 has none); "
            "give the release's survey-bricks table, whose PSF sizes are then used"
        )
    index = _brick_index(c, bricks)
    for name in _psf_columns():
        value = bricks.columns[name][index].astype(np.float64) if len(bricks) else np.zeros(len(index))
        c[name] = np.where((index >= 0) & (value > 0), value, np.nan)
    return {**c, "psf_source": np.full(len(catalogue), "brick_table")}


def _row_cuts(
    c: Mapping[str, np.ndarray], targets: Targets, bricks: BrickTable | None
) -> dict[str, np.ndarray]:
    """Return the cuts that come before the colours, and the quality cuts, in order of application."""
    present = np.ones(len(c["ra"]), dtype=bool)
    for band in BANDS:
        present &= (c[f"psfsize_{band}"] > 0) & (c[f"psfdepth_{band}"] > 0)
        present &= c[f"nobs_{band}"] > 0 if f"nobs_{band}" in c else True
    cuts = {
        "not primary in its brick": c["brick_primary"] if "brick_primary" in c else _inside_brick(c),
        "star (type PSF) or duplicate (DUP)": ~np.isin(c["type"], ("PSF", "DUP")),
        "flux in r, z or W1 not positive": (c["flux_r"] > 0) & (c["flux_z"] > 0) & (c["flux_w1"] > 0),
        "a band without exposures": present,
    }
    if bricks is None:
        return cuts | quality_cuts(c["ebv"], c["psfsize_r"], c["psfdepth_r"], targets)
    index = _brick_index(c, bricks)
    b = bricks.columns
    at = {k: b[k][index] if len(bricks) else np.zeros(len(index)) for k in ("ebv", "psfsize_r", "psfdepth_r")}
    cuts["brick not in the brick table"] = index >= 0
    return cuts | quality_cuts(at["ebv"], at["psfsize_r"], at["psfdepth_r"], targets)


def _brick_index(c: Mapping[str, np.ndarray], bricks: BrickTable) -> np.ndarray:
    """Return each row's row number in the brick table, looking names up once a brick."""
    _, first, inverse = np.unique(c["brickid"], return_index=True, return_inverse=True)
    return bricks.index(c["brickname"][first])[inverse]


def _inside_brick(c: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tell which rows lie within their own brick's bounds: what BRICK_PRIMARY says where it is absent."""
    _, first, inverse = np.unique(c["brickid"], return_index=True, return_inverse=True)
    own = brick_id(*parse_names(c["brickname"][first]))[inverse]
    return brick_id(*brick_at(c["ra"], c["dec"])) == own


def _apply(cuts: Mapping[str, np.ndarray], counts: dict[str, int]) -> np.ndarray:
    """Apply cuts in order; count what each takes of the rest; return the indices of the rows left."""
    left = np.ones(counts["rows"], dtype=bool)
    for name, passed in cuts.items():
        counts[name] = int(np.count_nonzero(left & ~passed))
        left &= passed
    return np.flatnonzero(left)


def _splits(
    c: Mapping[str, np.ndarray],
    kept: np.ndarray,
    splits: Splits,
    seed: int,
    brick_splits: Mapping[str, str] | None,
) -> tuple[np.ndarray, np.ndarray]:
    ra, dec = c["ra"][kept], c["dec"][kept]
    if splits.method == "healpix" or brick_splits is None:
        return assign_splits(ra, dec, splits, seed)
    split = np.array([brick_splits.get(str(name), "") for name in c["brickname"][kept]], dtype="U5")
    return sky_cell(ra, dec, splits.nside), split


def keep_unique(ids: np.ndarray, ra: np.ndarray, dec: np.ndarray, radius_arcsec: float = 1.0) -> np.ndarray:
    """Tell which rows to keep so that no galaxy is there twice.

    Dropped are repeats of an id and, of two objects of different bricks or releases within `radius_arcsec`
    (the overlap of bricks, or of the northern and southern surveys), the one with the larger id.

    Args:
        ids: (n,) host_id.
        ra, dec: (n,) deg.

    Returns:
        (n,) bool.
    """
    keep = np.zeros(len(ids), dtype=bool)
    keep[np.unique(ids, return_index=True)[1]] = True
    index = np.flatnonzero(keep)
    a, d = np.radians(ra[index]), np.radians(dec[index])
    xyz = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)
    if len(index) < 2:
        return keep
    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    pairs = index[cKDTree(xyz).query_pairs(chord, output_type="ndarray")]
    pairs = pairs[ids[pairs[:, 0]] >> 16 != ids[pairs[:, 1]] >> 16]
    keep[np.where(ids[pairs[:, 0]] > ids[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = False
    return keep
