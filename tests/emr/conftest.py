"""A package that was built, an account's site, and a local AWS to submit to."""

import hashlib
import json

import pytest

from emr import submit
from emr.upload import PREPARE_NODE, REPOSITORY

SCRIPTS = (
    "spark_jobs/phase3_pipeline.py",
    "spark_jobs/phase4_pipeline.py",
    "spark_jobs/search_pipeline.py",
    PREPARE_NODE,
)
ACCOUNT = "123456789012"
GEN3 = str(REPOSITORY / "experiments" / "gen3.toml")


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """Folder of a package: a small archive with the manifest that bootstrap/package.py writes."""
    folder = tmp_path_factory.mktemp("package")
    archive = folder / "environment.tar.gz"
    archive.write_bytes(b"an archive")
    sha = {p: hashlib.sha256((REPOSITORY / p).read_bytes()).hexdigest() for p in SCRIPTS}
    manifest = {
        "archive": archive.name, "archive_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "release": "emr-7.13.0", "machine": "x86_64", "scripts": sha, "wheel_sha256": "0" * 64,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def site(tmp_path, s3_bucket):
    """Path of a site file for the local AWS."""
    path = tmp_path / "site.toml"
    path.write_text(
        f'region = "us-east-1"\ncode_s3 = "{s3_bucket}/emr"\n'
        f'execution_role = "arn:aws:iam::{ACCOUNT}:role/stages"\n'
    )
    return path


@pytest.fixture
def local_aws(s3_server, monkeypatch):
    """The local AWS, emptied of clusters and applications afterwards; gives (clusters, applications, job runs)."""
    from moto.emr.models import emr_backends
    from moto.emrserverless.models import emrserverless_backends

    # A job run of the local AWS is done at once; one that runs until a test says otherwise is what there is to test.
    monkeypatch.setattr("moto.emrserverless.models.JOB_STATUS", "RUNNING")
    emr, serverless = emr_backends[ACCOUNT]["us-east-1"], emrserverless_backends[ACCOUNT]["us-east-1"]
    yield emr.clusters, serverless.applications, serverless.job_runs
    emr.clusters.clear()
    serverless.applications.clear()
    serverless.job_runs.clear()


@pytest.fixture
def command(package, site, s3_bucket):
    """A command line up to the flags that a test adds."""
    return [
        "--stage", "4c", "--experiment", GEN3, "--output-s3", f"{s3_bucket}/runs", "--site", str(site),
        "--package", str(package),
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """No test waits for a clock."""
    monkeypatch.setattr(submit, "sleep", lambda s: None)
