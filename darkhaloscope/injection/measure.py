"""Measurements of an arc: what it would take to see it; the same for an added arc and a virtual one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darkhaloscope.compiled import compiler
from darkhaloscope.records import REFERENCE

_njit = compiler(Path(__file__).parent)

MAX_MASKED = 0.5  # of the arc's light; beyond, its SNR says more about the mask than about the arc
MIN_INSIDE = 0.5  # of the arc's light; below, the stamp is too small for the arc


@dataclass(frozen=True)
class ArcMeasurement:
    """Of one arc. Bands are those of the image; see `measure_arc` for the definitions."""

    snr: np.ndarray  # (band,)
    snr_total: float
    snr_max_pixel: float
    flux: np.ndarray  # (band,) nmgy
    masked_fraction: float


def measure_arc(arc: np.ndarray, invvar: np.ndarray, bad: np.ndarray, correlation: float) -> ArcMeasurement:
    """Measure one arc against the noise of its coadd.

    Matched-filter SNR per band: sqrt(sum of arc^2 invvar) over good pixels, divided by `correlation`: coadd
    noise is correlated between pixels, and invvar alone overstates the SNR of an extended arc. Total: bands
    in quadrature. `snr_max_pixel` is the seed's definition, the largest single-pixel arc / sigma of any
    band, not corrected (a single pixel has no correlation).

    Args:
        arc: (band, y, x) nmgy/pixel, without noise.
        invvar: (band, y, x) nmgy^-2; 0 where there are no data.
        bad: (y, x) or (band, y, x) bool: pixels not to be used although they have data.
        correlation: factor by which invvar alone overstates an SNR, at least 1.

    Returns:
        The measurement. `flux` is all light inside the stamp, bad pixels included; `masked_fraction` the
        share of the r flux on bad pixels or pixels without data, NaN where there is no flux.
    """
    squared, largest, flux, seen = _sums(arc, invvar, np.broadcast_to(bad, arc.shape))
    snr = np.sqrt(squared) / correlation
    total = flux[REFERENCE]
    return ArcMeasurement(
        snr=snr,
        snr_total=float(np.sqrt((snr**2).sum())),
        snr_max_pixel=float(np.sqrt(largest.max())),
        flux=flux,
        masked_fraction=float(1.0 - seen[REFERENCE] / total) if total > 0 else float("nan"),
    )


@_njit
def _sums(arc: np.ndarray, invvar: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return sum and largest of arc^2 invvar on good pixels, and the light on all and on good ones, (4, band)."""
    out = np.zeros((4, len(arc)))
    for band in range(len(arc)):
        squared, largest, total, seen = 0.0, 0.0, 0.0, 0.0
        for y in range(arc.shape[1]):
            for x in range(arc.shape[2]):
                light = np.float64(arc[band, y, x])
                good = (invvar[band, y, x] > 0) & (not bad[band, y, x])
                term = light * light * (invvar[band, y, x] if good else 0.0)
                squared, largest = squared + term, max(largest, term)
                total, seen = total + light, seen + (light if good else 0.0)
        out[0, band], out[1, band], out[2, band], out[3, band] = squared, largest, total, seen
    return out


def median(values: np.ndarray) -> float:
    """Return the median of floats (n,) without NaN, n > 0, in their own precision: `np.median`, but faster."""
    middle = len(values) // 2
    ordered = np.partition(values, middle)
    upper = ordered[middle]
    return float(upper if len(values) % 2 else (ordered[:middle].max() + upper) / 2)


def core_fraction(arc: np.ndarray, host: tuple[float, float], radius: float) -> float:
    """Return the share of an arc's r flux in the stamp that lies on its host's core; NaN without flux.

    Args:
        arc: (band, y, x) nmgy/pixel, without noise.
        host: x, y of the host, 0-based pixels.
        radius: of the core, pixels.
    """
    core, total = _inside(arc[REFERENCE], *host, radius)
    return core / total if total > 0 else float("nan")


@_njit
def _inside(light: np.ndarray, x_host: float, y_host: float, radius: float) -> tuple[float, float]:
    """Return the light within the radius of a host, and all of it."""
    core, total = 0.0, 0.0
    for y in range(light.shape[0]):
        for x in range(light.shape[1]):
            total += np.float64(light[y, x])
            if (x - x_host) ** 2 + (y - y_host) ** 2 <= radius**2:
                core += np.float64(light[y, x])
    return core, total


def why_not_trusted(arc: ArcMeasurement, magnification: float, source_flux: np.ndarray) -> str:
    """Return why an arc's measurements say little about the arc; "" where they can be trusted.

    Args:
        arc: the measurement.
        magnification: lensed over unlensed flux over the whole plane.
        source_flux: (band,) unlensed flux as observed, nmgy.
    """
    lensed = magnification * source_flux[REFERENCE]
    if not (np.isfinite(lensed) and np.isfinite(arc.snr_total)):
        return f"not finite: magnification {magnification}, arc_snr {arc.snr_total}"
    if not (lensed > 0 and np.isfinite(arc.masked_fraction)):
        return "the arc has no light in the r band"
    if arc.masked_fraction > MAX_MASKED:
        return f"{arc.masked_fraction:.0%} of the arc's r flux is on bad pixels, more than {MAX_MASKED:.0%}"
    inside = arc.flux[REFERENCE] / lensed
    if inside < MIN_INSIDE:
        return f"{inside:.0%} of the arc's r flux is inside the stamp, less than {MIN_INSIDE:.0%}"
    return ""
