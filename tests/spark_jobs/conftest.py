"""A Spark session, and the small sky that the stages run on."""

import pytest
from small_sky import write_small_sky


@pytest.fixture(scope="session")
def spark(s3_server):
    """One local session for every test of the stages; its workers see the local S3 server."""
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "500")
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    """(folder, brick names by what is wrong with them) of the small sky."""
    base = tmp_path_factory.mktemp("sky")
    return base, write_small_sky(base)
