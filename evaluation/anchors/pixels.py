"""From a table of anchors to checked pixels: every gate in its order, and a stamp for each anchor that passes all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.at_positions import GIVE_UP_AFTER, lay_out_positions, stamps_at
from darkhaloscope.injection.stamps import make_stamps, stamp_schema
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.records import BANDS
from darkhaloscope.storage import is_web
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.errors import BrickUnreadable
from darkhaloscope.survey.positions import Positions
from darkhaloscope.survey.transfer import Client
from evaluation.anchors.cutout_service import ServiceFailed, fetch_cutout
from evaluation.anchors.galaxies import galaxies_near
from evaluation.anchors.position_gates import centroid_fault, j_name_fault, match

GATES = ("table", "name", "footprint", "catalogue", "pixels", "centroid")
"""In the order in which an anchor meets them; it is refused by the first that it does not pass."""


@dataclass(frozen=True)
class Source:
    """Where pixels and catalogues are from.

    bricks: survey-bricks table.
    cache: folder of copies of remote files; "": read in place.
    client: limits and connections.
    service: base URL of a cutout service to ask for anchors without coadds; "": none.
    """

    bricks: BrickTable
    cache: str
    client: Client
    service: str = ""


@dataclass(frozen=True)
class Checked:
    """Anchors after the gates.

    anchors: (n,) as given, with the catalogue's magnitudes.
    gate, refused: (n,) str, the gate that refused an anchor, and why; "" where none did.
    host: (n,) arrays of the matched galaxy: type, match_arcsec, passes_target_cuts (-1: no galaxy).
    stamps: STAMPS rows of the anchors that passed.
    row: (m,) int64, the anchor of each stamp.
    pixels: (m,) str, where each is from: coadd or cutout_service.
    """

    anchors: Positions
    gate: np.ndarray
    refused: np.ndarray
    host: dict[str, np.ndarray]
    stamps: pa.Table
    row: np.ndarray
    pixels: np.ndarray


class _Refusals:
    """Who refused an anchor first, and why."""

    def __init__(self, fault: np.ndarray) -> None:
        self.why = fault.copy()
        self.gate = np.where(fault == "", "", GATES[0]).astype(object)

    def add(self, gate: str, why: np.ndarray) -> None:
        new = (self.why == "") & (why != "")
        self.why[new], self.gate[new] = why[new], gate

    @property
    def left(self) -> np.ndarray:
        return np.flatnonzero(self.why == "")


def check(anchors: Positions, experiment: Experiment, source: Source) -> Checked:
    """Let anchors pass the gates, and cut the stamps of those that do through the pipeline's own stages.

    Args:
        anchors: of `sets.join`.
        experiment: the checkpoint's, with `survey` saying where the coadds and catalogues are.
        source: the tables and connections.

    Raises:
        StorageError: the cache cannot be written.
    """
    c = anchors.columns
    refusals = _Refusals(anchors.fault)
    names = zip(c["object_name"].tolist(), c["ra"].tolist(), c["dec"].tolist(), strict=True)
    refusals.add("name", np.array([j_name_fault(*row) for row in names], object))
    refusals.add("footprint", lay_out_positions(_with(anchors, refusals), source.bricks, experiment)[2])
    anchors, host = _at_galaxies(anchors, refusals, experiment, source)
    coadds, cache = experiment.survey.source, source.cache if is_web(experiment.survey.source) else ""
    made = stamps_at(_with(anchors, refusals), source.bricks, coadds, experiment, cache, client=source.client)
    stamps, row = made.stamps, made.row
    pixels = np.full(len(row), "coadd", object)
    if source.service:
        wanted = (refusals.why == "") & (made.refused != "")
        more, more_row, why = from_service(anchors, wanted, experiment, source)
        made.refused[wanted] += "; " + why[wanted]
        stamps, row = pa.concat_tables([stamps, more]), np.concatenate([row, more_row])
        pixels = np.concatenate([pixels, np.full(len(more_row), "cutout_service", object)])
    made.refused[row] = ""
    refusals.add("pixels", made.refused)
    refusals.add("centroid", _centroids(stamps, row, len(anchors)))
    good = refusals.why[row] == ""
    return Checked(anchors, refusals.gate, refusals.why, host, stamps.filter(good), row[good], pixels[good])


def _with(anchors: Positions, refusals: _Refusals) -> Positions:
    return dataclasses.replace(anchors, fault=refusals.why)


def _at_galaxies(
    anchors: Positions, refusals: _Refusals, experiment: Experiment, source: Source
) -> tuple[Positions, dict[str, np.ndarray]]:
    """Find the catalogue's galaxy at each anchor that is left; take its magnitudes."""
    n, left = len(anchors), refusals.left
    ra, dec = anchors.columns["ra"][left], anchors.columns["dec"][left]
    objects, problem = galaxies_near(ra, dec, source.bricks, experiment, source.cache, source.client)
    found = match(ra, dec, objects)
    why = np.full(n, "", object)
    why[left] = np.where(problem == "", found.fault, problem)
    refusals.add("catalogue", why)
    at, galaxy = left[found.row >= 0], found.row[found.row >= 0]
    host = {
        "type": np.full(n, "", object),
        "match_arcsec": np.full(n, np.nan),
        "passes_target_cuts": np.full(n, -1, np.int8),
    }
    host["type"][at] = objects["type"][galaxy]
    host["match_arcsec"][at] = found.separation_arcsec[found.row >= 0]
    host["passes_target_cuts"][at] = objects["is_target"][galaxy]
    columns = dict(anchors.columns)
    for band in BANDS:
        columns[f"mag_{band}"] = anchors.columns[f"mag_{band}"].copy()
        columns[f"mag_{band}"][at] = objects[f"mag_{band}"][galaxy]
    return Positions(columns, anchors.fault, anchors.source), host


def from_service(
    anchors: Positions, wanted: np.ndarray, experiment: Experiment, source: Source
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Ask the cutout service for some anchors, given by (n,) bool; after a few failures in a row for no more.

    Returns:
        STAMPS rows, the anchor of each, and (n,) str: why the service gave none.
    """
    fault, why = np.where(wanted, "", "not asked for").astype(object), np.full(len(anchors), "", object)
    manifest, kept, _ = lay_out_positions(
        dataclasses.replace(anchors, fault=fault), source.bricks, experiment
    )
    made, rows, failed = [], [], 0
    for i in range(manifest.num_rows):
        one = manifest.slice(i, 1)
        anchor = int(kept[i])
        ra, dec, brick = (one.column(n)[0].as_py() for n in ("ra", "dec", "brickname"))
        if failed >= GIVE_UP_AFTER:
            why[anchor] = f"cutout service: not asked, since {failed} requests in a row failed"
            continue
        try:
            cutout = fetch_cutout(source.service, ra, dec, brick, experiment.stamps.size, source.client)
            stamp = make_stamps(cutout, one, experiment)
            failed = 0
        except ServiceFailed as error:
            failed, why[anchor] = failed + 1, str(error)
        except BrickUnreadable as error:
            why[anchor] = str(error)
        else:
            made.append(stamp)
            rows.append(anchor)
    table = pa.Table.from_batches(made, stamp_schema(experiment))
    good = np.asarray(table.column("cutout_ok")) == 1
    row = np.array(rows, np.int64)
    why[row] = np.array(table.column("failure_reason").to_pylist(), object)
    return table.filter(good), row[good], why


def _centroids(stamps: pa.Table, row: np.ndarray, n: int) -> np.ndarray:
    """Return (n,) str: why the light of a stamp does not sit at its anchor."""
    why = np.full(n, "", object)
    facts = zip(*(stamps.column(c).to_pylist() for c in ("host_x", "host_y", "sky_sigma_z")), strict=True)
    for i, stamp, fact in zip(row.tolist(), pixels_of(stamps), facts, strict=True):
        why[i] = centroid_fault(stamp, *fact)
    return why
