"""The smoke run is production: no script of its own."""

from pathlib import Path

from darkhaloscope.experiment import load
from emr.submit import STAGES
from local_spark.smoke import EXPERIMENT, pipeline
from local_spark.steps import REPOSITORY


def test_the_smoke_run_starts_what_a_cluster_starts():
    commands = [step.command for step in pipeline("out", load(EXPERIMENT), str(EXPERIMENT), "sky")]
    started = {}
    for submit, script, *flags in (c for c in commands if "spark_jobs" in c[1]):
        assert Path(submit).name == "spark-submit" and Path(script).parent == REPOSITORY / "spark_jobs"
        started[flags[1] if flags[0] == "--stage" else "3"] = Path(script).name
    assert started == {stage: STAGES[stage][0] for stage in ("3", "4a", "4b", "4c", "4d", "pack")}
