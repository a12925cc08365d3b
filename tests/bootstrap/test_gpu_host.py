"""The GPU host's set-up: checks what it says, never touches torch, copies only shards as they were committed."""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from bootstrap import gpu_check
from bootstrap.fetch_shards import fetch, main
from darkhaloscope.dataset import commit_chunk, committed_files, content_hash, write_part

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "bootstrap" / "gpu_host.sh"


@pytest.fixture
def packed(tmp_path):
    schema = pa.schema([("x", pa.int64())])
    root = tmp_path / "packed"
    for split in ("train", "val"):
        for chunk in (0, 1):
            rows = pa.RecordBatch.from_pydict({"x": list(range(chunk + 5))}, schema)
            commit_chunk(
                f"{root}/split={split}",
                chunk,
                [write_part(f"{root}/split={split}", chunk, 0, [rows], schema)],
            )
    return root


def test_shards_are_copied_whole_once_and_repaired(packed, tmp_path):
    to = tmp_path / "here"
    assert fetch(str(packed), to) == {"copied": 4, "there": 0}
    assert all(
        content_hash(f"{to}/split={s}") == content_hash(f"{packed}/split={s}") for s in ("train", "val")
    )
    assert fetch(str(packed), to) == {"copied": 0, "there": 4}
    damaged = Path(committed_files(f"{to}/split=train")[0])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert fetch(str(packed), to) == {"copied": 1, "there": 3}


def test_a_shard_that_is_not_what_was_committed_is_refused_and_not_left_behind(packed, tmp_path, capsys):
    changed = Path(committed_files(f"{packed}/split=val")[0])
    changed.write_bytes(changed.read_bytes()[:-1] + b"!")
    to = tmp_path / "here"
    assert main([str(packed), str(to)]) == 1
    message = capsys.readouterr().err
    assert changed.name in message
    assert "changed or cut off" in message
    assert not list(to.rglob("_manifest.json")), "no chunk is readable before all is whole"
    assert not list(to.rglob("*.tmp"))
    assert main([str(tmp_path / "nothing"), str(to)]) == 1
    assert "no committed shard" in capsys.readouterr().err


def test_a_full_disk_is_refused_before_a_byte_is_copied(packed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    assert main([str(packed), str(tmp_path / "here")]) == 1
    assert "are still to come" in capsys.readouterr().err
    assert not list((tmp_path / "here").rglob("*.parquet"))


def test_a_torch_without_a_gpu_or_too_old_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu121")
    old, blind = gpu_check.faults()
    assert "expected 2.8 or newer" in old
    assert "sees no GPU" in blind


def test_what_training_can_do_without_is_told_but_not_fatal(monkeypatch, tmp_path):
    def compile_fails(function):
        raise RuntimeError("Failed to find C compiler.\nmore")

    monkeypatch.setattr(torch, "compile", lambda function: compile_fails)
    monkeypatch.setattr(torch, "ones", lambda *shape, **options: torch.zeros(1))
    monkeypatch.setattr(gpu_check, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    small, compiler = gpu_check.hints()
    assert "--shm-size=8g" in small
    assert "Failed to find C compiler." in compiler
    assert "--eager" in compiler
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 30))
    assert not gpu_check.hints()


def run(folder, *arguments, path=None, **environment):
    shown = {"PATH": path or f"{folder}:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, env=shown, timeout=300, check=False
    )


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text("#!/bin/sh\n" + text)
    file.chmod(0o755)


def test_a_host_without_driver_or_torch_is_told_what_to_do(tmp_path):
    assert "no nvidia-smi" in run(tmp_path, PYTHON="python3").stderr
    program(tmp_path, "nvidia-smi", "exit 9\n")
    assert "the driver is not running" in run(tmp_path, PYTHON="python3").stderr
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA GH200, 560.35, 97871 MiB'\n")
    program(tmp_path, "barepython", 'case "$2" in *torch*) exit 1;; esac\n')
    done = run(tmp_path, PYTHON=str(tmp_path / "barepython"))
    assert "driver: NVIDIA GH200" in done.stdout
    assert "has no torch" in done.stderr
    assert done.returncode == 1
    assert "unknown argument --foo" in run(tmp_path, "--foo").stderr
    assert "--shards needs a value" in run(tmp_path, "--shards").stderr
    assert "never touched" in run(tmp_path, "--help").stdout


@pytest.mark.slow
def test_the_whole_set_up_beside_a_torch_of_the_host(tmp_path, packed):
    """This machine's Python stands for the host's; its GPU check is the one thing it cannot pass."""
    tree = tmp_path / "tree"
    ignore = shutil.ignore_patterns(".venv*", ".git", "*-out", ".*_cache", "__pycache__", "tests")
    shutil.copytree(REPOSITORY, tree, ignore=ignore)
    (tree / "bootstrap" / "gpu_check.py").write_text("print('checked')\n")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H200, 560.35, 143771 MiB'\n")
    # This Python is an environment itself, as that of a host may be: one made from it sees the base's packages only.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYTHON": str(shutil.which("python"))
    }
    for attempt in range(2):
        done = subprocess.run(
            ["bash", str(tree / "bootstrap" / "gpu_host.sh"), "--shards", str(packed), "--to", str(tmp_path / "here")],
            capture_output=True, text=True, timeout=600, check=False,
            env={**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "checked" in done.stdout
        assert ("4 files copied", "0 files copied")[attempt] in done.stdout
        assert "training/train.py --experiment" in done.stdout
        assert "installing" not in done.stdout
