"""Pictures of injections on real pixels: untouched host, arc alone, stamp, in one stretch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from darkhaloscope.report.pictures import lupton_rgb

COLUMNS = ("untouched host", "arc", "stamp")


def draw_rows(
    rows: pa.Table,
    hosts: np.ndarray,
    arcs: np.ndarray,
    stamps: np.ndarray,
    path: Path,
    count: int,
    title: str,
) -> None:
    """Draw a table of pictures: one row an injection, spread over the range of theta_E.

    Args:
        rows: the stamps' rows, for theta_E, magnitude and signal-to-noise.
        hosts: (n, band, y, x) nmgy/pixel, the coadd untouched.
        arcs: the same of the arcs.
        stamps: the same of the stamps.
        path: PNG to write.
        count: rows to draw.
        title: heading.
    """
    injected = np.flatnonzero(rows["is_control"].to_numpy() == 0)
    theta = rows["theta_e_arcsec"].to_numpy()[injected]
    order = injected[np.argsort(theta, kind="stable")]
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    figure = Figure(figsize=(7.5, 2.5 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), 3, squeeze=False)
    figure.suptitle(title)
    for line, index in zip(axes, chosen, strict=True):
        for axis, images, name in zip(line, (hosts, arcs, stamps), COLUMNS, strict=True):
            axis.imshow(lupton_rgb(images[index]), origin="lower")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(name, fontsize=8)
        row = rows.slice(int(index), 1).to_pylist()[0]
        line[0].set_ylabel(
            f'theta_E {row["theta_e_arcsec"]:.2f}"\nsource r {row["src_mag_r"]:.1f}\nSNR {row["arc_snr"]:.0f}',
            fontsize=8,
        )
    figure.savefig(path, dpi=80)
