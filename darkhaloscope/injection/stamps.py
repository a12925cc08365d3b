"""Stage 4c: manifest rows of one brick -> stamps.

A stamp is a function of its row, the brick and the experiment alone: the same bytes whatever other rows are
made with it, in whatever order. A row that cannot be made comes back with `cutout_ok` 0 and its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import render_rows, source_flux
from darkhaloscope.injection.cutouts import (
    Brick,
    Ground,
    PsfAt,
    grounds_at,
    psf_of_catalogue,
    psf_of_kernels,
    psfs_at,
)
from darkhaloscope.injection.noise import brick_gain
from darkhaloscope.injection.psfs import load_kernels
from darkhaloscope.injection.stamp_row import (
    PixelTooLarge,
    Row,
    Site,
    failed_row,
    magnitude_columns,
    stamp_row,
)
from darkhaloscope.records import BANDS, MANIFEST, NO_SOURCE, STAMPS, stamp_metadata
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.sources.bank import Bank
from darkhaloscope.survey.maskbits import bits_value

ROWS_AT_A_TIME = 128  # rendered together: 6 MB of arcs

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Means:
    """What all rows of a brick share: PSF kernels and their sizes, gains, source bank."""

    kernels: np.ndarray | None
    psf: PsfAt | None
    gains: np.ndarray | None
    bank: Bank | None


def make_stamps(
    brick: Brick,
    rows: pa.Table | pa.RecordBatch,
    experiment: Experiment,
    kernels: np.ndarray | None = None,
    gains: np.ndarray | None = None,
    bank: Bank | None = None,
) -> pa.RecordBatch:
    """Make the stamps of some manifest rows of one brick.

    Rows of a catalogue have no injection: the coadd's own pixels, and no measurement.

    Injections: coadd plus the arc of the reddened source, blurred by the PSF at the host, plus photon noise
    of the arc where `stamps.poisson_noise`. Controls: the coadd's own pixels, bit for bit; their virtual arc
    is rendered and measured, and not added.

    Args:
        brick: the open brick.
        rows: MANIFEST rows of that brick, any number and order.
        experiment: PSF model, stamp size, noise, masks.
        kernels: PSF kernels (band, ky, kx); read from `psf.kernel` where the model needs them and None.
        gains: of `gains_of`, to spare repeated calls for one brick the fit; fitted when None and needed.
        bank: source bank; the experiment's is opened where rows need it and this is None.

    Returns:
        STAMPS, one row for each of `rows`, in their order.

    Raises:
        SchemaError: `rows` is not a manifest.
        ValueError: rows of another brick; a bad PSF kernel.
    """
    columns = _columns(rows)
    if others := sorted(set(columns["brickname"]) - {brick.brickname}):
        raise ValueError(
            f"brick {brick.brickname} was given rows of {others}; make each brick's rows with it"
        )
    kernels = load_kernels(experiment) if kernels is None else kernels
    if gains is None or not experiment.stamps.poisson_noise:
        gains = gains_of(brick, rows, experiment)
    means, made = _Means(kernels, _psf_of(kernels), gains, bank), list[Row]()
    for part in _parts(columns):
        made += _make(brick, part, experiment, means)
    return _batch(columns, made, experiment)


def failed_stamps(
    rows: pa.Table | pa.RecordBatch, reason: str, experiment: Experiment, kernels: np.ndarray | None = None
) -> pa.RecordBatch:
    """Return STAMPS rows for a brick that cannot be read: every row failed, with this reason."""
    columns = _columns(rows)
    kernels = load_kernels(experiment) if kernels is None else kernels
    everywhere = _psf_of(kernels)
    psfs = [everywhere or psf_of_catalogue(size, experiment) for size in _catalogue_psfsize(columns)]
    theta = columns["theta_e_arcsec"]
    made = [failed_row(reason, psf, float(t)) for psf, t in zip(psfs, theta, strict=True)]
    return _batch(columns, made, experiment)


def gains_of(brick: Brick, rows: pa.Table | pa.RecordBatch, experiment: Experiment) -> np.ndarray | None:
    """Return the brick's gain per band, electrons per nmgy, or None where no row's arc has photon noise."""
    lit = pc.any(pc.not_equal(rows.column("source_kind"), NO_SOURCE)).as_py()
    if not (lit and experiment.stamps.poisson_noise):
        return None
    return brick_gain(brick, bits_value(experiment.survey.bad_maskbits))


def stamp_schema(experiment: Experiment) -> pa.Schema:
    """Return the Arrow schema of what `make_stamps` returns, with the stamps' layout in its metadata."""
    return STAMPS.arrow(stamp_metadata(experiment.stamps.dtype, experiment.stamps.size, BANDS))


def _columns(rows: pa.Table | pa.RecordBatch) -> Columns:
    check_schema(MANIFEST, rows.schema, "manifest rows")
    return {n: np.asarray(rows.column(n).to_numpy(zero_copy_only=False)) for n in MANIFEST.names}


def _psf_of(kernels: np.ndarray | None) -> PsfAt | None:
    return None if kernels is None else psf_of_kernels(kernels)


def _parts(columns: Columns) -> Iterator[Columns]:
    for start in range(0, len(columns["task_id"]), ROWS_AT_A_TIME):
        yield {n: v[start : start + ROWS_AT_A_TIME] for n, v in columns.items()}


def _catalogue_psfsize(columns: Columns) -> np.ndarray:
    return np.stack([columns[f"psfsize_{b}"] for b in BANDS], axis=1)


def _make(brick: Brick, columns: Columns, experiment: Experiment, means: _Means) -> list[Row]:
    """Return the new columns of each row."""
    sites = _sites(brick, columns, experiment, means)
    made = [
        failed_row(site, means.psf or psf_of_catalogue(size, experiment), float(theta))
        if isinstance(site, str)
        else {}
        for site, size, theta in zip(
            sites, _catalogue_psfsize(columns), columns["theta_e_arcsec"], strict=True
        )
    ]
    found = {i: site for i, site in enumerate(sites) if isinstance(site, Site)}
    if found:
        chosen = {n: v[list(found)] for n, v in columns.items()} | _site_columns(list(found.values()))
        rows = _with_arcs(chosen, list(found.values()), experiment, means)
        for i, row in zip(found, rows, strict=True):
            made[i] = row
    return made


def _sites(brick: Brick, columns: Columns, experiment: Experiment, means: _Means) -> list[Site | str]:
    """Return the coadd and PSF of each row, or why it has none."""
    x, y = brick.sky_to_pixel(columns["ra"], columns["dec"])
    grounds, catalogue = grounds_at(brick, x, y, experiment), _catalogue_psfsize(columns)
    psfs = [means.psf] * len(x) if means.psf else psfs_at(brick, x, y, catalogue, experiment)
    return [_site(ground, psf) for ground, psf in zip(grounds, psfs, strict=True)]


def _site(ground: Ground | Exception, psf: PsfAt | Exception) -> Site | str:
    if isinstance(ground, Exception):
        return str(ground)
    return str(psf) if isinstance(psf, Exception) else Site(ground, psf)


def _with_arcs(columns: Columns, sites: list[Site], experiment: Experiment, means: _Means) -> list[Row]:
    """Render the arcs of rows that have a site, and return the rows' new columns."""
    rendered, flux = render_rows(columns, experiment, means.kernels, means.bank), source_flux(columns)
    magnitudes = magnitude_columns(columns, rendered.magnification[:, None] * flux)
    made = []
    for k, site in enumerate(sites):
        row, reason = {n: v[k] for n, v in columns.items()}, rendered.reason[k]
        arc = rendered.image[k], float(rendered.magnification[k]), flux[k]
        if rendered.ok[k]:
            try:
                new = stamp_row(row, site, *arc, experiment, means.gains)
                made.append(new | {n: v[k] for n, v in magnitudes.items()})
                continue
            except PixelTooLarge as error:
                reason = str(error)
        made.append(failed_row(reason, site.psf, float(row["theta_e_arcsec"])))
    return made


def _site_columns(sites: list[Site]) -> Columns:
    fwhm = np.array([s.psf.fwhm for s in sites], np.float32).reshape(-1, len(BANDS))
    return {
        "host_x": np.array([s.ground.host_x for s in sites], np.float32),
        "host_y": np.array([s.ground.host_y for s in sites], np.float32),
        **{f"fwhm_{b}": fwhm[:, i] for i, b in enumerate(BANDS)},
    }


def _batch(columns: Columns, made: list[Row], experiment: Experiment) -> pa.RecordBatch:
    """Join manifest and new columns; a missing or non-finite measurement is null where nulls are allowed."""
    out: dict[str, Any] = dict(columns)
    new = set().union(*made)
    for column in STAMPS.columns:
        if column.name not in new and column.name in out:
            continue
        if column.nullable and pa.types.is_floating(column.type):
            values = np.array([row.get(column.name, np.nan) for row in made], np.float64)
            out[column.name] = pa.array(values, column.type, mask=~np.isfinite(values))
        else:
            out[column.name] = pa.array([row.get(column.name) for row in made], column.type)
    return to_batch(STAMPS, out, stamp_metadata(experiment.stamps.dtype, experiment.stamps.size, BANDS))
