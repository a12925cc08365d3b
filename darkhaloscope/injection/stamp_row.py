"""The columns that stage 4c adds to one manifest row: the stamp, what is under it, and what its arc measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.cutouts import Ground, PsfAt
from darkhaloscope.injection.measure import (
    ArcMeasurement,
    core_fraction,
    measure_arc,
    median,
    why_not_trusted,
)
from darkhaloscope.injection.noise import photon_noise, stamp_gain, with_photon_noise
from darkhaloscope.records import BANDS, NO_SOURCE, PIXEL_SCALE_ARCSEC, REFERENCE
from darkhaloscope.stored import stored
from darkhaloscope.survey.photometry import flux as flux_of
from darkhaloscope.survey.photometry import magnitude

NO_INJECTION = "no injection: a catalogue row"

Row = dict[str, Any]


class PixelTooLarge(ValueError):
    """A pixel beyond the range of the type that stamps are written in."""


@dataclass(frozen=True)
class Site:
    """A row's coadd and PSF."""

    ground: Ground
    psf: PsfAt


def stamp_row(
    row: Mapping[str, Any], site: Site, arc: np.ndarray, magnification: float, flux: np.ndarray,
    experiment: Experiment, gains: np.ndarray | None,
) -> Row:  # fmt: skip
    """Return the new columns of a row that can be made.

    Args:
        row: its manifest columns.
        site: coadd and PSF there.
        arc: (band, y, x) nmgy/pixel, without noise.
        magnification: lensed over unlensed flux.
        flux: (band,) unlensed flux of the source as observed, nmgy.
        experiment: type of the pixels, noise, masks.
        gains: (band,) electrons per nmgy of the brick; None where no noise is to be drawn.

    Raises:
        PixelTooLarge: a pixel does not fit the type that stamps are written in.
    """
    config, dark = experiment.stamps, row["source_kind"] == NO_SOURCE
    cutout = site.ground.cutout
    image, invvar = (cutout.image, cutout.invvar) if dark else _with_arc(row, site.ground, arc, gains)
    made = {
        **_common(site.psf, float(row["theta_e_arcsec"])),
        **_ground_columns(site.ground),
        "cutout_ok": 1,
        "failure_reason": "",
        "stamp": _cell(image, config.dtype),
    }
    if dark:
        return made | {"metrics_ok": 0, "metrics_reason": NO_INJECTION}
    host = float(site.ground.host_x), float(site.ground.host_y)
    core = float(site.psf.fwhm[REFERENCE]) / PIXEL_SCALE_ARCSEC
    measured = measure_arc(arc, invvar, site.ground.metrics_bad, config.noise_correlation)
    reason = why_not_trusted(measured, magnification, flux)
    return made | {
        **_measured_columns(measured),
        "arc_core_fraction": core_fraction(arc, host, core),
        "metrics_ok": int(not reason),
        "metrics_reason": reason,
        "magnification": magnification,
    }


def _with_arc(
    row: Mapping[str, Any], ground: Ground, arc: np.ndarray, gains: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a stamp's pixels, and the inverse variance with the arc's photon noise, a control's virtual one too."""
    image, invvar = ground.cutout.image, ground.cutout.invvar.astype(np.float64)
    light, gain = np.where(ground.blank, 0.0, arc), None if gains is None else stamp_gain(gains, invvar)
    if not row["is_control"]:
        noise = 0.0 if gain is None else photon_noise(light, gain, invvar, row["task_id"])
        # where there is no light the pixel keeps its very bits (adding 0 would turn -0 into 0)
        light = light + noise
        image = np.where(light == 0, image, image + light.astype(np.float32))
    return image, invvar if gain is None else with_photon_noise(invvar, arc, gain)


def _cell(image: np.ndarray, dtype: str) -> bytes:
    """Return a stamp's pixels as they are written."""
    brightest = np.abs(image).max()
    if not brightest <= np.finfo(dtype).max:
        raise PixelTooLarge(f"a pixel of {brightest:g} nmgy does not fit stamps.dtype {dtype}")
    return stored(image, dtype).tobytes()


def failed_row(reason: str, psf: PsfAt, theta_e: float) -> Row:
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
        "bad_fraction": np.count_nonzero(ground.bad) / ground.bad.size,
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


def magnitude_columns(columns: Mapping[str, np.ndarray], lensed: np.ndarray) -> dict[str, np.ndarray]:
    """Return magnitudes of lensed sources, (n, band) nmgy as observed, alone and with their hosts."""
    host = flux_of(np.stack([columns[f"mag_{b}"] for b in BANDS], axis=1))
    alone, both = magnitude(lensed), magnitude(host + lensed)
    return {
        **{f"arc_mag_{b}": alone[:, i] for i, b in enumerate(BANDS)},
        **{f"total_mag_{b}": both[:, i] for i, b in enumerate(BANDS)},
    }
