"""The steps of a run: production's own scripts, and what stopping one says."""

import subprocess
from pathlib import Path

import pytest

from darkhaloscope.experiment import load
from emr.submit import STAGES
from local_spark.smoke import EXPERIMENT, pipeline
from local_spark.steps import REPOSITORY, Step, StepFailed, run_steps


def test_the_smoke_run_starts_what_a_cluster_starts():
    commands = [step.command for step in pipeline("out", load(EXPERIMENT), str(EXPERIMENT), "sky")]
    started = {}
    for submit, script, *flags in (c for c in commands if "spark_jobs" in c[1]):
        assert Path(submit).name == "spark-submit" and Path(script).parent == REPOSITORY / "spark_jobs"
        started[flags[1] if flags[0] == "--stage" else "3"] = Path(script).name
    assert started == {stage: STAGES[stage][0] for stage in ("3", "4a", "4b", "4c", "4d", "pack")}


def test_ctrl_c_is_one_line_that_says_how_to_go_on(monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", stopped)
    with pytest.raises(StepFailed, match="stopped in step sky; stages that are done are kept"):
        run_steps([Step("sky", "paint", ("true",))])
