"""What the survey's own catalogue has at the anchors: galaxies near each position, from Tractor files or sweeps.

A brick's Tractor file (`tractor/<AAA>/tractor-<brick>.fits`) is looked for first: on the survey's server it is some
20 MB where a sweep is gigabytes. Anchors whose brick has none are looked up in the sweeps that cover them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from darkhaloscope import sky
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.at_positions import GIVE_UP_AFTER
from darkhaloscope.records import BANDS
from darkhaloscope.sections import Splits
from darkhaloscope.storage import is_web, join
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.catalogue import Catalogue, host_id, read_catalogue, read_chunks, text
from darkhaloscope.survey.errors import CatalogueError, TransferFailed
from darkhaloscope.survey.files import copy_to_local
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.sweeps import list_sweeps
from darkhaloscope.survey.targets import select_targets
from darkhaloscope.survey.transfer import Client

NEAR_ARCSEC = 10.0
MAX_BYTES = 4 << 30
COLUMNS = ("ra", "dec", "type", *(f"mag_{b}" for b in BANDS), "is_target")
_BOX = re.compile(r"sweep-(\d{3})([pm])(\d{3})-(\d{3})([pm])(\d{3})")
Rows = dict[str, np.ndarray]


def local_file(source: str, path: str, cache: str, client: Client) -> str:
    """Return where a file of the survey can be read: in the cache, copied there first where the source is remote.

    Raises:
        FileNotFoundError, TransferFailed: as `copy_to_local`.
    """
    if not (cache and is_web(source)):
        return join(source, path)
    target = Path(cache, path)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(
            f"{uuid.uuid4().hex}-{target.name}"
        )  # ends alike, for those who judge by the ending
        copy_to_local(join(source, path), part, MAX_BYTES, client)
        part.replace(target)
    return str(target)


def galaxies_near(
    ra: np.ndarray,
    dec: np.ndarray,
    bricks: BrickTable,
    experiment: Experiment,
    cache: str,
    client: Client,
) -> tuple[Rows, np.ndarray]:
    """Return the catalogue's objects within `NEAR_ARCSEC` of some positions.

    Args:
        ra, dec: (n,) deg, in bricks of the table.
        bricks: survey-bricks table.
        experiment: `survey` says where the catalogues are, `targets` what a target is.
        cache: folder for copies of remote files.
        client: limits and connections.

    Returns:
        (m,) arrays of `COLUMNS` (magnitudes as observed; is_target: passes the cuts of stage 3), and (n,) str: why
        there is no catalogue at a position, "" where there is one.
    """
    found, problem, left = _from_tractor(ra, dec, bricks, experiment, cache, client)
    if len(left):
        try:
            found += list(_from_sweeps(ra[left], dec[left], bricks, experiment, cache, client))
        except (Explained, OSError) as error:
            problem[left] = f"no Tractor file, and of the sweeps: {error}"
    return {n: np.concatenate([_none()[n], *(f[n] for f in found)]) for n in COLUMNS}, problem


def _from_tractor(
    ra: np.ndarray, dec: np.ndarray, bricks: BrickTable, experiment: Experiment, cache: str, client: Client
) -> tuple[list[Rows], np.ndarray, np.ndarray]:
    """Return what bricks' Tractor files have, why there is none at a position, and the positions without such a file.

    After a few failures in a row no more are asked for.
    """
    names = bricks.names_at(ra, dec)
    problem, without = np.full(len(ra), "", object), np.zeros(len(ra), bool)
    found, failed = [], 0
    for brick in np.unique(names).tolist():
        mine = np.flatnonzero(names == brick)
        if failed >= GIVE_UP_AFTER:
            problem[mine] = f"not asked for, since {failed} catalogues in a row failed"
            continue
        try:
            path = f"tractor/{brick[:3]}/tractor-{brick}.fits"
            catalogue = read_catalogue(local_file(experiment.survey.source, path, cache, client))
            found.append(_near(catalogue, ra[mine], dec[mine], bricks, experiment))
            failed = 0
        except FileNotFoundError:
            without[mine] = True
        except (TransferFailed, CatalogueError) as error:
            failed += isinstance(error, TransferFailed)
            problem[mine] = str(error)
    return found, problem, np.flatnonzero(without)


def _from_sweeps(
    ra: np.ndarray, dec: np.ndarray, bricks: BrickTable, experiment: Experiment, cache: str, client: Client
) -> Iterator[Rows]:
    survey = experiment.survey
    for sweep in list_sweeps(survey):
        covered = _covers(sweep.url, ra, dec)
        if not covered.any():
            continue
        path = join(survey.sweeps, sweep.url.rsplit("/", 1)[-1])
        inside = sweep.url == join(survey.source, path)
        for piece in read_chunks(local_file(survey.source, path, cache, client) if inside else sweep.url):
            yield _near(piece, ra[covered], dec[covered], bricks, experiment)


def _covers(url: str, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Tell which positions are in a sweep's box, as its name says it; all where it says none."""
    box = _BOX.search(url)
    if not box:
        return np.ones(len(ra), bool)
    low, high = ((-1 if box[i] == "m" else 1) * float(box[i + 1]) for i in (2, 5))
    return (ra >= float(box[1])) & (ra <= float(box[4])) & (dec >= low) & (dec <= high)


def _near(
    piece: Catalogue, ra: np.ndarray, dec: np.ndarray, bricks: BrickTable, experiment: Experiment
) -> Rows:
    c = piece.columns
    close = sky.nearest(c["ra"], c["dec"], ra, dec)[1] < NEAR_ARCSEC
    close &= np.asarray(c.get("brick_primary", True), bool)
    kept = Catalogue({k: v[close] for k, v in c.items()}, piece.absent, piece.source)
    chosen = select_targets(kept, experiment.targets, Splits(guard_arcsec=0.0), experiment.seed, bricks)
    ids = host_id(*(kept.columns[n] for n in ("release", "brickid", "objid")))
    return {
        "ra": kept.columns["ra"],
        "dec": kept.columns["dec"],
        "type": text(kept.columns["type"]).astype(object),
        **{f"mag_{b}": magnitude(kept.columns[f"flux_{b}"]) for b in BANDS},
        "is_target": np.isin(ids, chosen.columns["host_id"]),
    }


def _none() -> Rows:
    return {n: np.empty(0, bool if n == "is_target" else object if n == "type" else float) for n in COLUMNS}
