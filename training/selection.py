"""Which rows take part in training: the same bounds for both classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.hosts import is_control_host
from darkhaloscope.records import CATALOGUE, SAMPLES
from darkhaloscope.sections import Training

POSITIVE = np.array([kind.endswith("positive") for kind in SAMPLES])
"""(kind,) which kinds of `records.SAMPLES` are lenses."""


class DataError(Explained, RuntimeError):
    """Training data that cannot be used; the message names file, column or row and says what to do."""


def bounds_of(config: Training) -> tuple[tuple[str, float], ...]:
    """Return the (column, least value) pairs that a config asks for."""
    bounds = (("theta_over_psf", config.min_theta_over_psf), ("arc_snr", config.min_arc_snr))
    return tuple((column, least) for column, least in bounds if least > 0)


@dataclass(frozen=True)
class Selection:
    """Which rows take part.

    Bounds on the injection hold for both classes: controls carry their virtual injection. Rows of a catalogue
    (real lenses, mimics) have none, and pass.

    Attributes:
        split: value of region_split to keep; empty: all (the dataset holds one split only).
        minimum: (column, least value) pairs; an injection or control with a null there does not take part.
        metrics_ok: True: only rows whose arc's measurements can be trusted.
        live: experiment whose arcs are drawn in training: stamps that hold one already are left out.
    """

    split: str = ""
    minimum: tuple[tuple[str, float], ...] = ()
    metrics_ok: bool = False
    live: Experiment | None = None

    @property
    def columns(self) -> list[str]:
        """Columns it reads."""
        injection = [*(c for c, _ in self.minimum), *(["metrics_ok"] if self.metrics_ok else [])]
        return ["cutout_ok", *(["region_split"] if self.split else []), *injection,
                *(["control_kind"] if injection or self.live else []),
                *(["sample", "host_id"] if self.live else [])]  # fmt: skip

    def candidates(self, table: pa.Table) -> np.ndarray:
        """Return which rows have a stamp and are of the split, (row,) bool: those before any bound."""
        made = table.column("cutout_ok").to_numpy() == 1
        if self.split:
            made &= pc.equal(table.column("region_split"), self.split).to_numpy()
        if self.live:
            made &= pc.not_equal(table.column("sample"), "synthetic_positive").to_numpy()
        return made

    def classed(self, table: pa.Table, kind: np.ndarray) -> np.ndarray:
        """Return the rows' kinds, (row,) int8: with live injection, a control whose host is to get an arc is a lens.

        Where controls are paired, hosts take turns: this is the class they have in even epochs.
        """
        if self.live is None:
            return kind
        paired = self.live.injection.controls == "paired"
        host = np.asarray(table.column("host_id").to_numpy())
        bare = (kind == SAMPLES.index("random_negative")) & pc.not_equal(
            table.column("control_kind"), CATALOGUE
        ).to_numpy()
        lit = bare & ~(is_control_host(host, self.live, 0.5) if paired else is_control_host(host, self.live))
        return np.where(lit, SAMPLES.index("synthetic_positive"), kind).astype(np.int8)

    def keeps(self, table: pa.Table) -> np.ndarray:
        """Return which rows of `table` take part, (row,) bool."""
        within = np.ones(table.num_rows, bool)
        for column, least in self.minimum:
            # Rows without a measurement have nulls here: as NaN they fail the comparison.
            within &= table.column(column).to_numpy() >= least
        if self.metrics_ok:
            within &= table.column("metrics_ok").to_numpy() == 1
        if self.minimum or self.metrics_ok:
            within |= pc.equal(table.column("control_kind"), CATALOGUE).to_numpy()
        return self.candidates(table) & within

    def __str__(self) -> str:
        bounds = [f"{column} >= {least:g}" for column, least in self.minimum]
        return " and ".join([*([f"region_split = {self.split}"] if self.split else []), "cutout_ok", *bounds,
                             *(["metrics_ok"] if self.metrics_ok else []),
                             *(["bare, for live injection"] if self.live else [])])  # fmt: skip
