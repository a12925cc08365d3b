"""Following a job to its end: state changes, time, committed chunks; and why it failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from darkhaloscope.dataset import count_committed_chunks
from darkhaloscope.report.page import duration
from emr.aws import SubmitError, call, say
from emr.requests import logs_of_job_run, logs_of_step

POLL_S = 20.0
GOOD = {"COMPLETED", "SUCCESS"}
BAD = {"FAILED", "CANCELLED", "INTERRUPTED"}
CLUSTER_OVER = {"TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"}


@dataclass(frozen=True)
class State:
    """A job's state, and what AWS says of it."""

    name: str
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """A submitted step or job run: how to ask for its state, and where its logs are."""

    what: str
    ask: Callable[[], State]
    logs: str


def step_job(emr: Any, cluster_id: str, step_id: str, logs: str) -> Job:
    """Return the job of a step on a cluster."""

    def ask() -> State:
        status = emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"]
        failure, change = status.get("FailureDetails", {}), status.get("StateChangeReason", {})
        said = [failure.get("Reason"), failure.get("Message"), failure.get("LogFile"), change.get("Message")]
        reason = "; ".join(text for text in said if text)
        if status["State"] not in GOOD | BAD:
            cluster = emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]
            if cluster["State"] in CLUSTER_OVER:
                why = cluster.get("StateChangeReason", {}).get("Message", "")
                return State("CANCELLED", f"cluster {cluster_id} is {cluster['State']}: {why}")
        return State(status["State"], reason)

    return Job(f"step {step_id} on cluster {cluster_id}", ask, logs_of_step(logs, cluster_id, step_id))


def job_run(serverless: Any, application_id: str, run_id: str, logs: str) -> Job:
    """Return the job of a Serverless job run."""

    def ask() -> State:
        found = serverless.get_job_run(applicationId=application_id, jobRunId=run_id)["jobRun"]
        return State(found["state"], found.get("stateDetails") or "")

    what = f"job run {run_id} of application {application_id}"
    return Job(what, ask, logs_of_job_run(logs, application_id, run_id))


def follow(job: Job, output: str, pause: Callable[[float], None] = time.sleep) -> None:
    """Print each change of state or progress until the job has ended well.

    Args:
        job: what to follow.
        output: URL of the stage's table; its committed chunks are the progress.
        pause: waits between two looks.

    Raises:
        SubmitError: it failed or was cancelled, with the reason and where the logs are.
    """
    start, last = time.monotonic(), ("", -1)
    while True:
        state = call(f"{job.what}: cannot ask for its state", job.ask)
        seen = (state.name, _chunks(output))
        if seen != last:
            say(
                f"{job.what}: {state.name}, {seen[1]} chunks committed, after {duration(time.monotonic() - start)}"
            )
            last = seen
        if state.name in GOOD:
            return
        if state.name in BAD:
            raise SubmitError(
                f"{job.what} ended {state.name}: {state.reason or 'no reason given'}\n  logs: {job.logs}"
            )
        pause(POLL_S)


def _chunks(output: str) -> int:
    """Return the committed chunks; 0 where the output cannot be read, which is no reason to stop following."""
    try:
        return count_committed_chunks(output)
    except OSError:
        return 0
