"""Measurements of an arc: what it would take to see it; the same for an added arc and a virtual one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from darkhaloscope.records import BANDS

REFERENCE = BANDS.index("r")
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
    light = arc.astype(np.float64)
    good = (invvar > 0) & ~bad
    squared = light**2 * np.where(good, invvar, 0.0)
    snr = np.sqrt(squared.sum((1, 2))) / correlation
    total = light[REFERENCE].sum()
    seen = light[REFERENCE][good[REFERENCE]].sum()
    return ArcMeasurement(
        snr=snr,
        snr_total=float(np.sqrt((snr**2).sum())),
        snr_max_pixel=float(np.sqrt(squared.max())),
        flux=light.sum((1, 2)),
        masked_fraction=float(1.0 - seen / total) if total > 0 else float("nan"),
    )


def median(values: np.ndarray) -> float:
    """Return the median of floats (n,) without NaN, n > 0, in their own precision: `np.median`, 5 times as fast."""
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
    light = arc[REFERENCE].astype(np.float64)
    total = light.sum()
    (x0, x1), (y0, y1) = ((max(int(h - radius), 0), int(h + radius) + 2) for h in host)
    near = light[y0:y1, x0:x1]
    y, x = (np.arange(n) + first for n, first in zip(near.shape, (y0, x0), strict=True))
    core = near[np.hypot(x - host[0], y[:, None] - host[1]) <= radius].sum()
    return float(core / total) if total > 0 else float("nan")


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
