"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of shared survey data; skips, saying so, where it is absent."""
    folder = Path(os.environ.get("DARKHALOSCOPE_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip(f"no shared survey data at {folder} (set DARKHALOSCOPE_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def s3_server():
    """A local S3 server; the AWS variables point every client at it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture(scope="session")
def s3_bucket(s3_server) -> str:
    """URL of an empty bucket on the local S3 server."""
    import boto3

    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="test-bucket")
    return "s3://test-bucket"
