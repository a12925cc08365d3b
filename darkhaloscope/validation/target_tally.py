"""Counts of the targets of stage 3, from which its report is made.

Rows are read in batches and only counted, so that twenty million of them need no more memory than a thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from darkhaloscope.dataset import committed_parts, open_part
from darkhaloscope.records import BANDS
from darkhaloscope.storage import join
from darkhaloscope.validation.histogram import Histogram

BATCH = 65_536
COLOUR_EDGES = (np.linspace(-0.5, 3.5, 161), np.linspace(0.0, 2.5, 126))  # g - r, r - z
COLUMNS = [
    "region_split", "sky_cell", "ebv", "z_host", "z_host_source", "psf_source",
    *(f"{name}_{band}" for name in ("mag_dered", "psfsize", "psfdepth") for band in BANDS), "mag_dered_w1",
]  # fmt: skip


@dataclass
class Tally:
    """What is counted of the targets."""

    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    psf_sources: Counter[str] = field(default_factory=Counter)
    cells: Counter[int] = field(default_factory=Counter)
    quantities: dict[str, Histogram] = field(default_factory=dict)
    colours: np.ndarray = field(
        default_factory=lambda: np.zeros([len(e) - 1 for e in COLOUR_EDGES], np.int64)
    )
    redshifts: dict[str, Histogram] = field(default_factory=dict)  # by source


def _quantities() -> dict[str, Histogram]:
    made = {f"{band}, dereddened": Histogram(12, 28, unit="AB mag") for band in (*BANDS, "W1")}
    made |= {name: Histogram(-2, 6, unit="mag") for name in ("g - r", "r - z", "z - W1")}
    made |= {f"psfsize {band}": Histogram(0, 4, unit="arcsec") for band in BANDS}
    made |= {f"psfdepth {band}": Histogram(20, 28, unit="AB mag") for band in BANDS}
    return made | {"E(B-V)": Histogram(0, 2, unit="mag"), "redshift": Histogram(0, 2)}


def batches(root: str) -> Iterator[dict[str, np.ndarray]]:
    """Yield the committed targets' `COLUMNS`, a bounded number of rows at a time."""
    for part in committed_parts(root):
        if part.rows:
            with open_part(join(root, part.key)) as file:
                for batch in file.iter_batches(BATCH, columns=COLUMNS):
                    yield {n: batch.column(n).to_numpy(zero_copy_only=False) for n in COLUMNS}


def count(root: str) -> Tally:
    """Return what is counted of a committed table of targets."""
    tally = Tally(quantities=_quantities())
    for rows in batches(root):
        for counter, name in (
            (tally.splits, "region_split"), (tally.sources, "z_host_source"), (tally.psf_sources, "psf_source"),
            (tally.cells, "sky_cell"),
        ):  # fmt: skip
            found, times = np.unique(rows[name], return_counts=True)
            counter.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
        values = _derived(rows)
        for name, histogram in tally.quantities.items():
            histogram.add(values[name].astype(np.float64))
        tally.colours += np.histogram2d(values["g - r"], values["r - z"], COLOUR_EDGES)[0].astype(np.int64)
        for source in set(rows["z_host_source"]):
            mine = tally.redshifts.setdefault(source, Histogram(0, 2, 100))
            mine.add(rows["z_host"][rows["z_host_source"] == source])
    return tally


def _derived(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    mag = {band: rows[f"mag_dered_{band.lower()}"] for band in (*BANDS, "W1")}
    values = {f"{band}, dereddened": m for band, m in mag.items()}
    values |= {f"{a} - {b}": mag[a] - mag[b] for a, b in (("g", "r"), ("r", "z"), ("z", "W1"))}
    values |= {f"{name} {band}": rows[f"{name}_{band}"] for name in ("psfsize", "psfdepth") for band in BANDS}
    return values | {"E(B-V)": rows["ebv"], "redshift": rows["z_host"]}
