"""Read a scores dataset: one model's logits on one set of stamps, checked before any figure is made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from darkhaloscope.dataset import committed_files, content_hash, open_part
from darkhaloscope.errors import Explained
from darkhaloscope.results import SCORES
from darkhaloscope.schema import check_schema
from darkhaloscope.stage import read_record

PROVENANCE = "scored_with"
"""Key of the file metadata that holds, as JSON, which model scored which data and how."""


class ScoresError(Explained, ValueError):
    """Scores that cannot be evaluated; the message names the dataset, what was found and what to do."""


@dataclass(frozen=True)
class Scores:
    """A scores dataset in memory.

    Attributes:
        columns: the asked-for columns of `results.SCORES`, by name.
        provenance: model and data hashes, split, averaging: the same in every file.
        hash: content hash of the dataset.
        selection: which rows of it these are; empty: all.
        repeated_controls: rows that `without_repeats` left out.
        record: its `_stage_config.json`, empty where there is none.
    """

    columns: dict[str, np.ndarray]
    provenance: dict[str, Any]
    hash: str
    record: dict[str, Any]
    selection: str = ""
    repeated_controls: int = 0

    @property
    def label(self) -> np.ndarray:
        """Return (n,) bool: True where the stamp shows a lens, added or real."""
        return self.columns["label"] == 1

    @property
    def logit(self) -> np.ndarray:
        """Return (n,) float32 logits."""
        return self.columns["logit"]


def read_scores(root: str, columns: tuple[str, ...] = ()) -> Scores:
    """Read the committed scores under `root`.

    Args:
        root: URL that `evaluation.score` wrote to.
        columns: columns wanted beside logit, label, task_id, host_id and sky_cell.

    Raises:
        DatasetError: nothing is committed there, or a file is damaged.
        SchemaError: a column is missing or of another type.
        ScoresError: files scored by different models or on different data, NaN logits, a repeated task_id.
    """
    names = list(dict.fromkeys(("logit", "label", "task_id", "host_id", "sky_cell", *columns)))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    sources: dict[str, str] = {}
    for url in committed_files(root):
        with open_part(url) as part:
            check_schema(SCORES, part.schema_arrow, url, names)
            metadata = part.schema_arrow.metadata or {}
            sources.setdefault(metadata.get(PROVENANCE.encode(), b"{}").decode(), url)
            table = part.read(columns=names)
        for name in names:
            parts[name].append(table.column(name).to_numpy())
    if len(sources) > 1:
        raise ScoresError(
            f"{root}: files of {len(sources)} different scorings, such as {' and '.join(list(sources)[:2])}; "
            "score each model on each data set into a folder of its own"
        )
    found = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    _check(found, root)
    return Scores(found, json.loads(next(iter(sources))), content_hash(root), read_record(root) or {})


def without_repeats(scores: Scores) -> Scores:
    """Return the scores with each control galaxy once: its first row.

    Nothing is added to a control, so replicates of one host are the same pixels again, and would narrow every
    interval of the FPR as if they were new galaxies. (Logits do not tell them apart: those of the same pixels
    differ in the last digits from batch to batch.)

    Raises:
        ScoresError: a row's label is neither 0 nor 1: nobody knows whether it is a lens.
    """
    if (unknown := ~np.isin(scores.columns["label"], (0, 1))).any():
        raise ScoresError(
            f"{unknown.sum()} of {len(unknown)} rows have a label other than 0 and 1, such as task_id "
            f"{scores.columns['task_id'][unknown][0]}: figures need to know what is a lens"
        )
    control = np.flatnonzero(~scores.label)
    keep = scores.label.copy()
    keep[control[np.unique(scores.columns["host_id"][control], return_index=True)[1]]] = True
    left_out = scores.repeated_controls + int((~keep).sum())
    return replace(
        scores, columns={k: v[keep] for k, v in scores.columns.items()}, repeated_controls=left_out
    )


def at_least(scores: Scores, minimum: Mapping[str, float]) -> Scores:
    """Return the rows whose columns are at least these values, in both classes alike.

    Controls have the values of their virtual injection, so that a bound on theta_over_psf or arc_snr does not
    become a label. A row without a value is left out.

    Raises:
        ScoresError: a column that was not read.
    """
    if unknown := [name for name in minimum if name not in scores.columns]:
        raise ScoresError(f"no column {unknown} among the scores read: {sorted(scores.columns)}")
    keep = np.ones(len(scores.logit), bool)
    for name, least in minimum.items():
        keep &= scores.columns[name].astype(float) >= least
    selection = " and ".join(f"{name} >= {least:g}" for name, least in minimum.items())
    return replace(scores, columns={k: v[keep] for k, v in scores.columns.items()}, selection=selection)


def _check(columns: dict[str, np.ndarray], root: str) -> None:
    logit, ids = columns["logit"], columns["task_id"]
    if bad := int(np.sum(~np.isfinite(logit))):
        example = ids[~np.isfinite(logit)][0]
        raise ScoresError(
            f"{root}: {bad} of {len(logit)} logits are NaN or infinite (task_id {example}, for one); look at "
            "that stamp and at the model, then score again"
        )
    if repeated := len(ids) - len(np.unique(ids)):
        raise ScoresError(f"{root}: {repeated} of {len(ids)} rows repeat a task_id; each stamp counts once")
