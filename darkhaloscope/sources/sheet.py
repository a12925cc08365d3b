"""A picture sheet of a bank: each galaxy as it came and as it went in, the refused with their reason."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from darkhaloscope.sources.open import open_bank
from darkhaloscope.sources.realgalaxy import Catalogue

COLUMNS = 12
MAX_SHOWN = 120


def draw_sheet(path: str | Path, catalogue: Catalogue, bank_url: str, refused: dict[int, str]) -> None:
    """Draw the first 120 galaxies of a catalogue in its order, asinh-stretched, into a PNG.

    Args:
        path: the PNG.
        catalogue: the open catalogue.
        bank_url: the bank built from it.
        refused: reason by the galaxy's number in the catalogue.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bank = open_bank(bank_url)
    row_of = {int(i): k for k, i in enumerate(bank.index.index)}
    galaxies = [g for _, g in zip(range(MAX_SHOWN), catalogue.galaxies(), strict=False)]
    rows = -(-len(galaxies) // COLUMNS)
    figure = Figure(figsize=(1.4 * COLUMNS, 3.3 * rows), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, COLUMNS, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for number, galaxy in enumerate(galaxies):
        top, below = (axes[2 * (number // COLUMNS) + k, number % COLUMNS] for k in (0, 1))
        _show(top, galaxy.stamp)
        top.set_title(str(galaxy.index), fontsize=6, pad=1)
        if galaxy.index not in row_of:
            reason = textwrap.fill(refused.get(galaxy.index, ""), 20)
            below.text(0.5, 0.5, reason, fontsize=6, ha="center", va="center", transform=below.transAxes)
            continue
        k = row_of[galaxy.index]
        _show(below, bank.layers(np.array([k]))[0][0][0])
        below.set_title(f'R {bank.index.hlr_arcsec[k]:.2f}"  S/N {bank.index.snr[k]:.0f}', fontsize=6, pad=1)
    figure.savefig(path)


def _show(axis: Any, image: np.ndarray) -> None:
    scale = np.percentile(image, 99.5) / 20 or 1.0
    axis.imshow(np.arcsinh(image / scale), origin="lower", cmap="gray")
