"""Compiled code is cached where one can write, and never used after the sources changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from darkhaloscope.lensing import jit


def test_numba_cache_dir_is_honoured(tmp_path):
    program = "from darkhaloscope.lensing.jit import CACHE; print(CACHE)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    found = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    assert Path(found.stdout.decode().strip()).parent == tmp_path / "cache"


def test_a_read_only_install_caches_in_the_users_own_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(jit.tempfile, "gettempdir", lambda: str(tmp_path))
    assert jit.PACKAGE in jit.cache_directory().parents
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert tmp_path in jit.cache_directory().parents


def test_changed_sources_get_another_cache(tmp_path):
    package = shutil.copytree(jit.PACKAGE, tmp_path / "lensing", ignore=shutil.ignore_patterns("__pycache__"))
    before = jit.cache_directory(package)
    (package / "rays.py").write_text((package / "rays.py").read_text() + "\n# changed\n")
    assert jit.cache_directory(package) != before


def test_the_cache_does_not_change_numbas_own_setting():
    import numba

    assert jit.CACHE != numba.config.CACHE_DIR
