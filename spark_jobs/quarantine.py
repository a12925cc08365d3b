"""What could not be read: written down with its reason, counted, and refused when it is too much."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, write_part
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import FAILURES
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun
from darkhaloscope.storage import join


@dataclass(frozen=True)
class Failure:
    """One brick or file that could not be read: a row of `records.FAILURES`."""

    stage: str
    unit: str
    rows: int
    error: str
    reason: str


def write_failures(output: str, failures: list[Failure], chunk: int = 0) -> None:
    """Write a chunk's failures to the table `quarantine` below a stage's output; none writes nothing."""
    root = join(output, "quarantine")
    if not failures or chunk in committed_chunks(root):
        return
    rows = [asdict(f) for f in failures]
    batch = to_batch(FAILURES, {name: [row[name] for row in rows] for name in FAILURES.names})
    commit_chunk(root, chunk, [write_part(root, chunk, 0, [batch], FAILURES.arrow())])


def refuse_too_many(stage: StageRun, failed: int, total: int, what: str, experiment: Experiment) -> None:
    """Fail the stage when the failed fraction is above the experiment's limit.

    Raises:
        DatasetError: with the counts, and where the reasons are.
    """
    limit = experiment.limits.max_failed_fraction
    if total and failed > limit * total:
        raise DatasetError(
            f"{stage.root}: {failed} of {total} {what} failed, more than the fraction {limit} allowed; the "
            f"reasons are in {stage.root}/quarantine, failure_reason; raise --max-failed-fraction to go on"
        )
