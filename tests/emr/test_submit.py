"""Submitting to a local AWS: exact requests, arguments that arrive, nothing made twice, failures that speak."""

import hashlib
import json
import os
import re
from pathlib import Path

import boto3
import pytest

from emr import submit
from emr.aws import SubmitError
from emr.submit import check_stage_arguments
from emr.upload import REPOSITORY

GOLDEN = Path(__file__).parent / "golden"
ODD = ["--bands", "g,r,z", "--survey-source", "s3://survey bucket/dr10, south"]


@pytest.fixture
def sent(monkeypatch):
    """Every request that boto3 sends, as (operation, parameters)."""
    calls = []
    real = boto3.client

    def recording(*args, **kwargs):
        made = real(*args, **kwargs)
        made.meta.events.register(
            "provide-client-params.*", lambda params, model, **_: calls.append((model.name, params))
        )
        return made

    monkeypatch.setattr(boto3, "client", recording)
    return calls


def one(calls, operation):
    (params,) = [p for name, p in calls if name == operation]
    return json.loads(json.dumps(params))


def golden(name: str, request: dict, rebuild: bool) -> None:
    """Compare a request with its golden JSON; DARKHALOSCOPE_REBUILD_GOLDEN=1 writes it instead."""
    path = GOLDEN / f"{name}.json"
    if rebuild:
        path.write_text(json.dumps(request, indent=1) + "\n")
    assert request == json.loads(path.read_text())


@pytest.fixture
def rebuild():
    return bool(os.environ.get("DARKHALOSCOPE_REBUILD_GOLDEN"))


def without_checksums(request: dict) -> dict:
    """The request with a fixed word for each checksum that changes with the code, and for its own digest."""
    text = json.dumps(request)
    for path in ("spark_jobs/phase4_pipeline.py", "bootstrap/prepare_node.sh", "experiments/gen3.toml"):
        sha = hashlib.sha256((REPOSITORY / path).read_bytes()).hexdigest()[:16]
        text = text.replace(sha, f"<sha256 of {Path(path).name}>")
    return json.loads(re.sub(r"(darkhaloscope-[a-z0-9-]+)-[0-9a-f]{10}", r"\1-<digest>", text))


def test_a_cluster_and_a_step_are_asked_for_exactly_so(command, local_aws, sent, rebuild):
    assert submit.main([*command, "--detach", *ODD]) == 0
    golden("run_job_flow", without_checksums(one(sent, "RunJobFlow")), rebuild)
    request = without_checksums(one(sent, "AddJobFlowSteps"))
    assert request.pop("JobFlowId") in local_aws[0]
    golden("add_job_flow_steps", request, rebuild)


def test_a_job_run_is_asked_for_exactly_so(command, local_aws, sent, rebuild):
    assert submit.main([*command, "--serverless", "--detach", *ODD]) == 0
    for operation, name in (("CreateApplication", "create_application"), ("StartJobRun", "start_job_run")):
        request = without_checksums(one(sent, operation))
        assert len(request.pop("clientToken")) == 36
        request.pop("applicationId", None)
        golden(name, request, rebuild)


def test_a_key_encrypts_uploads_and_logs(command, site, local_aws, sent):
    key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd"
    nothing_there_yet = site.read_text().replace('/emr"', '/emr-encrypted"')
    site.write_text(f'{nothing_there_yet}kms_key = "{key}"\n')
    assert submit.main([*command, "--detach"]) == 0
    assert one(sent, "RunJobFlow")["LogEncryptionKmsKeyId"] == key
    uploads = [params for name, params in sent if name in ("PutObject", "CreateMultipartUpload")]
    assert uploads
    assert all((p["ServerSideEncryption"], p["SSEKMSKeyId"]) == ("aws:kms", key) for p in uploads)
    assert submit.main([*command, "--serverless", "--detach"]) == 0
    monitoring = one(sent, "StartJobRun")["configurationOverrides"]["monitoringConfiguration"]
    assert monitoring["s3MonitoringConfiguration"]["encryptionKeyArn"] == key


@pytest.mark.parametrize("where", [[], ["--serverless"]])
def test_a_dry_run_prints_what_would_be_sent_and_calls_nothing(command, local_aws, sent, capsys, where):
    assert submit.main([*command, *where, "--dry-run", *ODD]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert not sent and not local_aws[0] and not local_aws[1]
    assert submit.main([*command, *where, "--detach", *ODD]) == 0
    for operation, request in printed.items():
        if operation != "PutObject":
            real = one(sent, operation)
            for made in ("JobFlowId", "applicationId", "clientToken"):
                real.pop(made, None)
            assert request == real


def test_arguments_with_commas_and_spaces_arrive_as_they_were_given(command, local_aws, sent):
    assert submit.main([*command, "--detach", *ODD]) == 0
    (cluster,) = local_aws[0].values()
    emr = boto3.client("emr", region_name="us-east-1")
    found = emr.describe_step(ClusterId=cluster.id, StepId=cluster.steps[0].id)["Step"]["Config"]
    assert found["Jar"] == "command-runner.jar"
    assert found["Args"][-len(ODD) :] == ODD
    assert found["Args"] == one(sent, "AddJobFlowSteps")["Steps"][0]["HadoopJarStep"]["Args"]

    assert submit.main([*command, "--serverless", "--detach", *ODD]) == 0
    (runs,) = local_aws[2].values()
    assert runs[0].job_driver["sparkSubmit"]["entryPointArguments"][-len(ODD) :] == ODD


def test_what_is_uploaded_is_named_by_its_checksum_and_sent_once(
    command, local_aws, s3_bucket, sent, package
):
    boto3.resource("s3").Bucket("test-bucket").objects.filter(Prefix="emr/").delete()
    assert submit.main([*command, "--detach"]) == 0
    s3 = boto3.client("s3")
    keys = [k["Key"] for k in s3.list_objects_v2(Bucket="test-bucket", Prefix="emr/")["Contents"]]
    assert sorted(k.split("/")[-1] for k in keys) == [
        "environment.tar.gz", "gen3.toml", "phase4_pipeline.py", "prepare_node.sh",
    ]  # fmt: skip
    for key in keys:
        body = s3.get_object(Bucket="test-bucket", Key=key)["Body"].read()
        assert key.split("/")[1] == hashlib.sha256(body).hexdigest()[:16]
    first = sum(name == "PutObject" for name, _ in sent)
    assert submit.main([*command, "--detach"]) == 0
    assert sum(name == "PutObject" for name, _ in sent) == first == 4


@pytest.fixture
def search(package, site, s3_bucket, tmp_path):
    """The command of a search with a model and a table of this machine."""
    for name in ("finder.onnx", "reference.json", "galaxies.csv"):
        (tmp_path / name).write_text(name)
    return [
        "--stage", "search", "--output-s3", f"{s3_bucket}/found", "--site", str(site), "--package", str(package),
        "--model", str(tmp_path / "finder.onnx"), f"--reference={tmp_path / 'reference.json'}",
        "--positions", str(tmp_path / "galaxies.csv"), "--known", "s3://public/lenscat.csv",
    ]  # fmt: skip


@pytest.mark.parametrize("where", [[], ["--serverless"]])
def test_a_search_travels_with_its_model_reference_and_table(search, local_aws, sent, where):
    assert submit.main([*search, "--detach", *where]) == 0
    if where:
        arguments = one(sent, "StartJobRun")["jobDriver"]["sparkSubmit"]["entryPointArguments"]
    else:
        (step,) = one(sent, "AddJobFlowSteps")["Steps"]
        whole = step["HadoopJarStep"]["Args"]
        script = next(i for i, a in enumerate(whole) if a.endswith("/search_pipeline.py"))
        arguments = whole[script + 1 :]

    def there(name):
        return f"s3://test-bucket/emr/{hashlib.sha256(name.encode()).hexdigest()[:16]}/{name}"

    cores = arguments[3]
    assert int(cores) > 2 and arguments == [
        "--out", "s3://test-bucket/found", "--partitions", cores, "--model", there("finder.onnx"),
        f"--reference={there('reference.json')}", "--positions", there("galaxies.csv"),
        "--known", "s3://public/lenscat.csv",
    ]  # fmt: skip
    for name in ("finder.onnx", "reference.json", "galaxies.csv"):
        key = there(name).removeprefix("s3://test-bucket/")
        assert boto3.client("s3").get_object(Bucket="test-bucket", Key=key)["Body"].read() == name.encode()


def test_a_list_of_bricks_travels_and_a_bricks_name_stays(search, tmp_path, capsys):
    (tmp_path / "bricks.txt").write_text("0591m305")
    at = search.index("--positions")
    for given in (str(tmp_path / "bricks.txt"), "0591m305"):
        assert submit.main([*search[:at], "--bricks", given, "--dry-run"]) == 0
        arguments = json.loads(capsys.readouterr().out)["AddJobFlowSteps"]["Steps"][0]["HadoopJarStep"][
            "Args"
        ]
        assert arguments[-1].endswith("/bricks.txt" if given.endswith(".txt") else "0591m305")
        assert (arguments[-1] == given) == (given == "0591m305")


def test_the_submission_is_recorded_beside_the_output(command, local_aws, s3_bucket):
    assert submit.main([*command, "--detach", "--experiment-id", "recorded"]) == 0
    folder = "runs/phase4c/v4_sota_moffat/recorded/_submissions/"
    s3 = boto3.client("s3")
    (entry,) = s3.list_objects_v2(Bucket="test-bucket", Prefix=folder)["Contents"]
    record = json.loads(s3.get_object(Bucket="test-bucket", Key=entry["Key"])["Body"].read())
    assert record["package"]["archive_sha256"] == hashlib.sha256(b"an archive").hexdigest()
    assert "--experiment-id" in record["requests"]["AddJobFlowSteps"]["Steps"][0]["HadoopJarStep"]["Args"]


@pytest.mark.parametrize("where", [[], ["--serverless"]])
def test_the_same_command_again_follows_what_runs_and_makes_nothing(command, local_aws, capsys, where):
    clusters, applications, runs = local_aws
    for _ in range(2):
        assert submit.main([*command, *where, "--detach"]) == 0
    assert "was submitted before" in capsys.readouterr().out
    assert len(clusters) + len(applications) == 1
    assert sum(len(c.steps) for c in clusters.values()) + sum(len(r) for r in runs.values()) == 1
    other = ["--experiment-id", "other"]  # another job, the same cluster
    assert submit.main([*command, *where, "--detach", *other]) == 0
    assert len(clusters) + len(applications) == 1
    assert sum(len(c.steps) for c in clusters.values()) + sum(len(r) for r in runs.values()) == 2


@pytest.fixture
def answering(monkeypatch):
    """Let an operation of AWS answer with an error code, by botocore's own event hooks."""
    real = boto3.client

    def answer(service_name: str, operation: str, code: str, status: int = 400):
        from botocore.awsrequest import AWSResponse

        def reply(request, **_):
            body = json.dumps({"__type": code, "message": "no", "Code": code}).encode()
            response = AWSResponse(request.url, status, {"x-amzn-errortype": code}, None)
            response._content = body
            return response

        def client(name, *args, **kwargs):
            made = real(name, *args, **kwargs)
            if name == service_name:
                made.meta.events.register(f"before-send.{service_name}.{operation}", reply)
            return made

        monkeypatch.setattr(boto3, "client", client)

    return answer


@pytest.mark.parametrize(
    ("operation", "code", "words"),
    [
        ("ListClusters", "ExpiredTokenException", "credentials have expired.*sign in again"),
        ("RunJobFlow", "AccessDeniedException", "not allowed to RunJobFlow.*docs/emr.md has the policy"),
        ("RunJobFlow", "ThrottlingException", "throttling RunJobFlow.*nothing was made twice"),
        ("AddJobFlowSteps", "UnrecognizedClientException", "does not accept the credentials"),
        ("RunJobFlow", "ValidationException", "RunJobFlow failed .ValidationException"),
    ],
)
def test_a_refusal_by_aws_is_one_line_and_status_1(
    command, local_aws, answering, capsys, operation, code, words
):
    answering("emr", operation, code)
    assert submit.main([*command, "--detach"]) == 1
    said = capsys.readouterr().err
    error = said.strip().splitlines()[-1]
    assert re.search(words, error), error
    assert "Traceback" not in said
    assert all(not c.steps for c in local_aws[0].values())


def test_a_missing_bucket_stops_before_anything_is_made(command, local_aws, capsys):
    gone = [a.replace("s3://test-bucket/runs", "s3://no-such-bucket/runs") for a in command]
    assert submit.main([*gone, "--detach"]) == 1
    assert "bucket no-such-bucket" in (error := capsys.readouterr().err) and "does not exist" in error
    assert not local_aws[0]


def test_a_subnet_of_another_region_stops_before_anything_is_made(command, local_aws, site, capsys):
    elsewhere = boto3.client("ec2", region_name="eu-west-1").describe_subnets()["Subnets"][0]["SubnetId"]
    site.write_text(site.read_text() + f'subnet = "{elsewhere}"\n')
    assert submit.main([*command, "--detach"]) == 1
    assert "no such subnet in this region" in capsys.readouterr().err
    assert not local_aws[0]
    here = boto3.client("ec2", region_name="us-east-1").describe_subnets()["Subnets"][0]["SubnetId"]
    site.write_text(site.read_text().replace(elsewhere, here))
    assert submit.main([*command, "--detach"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--cluster", "huge"], "huge: no such definition; known in emr/clusters"),
        (["--output-s3", "here"], "a cluster writes to s3://"),
        (["--experiment", str(REPOSITORY / "experiments" / "smoke.toml")], "is on this machine"),
        (["--package", "/nowhere"], "make emr-package"),
        (["--site", "/nowhere/site.toml"], "/nowhere/site.toml: no such file"),
    ],
)
def test_a_command_that_cannot_work_is_refused_before_any_call(command, sent, capsys, flags, words):
    assert submit.main([*command, *flags]) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not sent


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--experiment", str(REPOSITORY / "experiments" / "gen3.toml")], "its experiment is in the model"),
        (["--model", "gone.onnx"], "--model gone.onnx: no such file"),
        (["--stage", "4c"], "give its experiment file"),
        (["--output-s3", "here"], "a cluster writes to s3://"),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_any_call(search, sent, capsys, flags, words):
    assert submit.main([*search, *flags]) == 1
    assert words in capsys.readouterr().err
    assert not sent


def test_what_a_stages_parser_refuses_is_refused_before_a_cluster_starts():
    accepted = ["--stage", "4c", "--experiment", "s3://b/gen3.toml", *ODD]
    check_stage_arguments("phase4_pipeline.py", accepted)
    with pytest.raises(SubmitError, match=r"the stage refuses its arguments.*--no-such-flag"):
        check_stage_arguments("phase4_pipeline.py", [*accepted, "--no-such-flag"])


def test_a_package_older_than_the_code_is_refused(command, package, tmp_path, capsys):
    old = json.loads((package / "manifest.json").read_text())
    old["scripts"]["spark_jobs/phase4_pipeline.py"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    assert submit.main([*command, "--package", str(tmp_path), "--dry-run"]) == 1
    assert "build it anew" in capsys.readouterr().err
