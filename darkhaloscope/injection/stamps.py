"""Stage 4c: manifest rows of one brick -> stamps.

A stamp is a function of its row, the brick and the experiment alone: the same bytes whatever other rows are
made with it, in whatever order. A row that cannot be made comes back with `cutout_ok` 0 and its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.arcs import render_rows, source_flux
from darkhaloscope.injection.cutouts import Brick, Ground, PsfAt, ground_at, psf_at, psf_of_catalogue
from darkhaloscope.injection.measure import (
    REFERENCE,
    ArcMeasurement,
    core_fraction,
    measure_arc,
    median,
    why_not_trusted,
)
from darkhaloscope.injection.noise import brick_gain, photon_noise, stamp_gain, with_photon_noise
from darkhaloscope.injection.psfs import load_kernels
from darkhaloscope.records import BANDS, MANIFEST, NO_SOURCE, PIXEL_SCALE_ARCSEC, STAMPS, stamp_metadata
from darkhaloscope.schema import check_schema, to_batch
from darkhaloscope.sources.bank import Bank
from darkhaloscope.survey.errors import BrickUnreadable
from darkhaloscope.survey.maskbits import bits_value
from darkhaloscope.survey.photometry import flux as flux_of
from darkhaloscope.survey.photometry import magnitude

NO_INJECTION = "no injection: a catalogue row"
ROWS_AT_A_TIME = 128  # rendered together: 6 MB of arcs

Columns = dict[str, np.ndarray]
Row = dict[str, Any]


class PixelTooLarge(ValueError):
    """A pixel beyond the range of the type that stamps are written in."""


@dataclass(frozen=True)
class _Means:
    """What all rows of a brick share: PSF kernels, gains, source bank."""

    kernels: np.ndarray | None
    gains: np.ndarray | None
    bank: Bank | None


@dataclass(frozen=True)
class _Site:
    """A row's coadd and PSF."""

    ground: Ground
    psf: PsfAt


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
    gains = gains_of(brick, experiment) if gains is None else gains
    made: list[Row] = []
    for part in _parts(columns):
        made += _make(brick, part, experiment, _Means(kernels, gains, bank))
    return _batch(columns, made, experiment)


def failed_stamps(
    rows: pa.Table | pa.RecordBatch, reason: str, experiment: Experiment, kernels: np.ndarray | None = None
) -> pa.RecordBatch:
    """Return STAMPS rows for a brick that cannot be read: every row failed, with this reason."""
    columns = _columns(rows)
    kernels = load_kernels(experiment) if kernels is None else kernels
    psfs = [psf_of_catalogue(size, experiment, kernels) for size in _catalogue_psfsize(columns)]
    theta = columns["theta_e_arcsec"]
    made = [_failed(reason, psf, float(t)) for psf, t in zip(psfs, theta, strict=True)]
    return _batch(columns, made, experiment)


def gains_of(brick: Brick, experiment: Experiment) -> np.ndarray | None:
    """Return the brick's gain per band, electrons per nmgy, or None where no noise is to be drawn."""
    if not experiment.stamps.poisson_noise:
        return None
    return brick_gain(brick, bits_value(experiment.survey.bad_maskbits))


def stamp_schema(experiment: Experiment) -> pa.Schema:
    """Return the Arrow schema of what `make_stamps` returns, with the stamps' layout in its metadata."""
    return STAMPS.arrow(stamp_metadata(experiment.stamps.dtype, experiment.stamps.size, BANDS))


def _columns(rows: pa.Table | pa.RecordBatch) -> Columns:
    check_schema(MANIFEST, rows.schema, "manifest rows")
    return {n: np.asarray(rows.column(n).to_numpy(zero_copy_only=False)) for n in MANIFEST.names}


def _parts(columns: Columns) -> Iterator[Columns]:
    for start in range(0, len(columns["task_id"]), ROWS_AT_A_TIME):
        yield {n: v[start : start + ROWS_AT_A_TIME] for n, v in columns.items()}


def _catalogue_psfsize(columns: Columns) -> np.ndarray:
    return np.stack([columns[f"psfsize_{b}"] for b in BANDS], axis=1)


def _make(brick: Brick, columns: Columns, experiment: Experiment, means: _Means) -> list[Row]:
    """Return the new columns of each row."""
    x, y = brick.sky_to_pixel(columns["ra"], columns["dec"])
    catalogue = _catalogue_psfsize(columns)
    sites: list[_Site | str] = []
    for i in range(len(catalogue)):
        try:
            ground = ground_at(brick, float(x[i]), float(y[i]), experiment)
            psf = psf_at(brick, float(x[i]), float(y[i]), catalogue[i], experiment, means.kernels)
            sites.append(_Site(ground, psf))
        except (ValueError, BrickUnreadable) as error:
            sites.append(str(error))
    here = np.array([i for i, s in enumerate(sites) if isinstance(s, _Site)], np.int64)
    found = [s for s in sites if isinstance(s, _Site)]
    chosen = {n: v[here] for n, v in columns.items()} | _site_columns(found)
    rendered = render_rows(chosen, experiment, means.kernels, means.bank) if len(here) else None
    flux = source_flux(chosen)
    made: list[Row] = []
    for i, site in enumerate(sites):
        theta = float(columns["theta_e_arcsec"][i])
        if isinstance(site, str):
            made.append(_failed(site, psf_of_catalogue(catalogue[i], experiment, means.kernels), theta))
            continue
        k = int(np.searchsorted(here, i))
        assert rendered is not None
        if not rendered.ok[k]:
            made.append(_failed(rendered.reason[k], site.psf, theta))
            continue
        row = {n: v[k] for n, v in chosen.items()}
        magnification = float(rendered.magnification[k])
        try:
            stamp = _stamp(row, site, rendered.image[k], magnification, flux[k], experiment, means.gains)
        except PixelTooLarge as error:
            stamp = _failed(str(error), site.psf, theta)
        made.append(stamp)
    return made


def _site_columns(sites: list[_Site]) -> Columns:
    fwhm = np.array([s.psf.fwhm for s in sites], np.float32).reshape(-1, len(BANDS))
    return {
        "host_x": np.array([s.ground.host_x for s in sites], np.float32),
        "host_y": np.array([s.ground.host_y for s in sites], np.float32),
        **{f"fwhm_{b}": fwhm[:, i] for i, b in enumerate(BANDS)},
    }


def _stamp(
    row: Mapping[str, Any], site: _Site, arc: np.ndarray, magnification: float, flux: np.ndarray,
    experiment: Experiment, gains: np.ndarray | None,
) -> Row:  # fmt: skip
    """Return the new columns of one row that can be made."""
    cutout, config = site.ground.cutout, experiment.stamps
    image, invvar = cutout.image, cutout.invvar.astype(np.float64)
    light = np.where(site.ground.blank, 0.0, arc)
    added = not row["is_control"]
    if config.poisson_noise:
        assert gains is not None
        gain = stamp_gain(gains, invvar)
        light = light + photon_noise(light, gain, invvar, row["task_id"]) if added else light
        invvar = with_photon_noise(invvar, arc, gain)
    if added:
        # where there is no light the pixel keeps its very bits (adding 0 would turn -0 into 0)
        image = np.where(light == 0, image, image + light.astype(np.float32))
    made = {
        **_common(site.psf, float(row["theta_e_arcsec"])),
        **_ground_columns(site.ground),
        "cutout_ok": 1,
        "failure_reason": "",
        "stamp": _cell(image, config.dtype),
    }
    if row["source_kind"] == NO_SOURCE:
        return made | {"metrics_ok": 0, "metrics_reason": NO_INJECTION}
    host = float(site.ground.host_x), float(site.ground.host_y)
    core = float(site.psf.fwhm[REFERENCE]) / PIXEL_SCALE_ARCSEC
    measured = measure_arc(arc, invvar, site.ground.metrics_bad, config.noise_correlation)
    reason = why_not_trusted(measured, magnification, flux)
    return made | {
        **_measured_columns(measured),
        **_magnitude_columns(row, magnification * flux),
        "arc_core_fraction": core_fraction(arc, host, core),
        "metrics_ok": int(not reason),
        "metrics_reason": reason,
        "magnification": magnification,
    }


def _cell(image: np.ndarray, dtype: str) -> bytes:
    """Return a stamp's pixels as they are written.

    float16 keeps 11 bits, 1/2000 of a pixel's own value; below 6e-5 nmgy, 1/40 of the sky's noise at DR10's
    depth, its steps are 6e-8.
    """
    brightest = np.abs(image).max()
    if not brightest <= np.finfo(dtype).max:
        raise PixelTooLarge(f"a pixel of {brightest:g} nmgy does not fit stamps.dtype {dtype}")
    return np.ascontiguousarray(image, np.dtype(dtype).newbyteorder("<")).tobytes()


def _failed(reason: str, psf: PsfAt, theta_e: float) -> Row:
    """Return the new columns of a row without a stamp; what is not here becomes null."""
    return {
        **_common(psf, theta_e),
        "cutout_ok": 0,
        "failure_reason": reason,
        "maskbits_any": -1,
        "metrics_ok": 0,
        "metrics_reason": "no stamp",
    }


def _common(psf: PsfAt, theta_e: float) -> Row:
    return {
        "psf_source": psf.source,
        **{f"psfsize_{b}": v for b, v in zip(BANDS, psf.psfsize.tolist(), strict=True)},
        **{f"fwhm_{b}": v for b, v in zip(BANDS, psf.fwhm.tolist(), strict=True)},
        "theta_over_psf": _ratio(theta_e, float(psf.psfsize[REFERENCE])),
        "theta_over_fwhm": _ratio(theta_e, float(psf.fwhm[REFERENCE])),
    }


def _ratio(theta_e: float, width: float) -> float:
    return theta_e / width if width > 0 else float("nan")


def _ground_columns(ground: Ground) -> Row:
    cutout = ground.cutout
    sigma = [1.0 / np.sqrt(median(plane[plane > 0])) for plane in cutout.invvar]
    return {
        "host_x": float(ground.host_x),
        "host_y": float(ground.host_y),
        **{f"sky_sigma_{b}": float(s) for b, s in zip(BANDS, sigma, strict=True)},
        "bad_fraction": float(ground.bad.mean()),
        "padded_fraction": cutout.padded / ground.bad.size,
        "maskbits_any": int(np.bitwise_or.reduce(cutout.maskbits, axis=None)) if cutout.has_maskbits else -1,
    }


def _measured_columns(measured: ArcMeasurement) -> Row:
    return {
        "arc_snr": measured.snr_total,
        "arc_snr_max_pixel": measured.snr_max_pixel,
        "arc_masked_fraction": measured.masked_fraction,
        **{f"arc_snr_{b}": v for b, v in zip(BANDS, measured.snr.tolist(), strict=True)},
        **{f"arc_flux_{b}": v for b, v in zip(BANDS, measured.flux.tolist(), strict=True)},
    }


def _magnitude_columns(row: Mapping[str, Any], lensed: np.ndarray) -> Row:
    """Return magnitudes of the lensed source, (band,) nmgy as observed, alone and with its host."""
    host = flux_of(np.array([row[f"mag_{b}"] for b in BANDS], np.float64))
    return {
        **{f"arc_mag_{b}": float(m) for b, m in zip(BANDS, magnitude(lensed), strict=True)},
        **{f"total_mag_{b}": float(m) for b, m in zip(BANDS, magnitude(host + lensed), strict=True)},
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
