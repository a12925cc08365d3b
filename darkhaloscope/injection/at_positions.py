"""Stamps at positions, without Spark: a table of positions -> STAMPS rows, as stages 4a, 4b and 4c make them.

The rows are those of 4a's catalogue mode and the stamps those of 4c, function for function, so a score of such a stamp
compares with one of the training set. Every position ends as a stamp, or is refused with its reason.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import Part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.catalogue import lay_out_catalogue, place_on_sky
from darkhaloscope.injection.psfs import load_kernels
from darkhaloscope.injection.stamps import stamp_schema
from darkhaloscope.injection.task import TaskResult, stamps_of_brick
from darkhaloscope.injection.visit import Visit, ahead
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.fetch import fetch_brick
from darkhaloscope.survey.positions import Positions, mark_duplicates
from darkhaloscope.survey.targets import brick_splits_of
from darkhaloscope.survey.transfer import Client, client_of

GIVE_UP_AFTER = 3  # bricks in a row that could not be fetched, each after all its tries: the server is down


@dataclass(frozen=True)
class StampsAt:
    """What became of n positions.

    stamps: STAMPS rows, all with pixels (`cutout_ok` 1), in the order of the positions; the layout of the pixels is in
        the schema's metadata.
    row: (m,) int64, the position each stamp is at.
    refused: (n,) str, why there is no stamp; "" where there is one.
    """

    stamps: pa.Table
    row: np.ndarray
    refused: np.ndarray


def stamps_at(
    positions: Positions,
    bricks: BrickTable,
    coadds: str,
    experiment: Experiment,
    cache: str = "",
    scratch: str | None = None,
    client: Client | None = None,
) -> StampsAt:
    """Cut the stamp at each position.

    `region_split` says which part of the sky a position is in, as it does for the targets, but none is refused for
    being near a border: nothing is trained on here. Bricks that fail the quality cuts hold no target: where the sky is
    divided by regions of good bricks, they are "test".

    Args:
        positions: of `read_positions`, which marks faulty rows; rows of one place are marked here.
        bricks: the release's survey-bricks table (`read_brick_table`).
        coadds: URL with coadd/ below it: the survey's server, a copy of it, or a cache of stage 4b.
        experiment: seed, splits, PSF model, masks and stamps; a checkpoint's own, to score with it.
        cache: folder or S3 URL to copy the bricks to first and to read them from; whole files there are not copied
            again. "": bricks are read from `coadds`, remote ones by way of `scratch`.
        scratch: folder for passing copies; the system's by default.
        client: limits and connections of the copies; the experiment's by default.

    Raises:
        StorageError: the cache or scratch cannot be written.
    """
    manifest, kept, refused = lay_out_positions(positions, bricks, experiment)
    client = client or client_of(experiment.fetch)
    with tempfile.TemporaryDirectory(prefix="positions-", dir=scratch, ignore_cleanup_errors=True) as folder:
        source = _Coadds(coadds, cache, bricks, folder, client)
        batches = list(_stamps(manifest, source, experiment))
    made = pa.Table.from_batches(batches, stamp_schema(experiment))
    number = dict(zip(manifest.column("host_id").to_pylist(), kept.tolist(), strict=True))
    row = np.array([number[i] for i in made.column("host_id").to_pylist()], np.int64)
    good = np.asarray(made.column("cutout_ok")) == 1
    refused[row[~good]] = np.array(made.column("failure_reason").to_pylist(), object)[~good]
    brick_of = manifest.column("brickname").to_numpy()
    for brick, reason in source.failed.items():
        refused[kept[brick_of == brick]] = reason
    order = np.flatnonzero(good)[np.argsort(row[good])]
    return StampsAt(made.take(order), row[order], refused)


def lay_out_positions(
    positions: Positions, bricks: BrickTable, experiment: Experiment
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Return the MANIFEST rows of positions wherever they are, and why there is none for the others.

    Returns:
        manifest: (m,) rows in the order of brick and task_id.
        kept: (m,) int64, the position each is of.
        refused: (n,) str, why a position has no row; "" where it has one.
    """
    positions = mark_duplicates(positions)
    splits = dataclasses.replace(experiment.splits, guard_arcsec=0.0)
    of_brick = brick_splits_of(bricks, experiment.targets, splits, experiment.seed)
    if of_brick is not None:
        of_brick = dict.fromkeys(bricks.columns["brickname"].tolist(), "test") | of_brick
    host, refused = place_on_sky(positions, bricks, splits, experiment.seed, of_brick)
    kept = np.flatnonzero(refused == "")
    chosen = Positions({k: v[kept] for k, v in positions.columns.items()}, refused[kept], positions.source)
    manifest = lay_out_catalogue(chosen, {k: v[kept] for k, v in host.items()}, experiment)
    number = dict(zip(host["host_id"][kept].tolist(), kept.tolist(), strict=True))
    ids = manifest.column("host_id").to_pylist()
    return manifest, np.array([number[i] for i in ids], np.int64), refused


@dataclass
class _Coadds:
    """Where bricks are read, after they were fetched where there is a cache; `failed`: brick -> why it was not."""

    source: str
    cache: str
    bricks: BrickTable
    scratch: str
    client: Client
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    failed_in_a_row: int = 0
    last: str = ""

    def fetch(self, brick: str, bands: str) -> bool:
        """Return whether a brick may be read: it is cached, or not in the survey (the reader says so)."""
        if not self.cache:
            return True
        if self.failed_in_a_row >= GIVE_UP_AFTER:
            self.failed[brick] = f"not asked for, since {GIVE_UP_AFTER} bricks in a row failed: {self.last}"
            return False
        row = fetch_brick(self.source, self.cache, brick, bands, self.client, self.scratch)
        if row["status"] != "failed":
            self.failed_in_a_row = 0
            return True
        self.failed_in_a_row += 1
        self.failed[brick] = self.last = row["reason"]
        return False

    def reader(self, brick: str, bands: str, cuts: int) -> BrickReader:
        row = self.bricks.row(brick)
        return BrickReader(self.cache or self.source, brick, bands, self.scratch, row, n_cuts=cuts)


def _stamps(manifest: pa.Table, coadds: _Coadds, experiment: Experiment) -> Iterator[pa.RecordBatch]:
    """Yield the stamps brick by brick, the next one opened meanwhile."""
    kernels, result, bands = load_kernels(experiment), TaskResult(Part("", 0, 0, "")), experiment.survey.bands
    names = manifest.column("brickname")
    rows = {n: manifest.filter(pc.equal(names, n)) for n in names.unique().to_pylist()}
    visits = (
        Visit(coadds.reader(n, bands, rows[n].num_rows), experiment.limits.brick_seconds)
        for n in rows
        if coadds.fetch(n, bands)
    )
    for visit in ahead(visits):
        yield from stamps_of_brick(visit, rows[visit.reader.brickname], experiment, kernels, result)
