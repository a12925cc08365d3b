"""A Spark session, the small sky that the stages run on, and a workspace in which they all have run."""

import pytest
from small_sky import write_small_sky
from stage_cases import experiment_of, options

from spark_jobs import coadd_cache, completeness, manifest, pack, stamps, targets


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


@pytest.fixture(scope="session")
def done(spark, sky, tmp_path_factory):
    """A workspace in which every stage has run: (root, experiment, record by stage)."""
    root = tmp_path_factory.mktemp("workspace")
    experiment = experiment_of(sky[0])
    records = {
        name: stage.run(spark, experiment, options(root))
        for name, stage in (
            ("3", targets),
            ("4a", manifest),
            ("4b", coadd_cache),
            ("4c", stamps),
            ("4d", completeness),
            ("pack", pack),
        )
    }
    return str(root), experiment, records
