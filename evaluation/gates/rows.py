"""Which stamps the gates look at: rows with an injection, real or virtual, each galaxy once in each class.

On a stamp without its arc the replicates of a host are the same pixels again, so only one row of each host and class
takes part: N counts galaxies. Positive and control of one host (paired controls) both stay, and share their host_id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope import experiment as experiments
from darkhaloscope.dataset import committed_chunks, committed_files, content_hash, open_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import NO_SOURCE, STAMPS
from darkhaloscope.schema import check_schema
from darkhaloscope.stage import read_record
from darkhaloscope.storage import join
from training.selection import DataError, Selection, bounds_of

SPLITS = ("train", "val", "test")
NARROW = (
    "task_id", "host_id", "ra", "dec", "label", "is_control", "source_kind", "source_id", "mag_r", "partner_task_id",
    "control_kind",
)  # fmt: skip
_MAG_BIN = 0.1  # within which host magnitudes count as equal
_ROWS = 128  # worked on at a time: 6 MB of stamps


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset, without pixels.

    Attributes:
        root: URL.
        content: content hash of what was read.
        experiment: the one that made the stamps, as their record says.
        files: URLs.
        columns: `NARROW`, split, file (index into `files`) and number (in its file), (row,) each: every row that
            has a stamp.
        chosen: (row,) bool: takes part in the gates.
        how: sentences that say how rows were chosen, and how many were left out.
    """

    root: str
    content: str
    experiment: Experiment
    files: tuple[str, ...]
    columns: dict[str, np.ndarray]
    chosen: np.ndarray
    how: tuple[str, ...]


def read_rows(data: str, trained: Experiment, limit: int) -> Rows:
    """Read the narrow columns of all splits and choose the rows that take part.

    Args:
        data: URL of packed shards (split=... below it) or of stage 4c's output.
        trained: the experiment of the checkpoint: its trainer's bounds on theta/PSF and arc SNR hold here too, so that
            the gates see what the network sees.
        limit: galaxies of each class and split at most; those with the lowest task_id, a digest, so as good as random.

    Raises:
        DataError: nothing is committed there, or a split lacks one class.
        DatasetError, SchemaError: a file is damaged, or lacks a column.
    """
    places = [(join(data, f"split={s}"), s) for s in SPLITS if committed_chunks(join(data, f"split={s}"))]
    places = places or [(data, "")]
    selection = Selection("", bounds_of(trained.training), trained.training.metrics_ok)
    names = list(dict.fromkeys([*NARROW, "region_split", *selection.columns, "control_kind"]))
    files, table = _narrow_table(places, names, selection)
    if not files:
        raise DataError(f"{data}: no committed chunk; give the folder that has split=test below it")
    columns = {n: table.column(n).to_numpy() for n in [*NARROW, "split", "kept", "file", "number"]}
    record = read_record(data) or {}
    made_by = experiments.from_dict(record["experiment"], data) if "experiment" in record else trained
    content = " ".join(content_hash(root) for root, _ in places)
    chosen, how = _choose(columns, made_by, limit)
    if str(selection) != "cutout_ok":
        how.insert(0, f"Rows as the network was trained on: {selection}.")
    return Rows(data, content, made_by, tuple(files), columns, chosen, tuple(how))


def _narrow_table(
    places: list[tuple[str, str]], names: list[str], selection: Selection
) -> tuple[list[str], pa.Table]:
    """Return the files, and of their rows that have a stamp the columns, split, place, and whether they are kept."""
    files, tables = [], []
    for root, split in places:
        for url in committed_files(root):
            with open_part(url) as part:
                check_schema(STAMPS, part.schema_arrow, url, [*names, "stamp"])
                table = part.read(columns=names).replace_schema_metadata()
            where = pa.array([split] * table.num_rows) if split else table.column("region_split")
            more = {"split": where, "kept": selection.keeps(table), "number": np.arange(table.num_rows)}
            more["file"] = np.full(table.num_rows, len(files))
            for name, values in more.items():
                table = table.append_column(
                    name, pa.array(values) if isinstance(values, np.ndarray) else values
                )
            tables.append(table.filter(pc.equal(table.column("cutout_ok"), 1)))
            files.append(url)
    return files, pa.concat_tables(tables) if tables else pa.table({})


def _choose(columns: dict[str, np.ndarray], made_by: Experiment, limit: int) -> tuple[np.ndarray, list[str]]:
    """Return the rows that take part, (row,) bool, and what to say about it."""
    positive = columns["label"] == 1
    usable = columns["kept"] & (columns["source_kind"] != NO_SOURCE)
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(columns["task_id"][rows].astype(str))]
    keys = np.stack([columns["host_id"][rows], positive[rows]], axis=1)
    once = np.zeros(len(usable), bool)
    once[rows[np.unique(keys, axis=0, return_index=True)[1]]] = True
    how = [f"{usable.sum() - once.sum():,} rows repeat a galaxy in its class and were left out."]
    chosen = once
    if made_by.injection.match_total_magnitude:
        chosen = _equal_magnitudes(chosen, positive, columns)
        how.append(
            "Controls were chosen as bright as host and arc together, so hosts of positives are fainter by design; "
            f"the classes are compared at equal host magnitude (r, bins of {_MAG_BIN} mag): "
            f"{once.sum() - chosen.sum():,} rows were left out for it."
        )
    chosen = _first_of_each(chosen, positive, columns, limit)
    for split in np.unique(columns["split"]):
        inside = chosen & (columns["split"] == split)
        if not (inside & positive).any() or not (inside & ~positive).any():
            raise DataError(
                f"split {split}: {(inside & positive).sum()} positives and {(inside & ~positive).sum()} controls take "
                "part in the gates; they need both: make more stamps, or relax the trainer's bounds"
            )
    return chosen, how


def _equal_magnitudes(chosen: np.ndarray, positive: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return the rows left when both classes have as many hosts in each split and bin of magnitude."""
    bins = np.floor(columns["mag_r"].astype(float) / _MAG_BIN)
    kept = np.zeros_like(chosen)
    for split in np.unique(columns["split"]):
        for value in np.unique(bins[chosen]):
            here = chosen & (columns["split"] == split) & (bins == value)
            n = min((here & positive).sum(), (here & ~positive).sum())
            for group in (here & positive, here & ~positive):
                rows = np.flatnonzero(group)
                kept[rows[np.argsort(columns["task_id"][rows].astype(str))[:n]]] = True
    return kept


def _first_of_each(
    chosen: np.ndarray, positive: np.ndarray, columns: dict[str, np.ndarray], limit: int
) -> np.ndarray:
    kept = np.zeros_like(chosen)
    for split in np.unique(columns["split"]):
        for group in (positive, ~positive):
            rows = np.flatnonzero(chosen & group & (columns["split"] == split))
            kept[rows[np.argsort(columns["task_id"][rows].astype(str))[:limit]]] = True
    return kept


def read_stamps(rows: Rows) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yield chosen rows with all their columns, some at a time: (their indices in `rows.columns`, table).

    Only row groups that hold one are read.
    """
    for file, url in enumerate(rows.files):
        index = np.flatnonzero(rows.chosen & (rows.columns["file"] == file))
        number = rows.columns["number"][index]
        with open_part(url) as part:
            stop = 0
            for group in range(part.num_row_groups):
                start, stop = stop, stop + part.metadata.row_group(group).num_rows
                here = index[(number >= start) & (number < stop)]
                if len(here):
                    table = part.read_row_group(group).take(rows.columns["number"][here] - start)
                    for first in range(0, len(here), _ROWS):
                        some = slice(first, first + _ROWS)
                        yield here[some], table.slice(first, _ROWS).combine_chunks()
