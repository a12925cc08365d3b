"""What one task of a search does: stamps in, scores out; pixels are kept of rows that may end among the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import Part, open_part, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.injection.stamps import stamp_schema
from darkhaloscope.injection.task import StampTask, TaskResult, stamp_batches
from darkhaloscope.records import BANDS, STAMPS
from darkhaloscope.results import CANDIDATES
from darkhaloscope.schema import to_batch
from darkhaloscope.search.best import Best
from darkhaloscope.search.conditions import beyond, conditions_of
from darkhaloscope.search.model import Model, worker_model
from darkhaloscope.search.names import designations, healpix_29, viewer_urls
from darkhaloscope.search.reasons import OUTSIDE, short
from darkhaloscope.search.reference import Reference, mean_and_spread

ROWS_PER_BATCH = 500
_OF_STAMPS = [n for n in CANDIDATES.names if n in STAMPS.names and n != "stamp"]
_LATER = ("rank", "probability", "prevalence", "fpr", "fpr_high", "false_per_sqdeg", "false_per_sqdeg_high",
          "known_arcsec")  # fmt: skip
_LATER_TEXT = ("known_name", "known_type", "known_grading", "known_reference")


@dataclass(frozen=True)
class Scoring:
    """How to score, the same in every task.

    Attributes:
        models: (URL, hash) of each model.
        reference: what scores mean; calibrates the models of an ensemble.
        release: of the images.
        force: score rows beyond a model's conditions, and say so.
        pictures: the best rows of the search whose pixels are kept.
        floor: logit below which no row is among them, as earlier chunks found.
    """

    models: tuple[tuple[str, str], ...]
    reference: Reference | None
    release: str
    force: bool
    pictures: int
    floor: float = -np.inf


@dataclass(frozen=True)
class GivenScores:
    """Logits that `evaluation.score` gave to stamps elsewhere; task_ids, bytes, are sorted."""

    task_ids: np.ndarray
    logit: np.ndarray

    def of(self, rows: pa.RecordBatch) -> np.ndarray:
        """Return the logit of each row, (n,); NaN where it was not scored."""
        ids = rows.column("task_id").to_numpy(zero_copy_only=False).astype(bytes)
        if not len(self.task_ids):
            return np.full(len(ids), np.nan)
        at = np.minimum(np.searchsorted(self.task_ids, ids), len(self.task_ids) - 1)
        return np.where(self.task_ids[at] == ids, self.logit[at], np.nan)


@dataclass
class Scored:
    """What a task reports: its part, rows scored, rows refused by reason, unreadable bricks, and its best logits."""

    part: Part
    scored: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, int, str, str]] = field(default_factory=list)
    best: list[float] = field(default_factory=list)


def score_bricks(
    task: StampTask, index: int, attempt: int, coadds: str, experiment: Experiment, scoring: Scoring
) -> Scored:
    """Cut, score and write the targets of a task's bricks; a brick that cannot be read refuses its own alone."""
    cut = TaskResult(Part("", 0, 0, ""))
    batches = stamp_batches(task.bricks, coadds, experiment, cut)
    done = _write(task, index, attempt, batches, experiment, scoring, None)
    done.failures = cut.failures
    return done


def score_part(
    task: StampTask, index: int, attempt: int, url: str, experiment: Experiment, scoring: Scoring, given: GivenScores
) -> Scored:  # fmt: skip
    """Write the targets of a part of stamps with the scores they were given elsewhere."""
    with open_part(url) as part:
        metadata = part.schema_arrow.metadata
        batches = (b.replace_schema_metadata(metadata) for b in part.iter_batches(ROWS_PER_BATCH))
        return _write(task, index, attempt, batches, experiment, scoring, given)


def _write(
    task: StampTask, index: int, attempt: int, batches: Iterable[pa.RecordBatch], experiment: Experiment,
    scoring: Scoring, given: GivenScores | None,
) -> Scored:  # fmt: skip
    done = Scored(Part("", 0, 0, ""))
    schema = candidate_schema(experiment)
    rows = _scored(batches, scoring, given, done)
    done.part = write_part(task.output, task.chunk, index, rows, schema, attempt, "zstd", ROWS_PER_BATCH)
    return done


def candidate_schema(experiment: Experiment) -> pa.Schema:
    """Return the Arrow schema of candidates, with the layout of their stamps."""
    return CANDIDATES.arrow(stamp_schema(experiment).metadata)


def _scored(
    batches: Iterable[pa.RecordBatch], scoring: Scoring, given: GivenScores | None, done: Scored
) -> Iterator[pa.RecordBatch]:
    models = [worker_model(url, digest) for url, digest in scoring.models]
    best = Best(scoring.pictures, scoring.floor)
    for batch in batches:
        columns = score_rows(batch, models, scoring, given)
        best = best.with_rows(columns["logit"])
        kept = pa.array(columns["logit"] >= best.floor)
        columns["stamp"] = pc.if_else(kept, batch.column("stamp"), None)
        done.scored += int(np.isfinite(columns["logit"]).sum())
        done.refused.update(short(reason) for reason in columns["refused"] if reason)
        columns |= {k: _nullable(columns[k]) for k in ("logit", "logit_spread")}
        yield to_batch(CANDIDATES, columns, batch.schema.metadata)
    done.best = best.logits.tolist()


def score_rows(
    rows: pa.RecordBatch, models: list[Model], scoring: Scoring, given: GivenScores | None = None
) -> dict[str, Any]:
    """Return the columns of results.CANDIDATES of STAMPS rows, but for `stamp` and what the whole search decides.

    Each row is scored (logit is finite) or refused (NaN, and a reason).
    """
    columns: dict[str, Any] = {n: rows.column(n) for n in _OF_STAMPS}
    ra, dec = (rows.column(n).to_numpy() for n in ("ra", "dec"))
    ok = rows.column("cutout_ok").to_numpy() == 1
    outside = _outside(rows, models, scoring.release)
    refused = rows.column("failure_reason").to_numpy(zero_copy_only=False).astype(object)
    if not scoring.force:
        refused[outside != ""] = OUTSIDE + outside[outside != ""]
    chosen = np.flatnonzero(ok & (refused == ""))
    logit, spread = (np.full(rows.num_rows, np.nan, np.float32) for _ in range(2))
    if len(chosen):
        logit[chosen], spread[chosen] = _logits(rows.take(pa.array(chosen)), models, scoring, given)
    refused[chosen[~np.isfinite(logit[chosen])]] = (
        "the model's score is not a number" if given is None else "not among the scores given with --scores"
    )
    logit[~np.isfinite(logit)] = np.nan
    return columns | {
        "_healpix_29": healpix_29(ra, dec),
        "name": designations(ra, dec),
        "bands": np.where(ok, BANDS, "").astype(object),
        "merged": np.zeros(rows.num_rows, np.int32),
        "refused": refused,
        "outside": np.where(refused == "", outside, ""),
        "logit": logit,
        "logit_spread": spread,
        "n_models": np.full(rows.num_rows, len(models), np.int32),
        "release": pa.repeat(scoring.release, rows.num_rows),
        "viewer_url": viewer_urls(ra, dec),
        **{n: pa.nulls(rows.num_rows, CANDIDATES.arrow().field(n).type) for n in _LATER},
        **{n: pa.repeat("", rows.num_rows) for n in _LATER_TEXT},
    }


def _outside(rows: pa.RecordBatch, models: list[Model], release: str) -> np.ndarray:
    """Return what of each row lies beyond the conditions of any model, (n,) str."""
    columns = {n: rows.column(n).to_numpy() for n in ("dec", "psfsize_r", "psfdepth_r", "ebv")}
    found = np.full(rows.num_rows, "", object)
    for conditions in {conditions_of(m.experiment) for m in models}:
        more = beyond(columns, conditions, release)
        found = np.where(found == "", more, found)
    return found


def _logits(
    rows: pa.RecordBatch, models: list[Model], scoring: Scoring, given: GivenScores | None
) -> tuple[np.ndarray, np.ndarray]:
    if given is not None:
        return given.of(rows), np.full(rows.num_rows, np.nan)
    logits = np.stack([m.logits_of_rows(rows) for m in models])
    if scoring.reference is None:
        return mean_and_spread(logits)
    return scoring.reference.combined(logits, [m.checkpoint for m in models])


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=~np.isfinite(values))
