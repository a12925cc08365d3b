"""Compiled code is cached where one can write, and never used after the sources changed."""

import os
import shutil
from pathlib import Path

import numba

from darkhaloscope import compiled, lensing

PACKAGE = Path(lensing.__file__).parent


def test_numba_cache_dir_is_honoured(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert compiled.cache_directory(PACKAGE).parent == tmp_path / "cache"


def test_a_read_only_install_caches_in_the_users_own_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path))
    assert PACKAGE in compiled.cache_directory(PACKAGE).parents
    monkeypatch.setattr(os, "access", lambda *_: False)
    own = compiled.cache_directory(PACKAGE).parent
    assert own.parent == tmp_path and own.stat().st_mode & 0o777 == 0o700
    assert compiled.cache_directory(PACKAGE).parent == own, "found again by the next process"


def test_a_cache_that_others_may_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(compiled.tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"darkhaloscope-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert planted not in compiled.cache_directory(PACKAGE).parents


def test_changed_sources_get_another_cache(tmp_path):
    package = shutil.copytree(PACKAGE, tmp_path / "lensing", ignore=shutil.ignore_patterns("__pycache__"))
    before = compiled.cache_directory(package)
    (package / "rays.py").write_text((package / "rays.py").read_text() + "\n# changed\n")
    assert compiled.cache_directory(package) != before


def test_compiling_does_not_change_numbas_own_setting(tmp_path):
    before = numba.config.CACHE_DIR
    assert compiled.compiler(PACKAGE)(abs_of)(-2) == 2
    assert before == numba.config.CACHE_DIR


def abs_of(value):
    return abs(value)
