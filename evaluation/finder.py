"""A finder in a few lines: scores of stamps in an array, or of positions on the sky.

from evaluation import load_finder

finder = load_finder("model")                              # a folder of training.export
logits = finder.score(stamps)                              # (n, band, y, x), nanomaggies per pixel
found = finder.search([(150.1, 2.2)], survey="https://...")    # one row a position: score, rank, known lens, pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from darkhaloscope.injection.at_positions import stamps_at
from darkhaloscope.records import BANDS
from darkhaloscope.results import CANDIDATES
from darkhaloscope.schema import to_batch
from darkhaloscope.search.conditions import release_of
from darkhaloscope.search.known import lenscat_file, read_known
from darkhaloscope.search.model import Model, load_model
from darkhaloscope.search.ranking import rank
from darkhaloscope.search.reference import Reference, read_reference
from darkhaloscope.search.scoring import Scoring, score_rows
from darkhaloscope.stats.robust import mad_sigma
from darkhaloscope.storage import join, resolve
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.errors import CatalogueError
from darkhaloscope.survey.positions import Positions, read_positions

MODEL_FILE, REFERENCE_FILE = "finder.onnx", "reference.json"


@dataclass(frozen=True)
class Found:
    """What became of n positions.

    candidates: results.CANDIDATES, the most lens-like first, each with its pixels; rows beyond the model's training
        come last, with the reason in `refused`.
    no_stamp: position number -> why no stamp could be cut there.
    """

    candidates: pa.Table
    no_stamp: dict[int, str]


@dataclass(frozen=True)
class Finder:
    """A model with its reference (None: no rates and no probabilities)."""

    model: Model
    reference: Reference | None

    def score(
        self, stamps: np.ndarray, sky_sigma: np.ndarray | None = None, meta: np.ndarray | None = None
    ) -> np.ndarray:
        """Return logits of stamps, (n,) float32; larger is more lens-like.

        Args:
            stamps: (n, band, y, x) nmgy/pixel, in the model's bands and size, north up as in the survey's coadds.
            sky_sigma: (n, band) nmgy/pixel, 1/sqrt(median inverse variance); measured in the stamp where not given.
            meta: (n, column) of `model.meta_cols`, where the model has any.

        Raises:
            ModelError: stamps of another shape, or metadata that is not given.
        """
        stamps = np.asarray(stamps, np.float32)
        sky = sky_of(stamps) if sky_sigma is None and stamps.ndim == 4 else sky_sigma
        return self.model.logits(stamps, sky, meta)

    def search(
        self,
        positions: str | Sequence[tuple[float, float]],
        survey: str = "",
        known: str = "",
        force: bool = False,
        prevalence: float = 1e-3,
        cache: str = "",
    ) -> Found:
        """Cut and score positions; every one ends as a candidate or without a stamp, with the reason.

        Args:
            positions: (ra, dec) in deg each, or a table as `survey.positions.read_positions` reads it.
            survey: base of the survey's files; the model's by default.
            known: known lenses in lenscat's layout; of the package lenscat where it is installed.
            force: score positions beyond the model's conditions too; the column `outside` says so.
            prevalence: lenses among targets, for the probability.
            cache: folder in which the bricks' files are kept.

        Raises:
            CatalogueError: the table cannot be used, or no position can be cut; the message says why.
        """
        config = self.model.experiment
        config = replace(config, survey=replace(config.survey, source=survey or config.survey.source),
                         stamps=replace(config.stamps, poisson_noise=False))  # fmt: skip
        asked = (
            read_positions(positions, labelled=False)
            if isinstance(positions, str)
            else positions_at(positions)
        )
        bricks = read_brick_table(resolve(config.survey.source, config.survey.bricks_table))
        cut = stamps_at(asked, bricks, config.survey.source, config, cache)
        if not cut.stamps.num_rows:
            raise CatalogueError(
                f"{asked.source}: no stamp at any position: {sorted(set(cut.refused.tolist()))}"
            )
        ranked = self._ranked(cut.stamps, release_of(config.survey), known, force, prevalence)
        return Found(ranked, {int(i): cut.refused[i] for i in np.flatnonzero(cut.refused != "")})

    def _ranked(self, stamps: pa.Table, release: str, known: str, force: bool, prevalence: float) -> pa.Table:
        """Return stamps as candidates, the most lens-like first; arguments as `search`."""
        batch = stamps.combine_chunks().to_batches()[0]
        columns = score_rows(batch, [self.model], Scoring((), self.reference, release, force, 0))
        for name in ("logit", "logit_spread"):
            columns[name] = pa.array(columns[name], mask=~np.isfinite(columns[name]))
        made = to_batch(CANDIDATES, columns | {"stamp": batch.column("stamp")}, batch.schema.metadata)
        file = known or lenscat_file()
        lenses = read_known(file) if file else None
        return rank(pa.Table.from_batches([made]), self.reference, prevalence, 0.0, lenses)


def load_finder(path: str | Path, reference: str | Path = "") -> Finder:
    """Load a finder.

    Args:
        path: folder of `training.export`, or an ONNX file of it.
        reference: file of `evaluation.reference`; reference.json beside the model where there is one.

    Raises:
        ModelError: see `darkhaloscope.search.model.load_model`.
        ReferenceRefused: a reference of another model.
    """
    url = str(path)
    folder, file = (url, join(url, MODEL_FILE)) if Path(url).is_dir() else (str(Path(url).parent), url)
    model = load_model(file, threads=0)
    try:
        found = read_reference(str(reference) or join(folder, REFERENCE_FILE), [model])
    except FileNotFoundError:
        if reference:
            raise
        found = None
    return Finder(model, found)


def positions_at(places: Sequence[tuple[float, float]]) -> Positions:
    """Return positions without a table: (ra, dec) in deg each."""
    ra, dec = np.array(places, np.float64).reshape(-1, 2).T
    n = len(ra)
    columns = {"ra": ra, "dec": dec, "label": np.full(n, -1, np.int8), "release": np.full(n, np.nan)}
    columns |= {name: np.full(n, "", object) for name in ("object_name", "object_type", "sample")}
    columns |= {name: np.full(n, np.nan) for name in ("theta_e_arcsec", *(f"mag_{b}" for b in BANDS))}
    off = ~((ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90))
    fault = np.where(off, "position not on the sky: expected RA 0 to 360 and Dec -90 to 90 degrees", "")
    return Positions(columns, fault.astype(object), "the positions given")


def sky_of(stamps: np.ndarray) -> np.ndarray:
    """Return the sky's sigma in each band, (n, band) nmgy/pixel: 1.4826 MAD of the outermost eighth on each side.

    On DECaLS DR9 it agrees with 1/sqrt(median inverse variance) to 8 %; crowded borders make it larger.
    """
    edge = max(stamps.shape[-1] // 8, 1)
    border = np.ones(stamps.shape[-2:], bool)
    border[edge:-edge, edge:-edge] = False
    return np.asarray(mad_sigma(stamps[..., border], axis=-1), np.float32)
