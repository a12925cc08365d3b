"""Stage 3: galaxies of a catalogue that pass a target variant's and the brick quality cuts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from darkhaloscope.records import BANDS
from darkhaloscope.sections import Splits, Targets
from darkhaloscope.survey.bricks import BrickTable, brick_at, brick_id
from darkhaloscope.survey.catalogue import Catalogue, host_id
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.extinction import extinction
from darkhaloscope.survey.fits_rows import text
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.redshifts import host_redshifts
from darkhaloscope.survey.splits import GUARD, assign_splits, region_splits, sky_cell


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


def brick_splits_of(bricks: BrickTable, targets: Targets, splits: Splits, seed: int) -> dict[str, str] | None:
    """Return brick -> split of the good bricks where the sky is divided by regions; None where it is by cells."""
    if splits.method != "region":
        return None
    return region_splits(bricks.columns["brickname"][good_bricks(bricks, targets)], splits, seed)


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
    """Select the target galaxies of a catalogue, with their splits and redshifts.

    Cuts, in this order: on the sky, primary in its brick (BRICK_PRIMARY, or the position where the file has no
    such column), TYPE is not PSF (nor DUP), fluxes in r, z and W1 above 0 and measured (FLUX_IVAR above 0),
    exposures in every band, the brick quality cuts, the variant's colour cuts on raw or dereddened magnitudes,
    and the guard between splits. The quality cuts use the brick's row where `bricks` is given, else the object's
    own EBV, PSFSIZE and PSFDEPTH. mag_g is NaN where the g flux is not positive or not measured. Galaxies that
    are there twice are still in it: they may be in two files (`duplicates.keep_unique`).

    Args:
        catalogue: rows of one or more files, or a piece of one.
        targets: variant, kind of magnitudes, brick cuts.
        splits: how the sky is divided.
        seed: of the division.
        bricks: the release's survey-bricks table; needed for catalogues without PSFSIZE (DR8), whose PSF
            sizes and depths then come from it (psf_source = "brick_table").
        brick_splits: brick -> split, needed when `splits.method` is "region" (`brick_splits_of`);
            galaxies of other bricks are left out.

    Raises:
        CatalogueError: PSFSIZE columns are missing and no brick table is given.
        ValueError: method "region" without `brick_splits`.
    """
    if splits.method == "region" and brick_splits is None:
        raise ValueError('splits.method is "region": give brick_splits, made by brick_splits_of')
    rows = _Rows(catalogue, bricks)
    counts = {"rows": len(catalogue)}
    for cut in (_on_the_sky, _primary, _galaxy, _measured, _exposed, _good_quality, _red):
        alive = np.ones(len(rows.left), dtype=bool)
        for name, passed in cut(rows, targets).items():
            counts[name] = int(np.count_nonzero(alive & ~passed))
            alive &= passed
        rows.left = rows.left[alive]
    cell, split = _splits(rows, splits, seed, brick_splits)
    counts[GUARD] = int(np.count_nonzero(split == GUARD))
    counts["brick not in a region"] = int(np.count_nonzero(split == ""))
    final = (split != GUARD) & (split != "")
    rows.left, cell, split = rows.left[final], cell[final], split[final]
    counts["targets"] = len(rows.left)
    return Selection({"sky_cell": cell, "region_split": split.astype(object), **_columns(rows)}, counts)


class _Rows:
    """The rows of a catalogue that are left after the cuts so far; each column is touched for these alone."""

    def __init__(self, catalogue: Catalogue, bricks: BrickTable | None) -> None:
        missing = [n for n in _psf_columns() if n in catalogue.absent]
        if missing and bricks is None:
            raise CatalogueError(
                f"{catalogue.source}: no columns {', '.join(n.upper() for n in missing)} (DR8 has none); "
                "give the release's survey-bricks table, whose PSF sizes are then used"
            )
        self.columns, self.bricks = catalogue.columns, bricks
        self.psf_source = "brick_table" if missing else "catalogue"
        self.left = np.arange(len(catalogue))

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> np.ndarray:
        if self.psf_source == "brick_table" and name in _psf_columns():
            value = self.of_brick(name)
            return np.where(value > 0, value, np.nan)
        return self.columns[name][self.left]

    def brick_index(self) -> np.ndarray:
        """Return each row's row number in the brick table, -1 where its brick is not there."""
        assert self.bricks is not None
        return self.bricks.index_of_id(self["brickid"])

    def of_brick(self, name: str) -> np.ndarray:
        """Return a column of the brick table for each row, NaN where its brick is not there."""
        assert self.bricks is not None
        return np.append(self.bricks.columns[name].astype(np.float64), np.nan)[self.brick_index()]

    def mag(self, band: str) -> np.ndarray:
        """Return AB magnitudes as observed, NaN where the flux is not positive or has no inverse variance."""
        return magnitude(np.where(self.has_flux(band), self[f"flux_{band}"], 0.0))

    def has_flux(self, band: str) -> np.ndarray:
        """Tell where the flux is above 0 and measured."""
        measured = self[f"flux_ivar_{band}"] > 0 if f"flux_ivar_{band}" in self else True
        return (self[f"flux_{band}"] > 0) & measured

    def dered(self, band: str) -> np.ndarray:
        """Return AB magnitudes corrected for Galactic extinction."""
        return self.mag(band) - extinction(self["ebv"], band)


def _psf_columns() -> list[str]:
    return [f"{kind}_{band}" for kind in ("psfsize", "psfdepth") for band in BANDS]


def _on_the_sky(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    return {"position not on the sky": np.isfinite(rows["ra"]) & (np.abs(rows["dec"]) <= 90.0)}


def _primary(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    """Tell which rows lie within their own brick's bounds: what BRICK_PRIMARY says where it is absent."""
    if "brick_primary" in rows:
        return {"not primary in its brick": rows["brick_primary"]}
    return {"not primary in its brick": brick_id(*brick_at(rows["ra"], rows["dec"])) == rows["brickid"]}


def _galaxy(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    kind = rows["type"]
    as_stored = [word.ljust(width) for word in ("PSF", "DUP") for width in (3, 4)]  # "PSF " in DR8
    return {"star (type PSF) or duplicate (DUP)": ~np.isin(kind, np.array(as_stored, kind.dtype.kind))}


def _measured(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    passed = np.all([rows.has_flux(band) for band in ("r", "z", "w1")], axis=0)
    return {"flux in r, z or W1 not positive or not measured": passed}


def _exposed(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    present = np.ones(len(rows.left), dtype=bool)
    for band in BANDS:
        present &= (rows[f"psfsize_{band}"] > 0) & (rows[f"psfdepth_{band}"] > 0)
        present &= rows[f"nobs_{band}"] > 0 if f"nobs_{band}" in rows else True
    return {"a band without exposures": present}


def _good_quality(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    if rows.bricks is None:
        return quality_cuts(rows["ebv"], rows["psfsize_r"], rows["psfdepth_r"], targets)
    ebv, psfsize_r, psfdepth_r = (rows.of_brick(name) for name in ("ebv", "psfsize_r", "psfdepth_r"))
    there = {"brick not in the brick table": rows.brick_index() >= 0}
    return there | quality_cuts(ebv, psfsize_r, psfdepth_r, targets)


def _red(rows: _Rows, targets: Targets) -> dict[str, np.ndarray]:
    mag = rows.dered if targets.magnitudes == "dereddened" else rows.mag
    return colour_cuts(mag("r"), mag("z"), mag("w1"), VARIANTS[targets.variant])


def _columns(rows: _Rows) -> dict[str, np.ndarray]:
    """Return the columns of `records.TARGETS`, but for the splits, of the rows left."""
    n = len(rows.left)
    ids = host_id(*(rows[name] for name in ("release", "brickid", "objid")))
    columns = {"host_id": ids, "psf_source": np.full(n, rows.psf_source, object)}
    columns |= {name: rows[name] for name in ("ra", "dec", "ebv", *_psf_columns())}
    columns |= {name: text(rows[name]).astype(object) for name in ("brickname", "type")}
    dered = {band: rows.dered(band) for band in (*BANDS, "w1")}
    columns |= {f"mag_{band}": rows.mag(band) for band in dered}
    columns |= {f"mag_dered_{band}": values for band, values in dered.items()}
    shapes = ("shape_r", "shape_e1", "shape_e2")
    columns |= {name: np.full(n, np.nan, np.float32) for name in shapes if name not in rows}
    columns |= {name: rows[name] for name in shapes if name in rows}
    catalogued = {name: rows[name] for name in ("z_spec", "z_phot") if name in rows}
    columns["z_host"], columns["z_host_source"] = host_redshifts(ids, dered, catalogued)
    return columns


def _splits(
    rows: _Rows, splits: Splits, seed: int, brick_splits: Mapping[str, str] | None
) -> tuple[np.ndarray, np.ndarray]:
    ra, dec = rows["ra"], rows["dec"]
    if splits.method == "healpix" or brick_splits is None:
        return assign_splits(ra, dec, splits, seed)
    split = np.array([brick_splits.get(name, "") for name in text(rows["brickname"]).tolist()], dtype="U5")
    return sky_cell(ra, dec, splits.nside), split
