"""Real pixels as hosts: galaxies found in the exposed region of a real brick, and ready-cut LRG stamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC, TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.simulated.observing import noise_pixels
from darkhaloscope.stats.robust import mad_sigma
from darkhaloscope.survey.coadds import BrickReader, Cutout
from darkhaloscope.survey.errors import BrickUnreadable
from darkhaloscope.survey.one_by_one import OneByOne
from darkhaloscope.survey.photometry import depth_magnitude, magnitude
from darkhaloscope.survey.redshifts import host_redshifts
from darkhaloscope.survey.splits import sky_cell
from local_spark.steps import REPOSITORY

DEFAULT_REAL = REPOSITORY.parent / "shared" / "data"
BRICK = "0591m305"
DETECTION_SIGMA, FAINTEST_R, APERTURE_ARCSEC = 3.0, 23.3, 2.1
MARGIN = 16  # pixels from the edge of the exposed region: arcs of theta_E 2.5 arcsec still fall inside
NO_EXTINCTION = 0.0  # neither set comes with E(B-V): hosts and sources are compared as observed
DES_PSFSIZE_ARCSEC = 1.2  # the DES stamps come without a PSF: a typical DECam size is assumed, and stated


def find_galaxies(
    source: str, corners: tuple[int, int, int, int], psfsize: dict[str, float]
) -> dict[str, Any]:
    """Find the galaxies of a brick's exposed region with SEP (Barbary 2016, JOSS 1, 58).

    Args:
        source: base URL of the release.
        corners: x0, y0, x1, y1 of the exposed region, 0-based, the last exclusive.
        psfsize: the survey's PSF size by band, arcsec.

    Returns:
        Columns of `records.TARGETS`; magnitudes within 2.1 arcsec of the centre.
    """
    import sep

    x0, y0, x1, _ = corners
    with BrickReader(source, BRICK) as brick:
        cut = brick.cut(x0, y0, x1 - x0)
        image = np.ascontiguousarray(cut.image, np.float64)
        sigma = 1 / np.sqrt(np.where(cut.invvar > 0, cut.invvar, 1e-12)).astype(np.float64)
        found = sep.extract(
            image[1] - sep.Background(image[1]).back(), DETECTION_SIGMA, err=sigma[1], minarea=9
        )
        x, y = found["x"], found["y"]
        radius = APERTURE_ARCSEC / PIXEL_SCALE_ARCSEC
        fluxes = {b: sep.sum_circle(image[i], x, y, radius)[0] for i, b in enumerate(BANDS)}
        keep = np.all([f > 0 for f in fluxes.values()], axis=0)
        keep &= magnitude(fluxes["r"]) < FAINTEST_R
        keep &= (np.minimum(x, y) > MARGIN) & (np.maximum(x, y) < x1 - x0 - MARGIN)
        ra, dec = brick.wcs.pixel_to_sky(x[keep] + x0, y[keep] + y0)
    depth = {b: depth_of(np.median(sigma[i]), psfsize[b]) for i, b in enumerate(BANDS)}
    mags = {b: magnitude(f[keep]) for b, f in fluxes.items()}
    return targets(np.asarray(ra), np.asarray(dec), BRICK, mags, psfsize, depth)


def depth_of(sigma: float, psfsize: float) -> float:
    """Return the 5-sigma point-source depth, AB mag, of a sky sigma (nmgy/pixel) and psfsize (arcsec)."""
    return float(depth_magnitude(np.asarray(1 / (sigma**2 * noise_pixels(psfsize)))))


def targets(
    ra: np.ndarray, dec: np.ndarray, brick: str, mags: dict[str, np.ndarray], psfsize: dict[str, float],
    depth: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Return TARGETS columns of galaxies without a catalogue; all are in the split "train"."""
    n = len(ra)
    columns: dict[str, Any] = {
        "host_id": np.arange(n), "ra": ra, "dec": dec, "brickname": [brick] * n, "type": ["SEP"] * n,
        "sky_cell": sky_cell(ra, dec), "region_split": ["train"] * n, "ebv": np.full(n, NO_EXTINCTION),
        "mag_w1": np.full(n, np.nan), "mag_dered_w1": np.full(n, np.nan), "psf_source": ["kernel"] * n,
    }  # fmt: skip
    columns |= {name: pa.nulls(n, pa.float32()) for name in ("shape_r", "shape_e1", "shape_e2")}
    for band in BANDS:
        columns[f"mag_{band}"] = columns[f"mag_dered_{band}"] = mags[band]
        columns[f"psfsize_{band}"] = np.full(n, psfsize[band])
        columns[f"psfdepth_{band}"] = np.full(n, depth[band])
    columns["z_host"], columns["z_host_source"] = host_redshifts(columns["host_id"], mags, {})
    return columns


@dataclass
class StampBrick(OneByOne):
    """One ready-cut image as a brick with one host: what `make_stamps` needs of a brick."""

    brickname: str
    image: np.ndarray  # (band, y, x) float32, nmgy/pixel
    sigma: np.ndarray  # (band,) measured sky noise
    host: tuple[float, float] | None = None  # x, y of its galaxy, 0-based; None: the middle

    @property
    def wcs(self) -> Any:
        """Width and height in pixels."""
        return SimpleNamespace(width=self.image.shape[2], height=self.image.shape[1])

    def sky_to_pixel(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where the image's galaxy is, whatever position is asked for."""
        middle = (self.image.shape[1] - 1) / 2
        x, y = self.host or (middle, middle)
        return np.full(len(ra), x), np.full(len(ra), y)

    def cut(self, x0: int, y0: int, size: int) -> Cutout:
        """Cut out of the image; inverse variance from the measured sky, 0 beyond the image; no maskbits."""
        height, width = self.image.shape[1:]
        xs, ys = np.arange(x0, x0 + size), np.arange(y0, y0 + size)
        inside = ((ys >= 0) & (ys < height))[:, None] & ((xs >= 0) & (xs < width))[None, :]
        image = self.image[:, ys.clip(0, height - 1)[:, None], xs.clip(0, width - 1)[None, :]]
        invvar = np.where(inside, (self.sigma**-2.0)[:, None, None], 0.0).astype(np.float32)
        padded = int((~inside).sum())
        return Cutout(
            np.where(inside, image, np.float32(0)), invvar, np.zeros((size, size), np.int32), False, padded, 0
        )

    def psfsize(self, x: float, y: float) -> tuple[np.ndarray, str]:
        """Refuse: the stamps come without a PSF, so the row's size is used."""
        raise BrickUnreadable(f"{self.brickname}: the image comes without a PSF size")


def sky_sigma(image: np.ndarray) -> np.ndarray:
    """Return (band,) noise of the outer ring of a stamp, by its median absolute deviation."""
    y, x = np.indices(image.shape[1:])
    middle = (image.shape[1] - 1) / 2
    ring = image[:, np.hypot(y - middle, x - middle) > 0.8 * middle]
    return mad_sigma(ring, axis=1)


def des_stamps(path: Path) -> tuple[list[StampBrick], pa.RecordBatch]:
    """Return the real DES LRG stamps as bricks, and a target for each."""
    images = np.ascontiguousarray(np.load(path)["image"], np.float32)
    bricks = [StampBrick(f"{i:04d}p000", image, sky_sigma(image)) for i, image in enumerate(images)]
    size = dict.fromkeys(BANDS, DES_PSFSIZE_ARCSEC)
    tables = []
    for i, brick in enumerate(bricks):
        y, x = np.indices(brick.image.shape[1:]) - 45.0
        core = np.hypot(x, y) * PIXEL_SCALE_ARCSEC < APERTURE_ARCSEC
        mags = {b: magnitude(brick.image[k][core].sum(keepdims=True)) for k, b in enumerate(BANDS)}
        depth = {b: depth_of(brick.sigma[k], size[b]) for k, b in enumerate(BANDS)}
        columns = targets(np.array([i / 10]), np.array([0.0]), brick.brickname, mags, size, depth)
        tables.append(to_batch(TARGETS, columns | {"host_id": np.array([i])}))
    return bricks, pa.Table.from_batches(tables).combine_chunks().to_batches()[0]


def with_columns(rows: pa.RecordBatch, values: Mapping[str, Any]) -> pa.RecordBatch:
    """Return rows with some columns replaced, the types as they were."""
    for name, column in values.items():
        index = rows.schema.get_field_index(name)
        field = rows.schema.field(index)
        rows = rows.set_column(index, field, pa.array(column, field.type))
    return rows


def null_rows(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return manifest rows with sources of no light at all: injecting them must change no pixel."""
    dark = np.full(rows.num_rows, np.inf)
    return with_columns(rows, {f"src_mag_{band}": dark for band in BANDS})
