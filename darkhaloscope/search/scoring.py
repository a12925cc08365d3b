"""What one task of a search does: stamps in, scores out; pixels are kept of the best-scored rows alone."""

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
from darkhaloscope.search.conditions import beyond, conditions_of
from darkhaloscope.search.model import Model, worker_model
from darkhaloscope.search.names import designations, healpix_29, viewer_urls
from darkhaloscope.search.reference import Reference, mean_and_spread

ROWS_PER_BATCH = 500
OUTSIDE = "outside the model's training: "
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
        pictures: rows of each task whose pixels are kept, the best.
    """

    models: tuple[tuple[str, str], ...]
    reference: Reference | None
    release: str
    force: bool
    pictures: int


@dataclass(frozen=True)
class GivenScores:
    """Logits that `evaluation.score` gave to stamps elsewhere; task_ids are sorted."""

    task_ids: np.ndarray
    logit: np.ndarray

    def of(self, rows: pa.RecordBatch) -> np.ndarray:
        """Return the logit of each row, (n,); NaN where it was not scored."""
        ids = rows.column("task_id").to_numpy(zero_copy_only=False).astype(str)
        if not len(self.task_ids):
            return np.full(len(ids), np.nan)
        at = np.minimum(np.searchsorted(self.task_ids, ids), len(self.task_ids) - 1)
        return np.where(self.task_ids[at] == ids, self.logit[at], np.nan)


@dataclass
class Scored:
    """What a task reports: its part, rows scored, rows refused by reason, and bricks that could not be read."""

    part: Part
    scored: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, int, str, str]] = field(default_factory=list)


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
    best = np.empty(0)
    for batch in batches:
        columns = score_rows(batch, models, scoring, given)
        best = np.sort(np.concatenate([best, columns["logit"][np.isfinite(columns["logit"])]]))
        best = best[-scoring.pictures :] if scoring.pictures else best[:0]
        floor = best[0] if len(best) == scoring.pictures and scoring.pictures else -np.inf
        kept = columns["logit"] >= floor if scoring.pictures else np.zeros(batch.num_rows, bool)
        columns["stamp"] = pc.if_else(pa.array(kept), batch.column("stamp"), None)
        done.scored += int(np.isfinite(columns["logit"]).sum())
        done.refused.update(short(reason) for reason in columns["refused"] if reason)
        columns |= {k: _nullable(columns[k]) for k in ("logit", "logit_spread")}
        yield to_batch(CANDIDATES, columns, batch.schema.metadata)


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


def short(reason: str) -> str:
    """Return a reason without the row's own numbers, to count by; of an unreadable brick: its name."""
    if reason.startswith(OUTSIDE):
        return OUTSIDE + reason.removeprefix(OUTSIDE).split(" ")[0]
    for start, meaning in (
        ("host at", "the brick's images do not reach there"),
        ("psfsize_", "no usable PSF size"),
    ):
        if reason.startswith(start):
            return meaning
    return reason if len(reason) < 80 else reason.split(": ")[0]


def _nullable(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=~np.isfinite(values))
