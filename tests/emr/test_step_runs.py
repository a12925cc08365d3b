"""What a step's arguments do when Spark gets them: a stage on the small sky, all of it on a local S3."""

import subprocess

import boto3
import pytest
from small_sky import write_small_sky

from darkhaloscope.dataset import read_table
from darkhaloscope.records import TARGETS
from darkhaloscope.stage import read_record
from darkhaloscope.storage import filesystem
from emr import submit
from emr.upload import REPOSITORY
from local_spark.steps import environment

ON_THE_CLUSTER = (
    "spark.archives",
    "spark.yarn",
    "spark.executorEnv",
    "spark.dynamicAllocation",
    "spark.driver",
)


def here(arguments: list[str], folder) -> list[str]:
    """The step's command for one machine: local master, this environment, the script fetched from S3 as YARN does."""
    split = next(i for i, a in enumerate(arguments) if a.startswith("s3://") and a.endswith(".py"))
    before, script, after = arguments[:split], arguments[split], arguments[split + 1 :]
    assert before[:5] == ["spark-submit", "--master", "yarn", "--deploy-mode", "cluster"]
    conf = [v for flag, v in zip(before[5::2], before[6::2], strict=True) if not v.startswith(ON_THE_CLUSTER)]
    fs, path = filesystem(script)
    fs.get_file(path, str(folder / "script.py"))
    return ["spark-submit", *(p for v in conf for p in ("--conf", v)), str(folder / "script.py"), *after]


@pytest.mark.xdist_group("spark")
def test_a_submitted_step_run_by_spark_commits_its_table_on_s3(package, site, local_aws, s3_bucket, tmp_path):
    write_small_sky(tmp_path / "sky")
    fs, base = filesystem(f"{s3_bucket}/sky")
    for path in (tmp_path / "sky").rglob("*"):
        if path.is_file() and "coadd" not in path.parts:
            fs.put_file(str(path), f"{base}/{path.relative_to(tmp_path / 'sky')}")
    root = f"{s3_bucket}/step runs"
    arguments = [
        "--stage", "3", "--experiment", str(REPOSITORY / "experiments" / "smoke.toml"), "--output-s3", root,
        "--site", str(site), "--package", str(package), "--survey-source", f"{s3_bucket}/sky", "--detach",
    ]  # fmt: skip
    assert submit.main(arguments) == 0
    (cluster,) = local_aws[0].values()
    emr = boto3.client("emr", region_name="us-east-1")
    step = emr.describe_step(ClusterId=cluster.id, StepId=cluster.steps[0].id)["Step"]

    command = here(step["Config"]["Args"], tmp_path)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (output,) = fs.ls(f"{root.removeprefix('s3://')}/phase3/smoke", detail=False)
    table = read_table(f"s3://{output}")
    assert table.num_rows > 20 and set(TARGETS.names) <= set(table.column_names)
    assert read_record(f"s3://{output}")["state"] == "done"
