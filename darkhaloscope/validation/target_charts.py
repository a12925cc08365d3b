"""Pictures of the targets, drawn from counts: the footprint, colours, magnitudes and redshifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy_healpix import HEALPix
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize

from darkhaloscope.report.charts import GREY, INK, ORANGE, draw
from darkhaloscope.report.page import Chart
from darkhaloscope.survey.redshifts import red_sequence
from darkhaloscope.survey.targets import VARIANTS
from darkhaloscope.validation.target_tally import COLOUR_EDGES, Tally

BAND_COLOURS = {"g": "#3a8f4d", "r": "#b5382e", "z": "#6b4a8f", "W1": INK}
MERIDIANS = (1, 2, 5, 10, 30, 60)
MAP_HEIGHT = 2.9
FEW, COARSER = 20_000, 5  # fewer targets than that: bins of colour this many times as wide


def charts(tally: Tally, experiment: Mapping[str, Any]) -> list[Chart]:
    """Return the charts of a tally that has targets."""
    n = sum(tally.splits.values())
    return [
        Chart(
            draw(lambda axis: footprint(axis, tally.cells, experiment["splits"]["nside"]), MAP_HEIGHT),
            f"Footprint: targets per square degree by HEALPix cell, equal-area, east to the left. N = {n:,}",
        ),
        Chart(
            draw(lambda axis: colours(axis, tally, experiment["targets"]["variant"])),
            f"g - r against r - z, dereddened; line: the red sequence, redshift 0.1 to 1. N = {tally.colours.sum():,}",
        ),
        Chart(
            draw(lambda axis: redshifts(axis, tally)),
            f"Redshift of the targets by where it is from. N = {n:,}",
        ),
        Chart(draw(lambda axis: magnitudes(axis, tally)), f"Dereddened magnitudes of the targets. N = {n:,}"),
    ]


def footprint(axis: Axes, cells: Mapping[int, int], nside: int) -> None:
    """Draw the density of targets, each cell as its own shape; the map is centred where the targets are."""
    grid = HEALPix(nside=nside, order="nested")
    numbers = np.fromiter(cells, np.int64, len(cells))
    density = np.fromiter(cells.values(), float, len(cells)) / grid.pixel_area.to_value(u.deg**2)
    ra = grid.healpix_to_lonlat(numbers)[0].to_value(u.deg)
    centre = middle_of(ra)
    corner_ra, corner_dec = (v.to_value(u.deg) for v in grid.boundaries_lonlat(numbers, step=1))
    offset = (ra - centre + 180) % 360 - 180
    x = offset[:, None] + (corner_ra - ra[:, None] + 180) % 360 - 180  # a cell at the map's edge is not torn
    shapes = np.stack([x * np.cos(np.radians(corner_dec)), corner_dec], axis=-1)
    norm = LogNorm() if density.max() > 10 * density.min() else Normalize()
    norm.autoscale(density)
    # a dot for each cell too: of a few bricks' footprint nobody would see the cells
    middle = shapes.mean(axis=1)
    axis.scatter(
        middle[:, 0], middle[:, 1], c=density, norm=norm, cmap="viridis", s=3, marker="s", linewidths=0
    )
    drawn = PolyCollection(
        list(shapes), array=density, cmap="viridis", norm=norm, edgecolor="face", linewidth=0.2
    )
    axis.add_collection(drawn)
    axis.figure.colorbar(
        drawn, ax=axis, label="targets per square degree", location="top", shrink=0.7, aspect=35
    )
    low, high = shapes.min(axis=(0, 1)), shapes.max(axis=(0, 1))
    margin = 0.02 * (high - low).max()
    _graticule(axis, centre, offset, low[1] - margin, high[1] + margin)
    axis.set_aspect("equal")
    axis.set(
        xlim=(high[0] + margin, low[0] - margin), ylim=(low[1] - margin, high[1] + margin)
    )  # east is left
    axis.set_ylabel("Dec [deg]")


def middle_of(ra: np.ndarray) -> float:
    """Return the RA opposite to the middle of the widest gap in `ra` (deg): the map's centre."""
    ordered = np.sort(ra % 360)
    gaps = np.diff(np.append(ordered, ordered[0] + 360))
    widest = int(np.argmax(gaps))
    return float((ordered[widest] + gaps[widest] / 2 + 180) % 360)


def _graticule(axis: Axes, centre: float, offset: np.ndarray, south: float, north: float) -> None:
    """Draw meridians, and name them where they cross the equator or the nearest Dec that is shown."""
    step = next((s for s in MERIDIANS if np.ptp(offset) / s <= 6), MERIDIANS[-1])
    first = np.ceil((centre + max(offset.min() - 1, -180)) / step) * step
    wanted = np.arange(first, centre + min(offset.max() + 1, 180) + 1e-9, step)
    along = np.radians(np.linspace(max(south, -90), min(north, 90), 100))
    for ra in wanted:
        axis.plot((ra - centre) * np.cos(along), np.degrees(along), color=GREY, linewidth=0.4, zorder=0)
    named_at = float(np.clip(0.0, south, north))
    axis.set_xticks((wanted - centre) * np.cos(np.radians(named_at)), [f"{ra % 360:.0f}" for ra in wanted])
    axis.set_xlabel(f"RA [deg] at Dec {named_at:.0f}")
    axis.grid(False, axis="x")


def colours(axis: Axes, tally: Tally, variant: str) -> None:
    """Draw the density of targets in r - z and g - r, with the red sequence and the variant's cut."""
    g_r, r_z = COLOUR_EDGES
    counts, coarse = tally.colours, COARSER if tally.colours.sum() < FEW else 1
    rows, columns = (n // coarse for n in counts.shape)
    counts = counts.reshape(rows, coarse, columns, coarse).sum(axis=(1, 3))
    norm = LogNorm(vmin=1, vmax=max(counts.max(), 10))
    shown = np.ma.masked_equal(counts, 0)
    mesh = axis.pcolormesh(r_z[::coarse], g_r[::coarse], shown, cmap="viridis", norm=norm)
    axis.figure.colorbar(mesh, ax=axis, label="targets per bin", shrink=0.8)
    line = red_sequence()
    axis.plot(line["r_z"], line["g_r"], color=ORANGE, linewidth=1.5)
    axis.axvline(VARIANTS[variant].rz_min, color=GREY, linestyle="--", linewidth=1)
    axis.set(xlabel="r - z [mag]", ylabel="g - r [mag]", xlim=(r_z[0], r_z[-1]), ylim=(0, 3))


def redshifts(axis: Axes, tally: Tally) -> None:
    """Draw the histogram of redshifts, one line a source."""
    for style, (source, histogram) in zip(
        ("-", "--", ":", "-."), sorted(tally.redshifts.items()), strict=False
    ):
        edges = np.linspace(histogram.low, histogram.high, histogram.bins + 1)
        axis.stairs(histogram.counts, edges, color=INK, linestyle=style, label=source)
    axis.set(xlabel="redshift", ylabel="targets per 0.02", xlim=(0, 1.2))
    axis.legend()


def magnitudes(axis: Axes, tally: Tally) -> None:
    """Draw the histograms of magnitudes, one line a band."""
    for band, colour in BAND_COLOURS.items():
        histogram = tally.quantities[f"{band}, dereddened"]
        counts = histogram.counts.reshape(-1, 25).sum(axis=1)
        edges = np.linspace(histogram.low, histogram.high, len(counts) + 1)
        axis.stairs(counts, edges, color=colour, label=band)
    axis.set(xlabel="AB magnitude, dereddened", ylabel="targets per 0.1 mag", xlim=(15, 25))
    axis.legend()
