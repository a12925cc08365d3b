"""What a step's arguments do when Spark gets them: a stage on the small sky, all of it on a local S3."""

import subprocess

import boto3
import pytest
from small_sky import write_small_sky
from tiny_model import write_model

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


def upload(folder, url, *without):
    """Put the files of a folder on S3, but those below a folder of these names."""
    fs, base = filesystem(url)
    for path in folder.rglob("*"):
        if path.is_file() and not set(without) & set(path.parts):
            fs.put_file(str(path), f"{base}/{path.relative_to(folder)}")


def run_step(local_aws, folder):
    """Run the one step of the one cluster here, as Spark would there."""
    (cluster,) = local_aws[0].values()
    emr = boto3.client("emr", region_name="us-east-1")
    step = emr.describe_step(ClusterId=cluster.id, StepId=cluster.steps[0].id)["Step"]
    command = here(step["Config"]["Args"], folder)
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.xdist_group("spark")
def test_a_submitted_step_run_by_spark_commits_its_table_on_s3(package, site, local_aws, s3_bucket, tmp_path):
    write_small_sky(tmp_path / "sky")
    upload(tmp_path / "sky", f"{s3_bucket}/sky", "coadd")
    root = f"{s3_bucket}/step runs"
    arguments = [
        "--stage", "3", "--experiment", str(REPOSITORY / "experiments" / "smoke.toml"), "--output-s3", root,
        "--site", str(site), "--package", str(package), "--survey-source", f"{s3_bucket}/sky", "--detach",
    ]  # fmt: skip
    assert submit.main(arguments) == 0
    run_step(local_aws, tmp_path)
    fs, _ = filesystem(root)
    (output,) = fs.ls(f"{root.removeprefix('s3://')}/phase3/smoke", detail=False)
    table = read_table(f"s3://{output}")
    assert table.num_rows > 20 and set(TARGETS.names) <= set(table.column_names)
    assert read_record(f"s3://{output}")["state"] == "done"


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_a_submitted_search_run_by_spark_leaves_its_catalogues_on_s3(
    package, site, local_aws, s3_bucket, tmp_path
):
    bricks = write_small_sky(tmp_path / "sky")["good"][1:3]
    upload(tmp_path / "sky", f"{s3_bucket}/searched sky")
    (tmp_path / "bricks.txt").write_text("\n".join(bricks))
    out = f"{s3_bucket}/found"
    arguments = [
        "--stage", "search", "--output-s3", out, "--site", str(site), "--package", str(package), "--detach",
        "--model", write_model(tmp_path / "finder.onnx"), "--bricks", str(tmp_path / "bricks.txt"),
        "--survey-source", f"{s3_bucket}/searched sky", "--partitions", "2",
    ]  # fmt: skip
    assert submit.main(arguments) == 0
    run_step(local_aws, tmp_path)
    found = read_table(f"{out}/candidates")
    assert set(found.column("brickname").to_pylist()) == set(bricks)
    assert found.column("logit").null_count < found.num_rows
    fs, base = filesystem(out)
    files = {name.rsplit("/", 1)[-1] for name in fs.ls(base, detail=False)}
    assert {"candidates.fits", "candidates.vot", "candidates.csv", "hats", "summary.html"} <= files
    assert read_record(out)["state"] == "done"
