"""Following a job to its end, good or bad."""

import pytest

from darkhaloscope.dataset import Part, commit_chunk
from emr import follow, submit


def finish(jobs, state: str, reason: str = ""):
    """Let the local AWS say that everything it has is in this state."""
    clusters, _, runs = jobs
    for step in (s for c in clusters.values() for s in c.steps):
        step.state, step.last_state_change_reason = state, reason
    for run in (r for group in runs.values() for r in group):
        run.state, run.state_details = state, reason


@pytest.mark.parametrize("where", [[], ["--serverless"]])
@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_job_that_ends_badly_is_status_1_with_the_reason_and_the_logs(
    command, local_aws, capsys, monkeypatch, where, state
):
    monkeypatch.setattr(submit, "sleep", lambda s: finish(local_aws, state, "the driver ran out of memory"))
    assert submit.main([*command, *where]) == 1
    error = capsys.readouterr().err
    assert f"ended {state}: the driver ran out of memory" in error
    assert "logs: s3://test-bucket/emr/logs/" in error


@pytest.mark.parametrize(("where", "good"), [([], "COMPLETED"), (["--serverless"], "SUCCESS")])
def test_a_job_that_ends_well_is_status_0_after_telling_its_progress(
    command, local_aws, capsys, monkeypatch, where, good, s3_bucket
):
    output = f"{s3_bucket}/runs/phase4c/v4_sota_moffat/told{len(where)}"
    part = Part("chunk=00000/part-0.parquet", 1, 1, "0")

    def work(seconds):
        if follow.count_committed_chunks(output):
            finish(local_aws, good)
        else:
            commit_chunk(output, 0, [part])

    monkeypatch.setattr(submit, "sleep", work)
    assert submit.main([*command, *where, "--experiment-id", f"told{len(where)}"]) == 0
    said = capsys.readouterr().out
    assert "0 chunks committed" in said and "1 chunks committed" in said and f"{good}, 1 chunks" in said
    assert f"done; table at {output}" in said


def test_a_cluster_that_dies_ends_the_waiting(local_aws, command, monkeypatch, capsys):
    def die(seconds):
        for cluster in local_aws[0].values():
            cluster.state = "TERMINATED_WITH_ERRORS"

    monkeypatch.setattr(submit, "sleep", die)
    assert submit.main(command) == 1
    assert "is TERMINATED_WITH_ERRORS" in capsys.readouterr().err
