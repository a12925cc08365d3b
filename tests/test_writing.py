import hashlib
import os

import pytest

from darkhaloscope.storage import StorageError, read_bytes
from darkhaloscope.writing import atomic_output, create_exclusive, replace_file


def test_an_output_that_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), atomic_output(str(tmp_path / "sub" / "f")) as sink:
        sink.write(b"half")
        raise RuntimeError("stop")
    assert list((tmp_path / "sub").iterdir()) == []


def test_an_output_appears_whole_and_its_hash_is_that_of_the_file(tmp_path):
    with atomic_output(str(tmp_path / "f")) as sink:
        sink.write(b"one")
        assert not (tmp_path / "f").exists()
        sink.write(b"two")
    assert (tmp_path / "f").read_bytes() == b"onetwo"
    assert (sink.size, sink.sha.hexdigest()) == (6, hashlib.sha256(b"onetwo").hexdigest())


def test_all_of_an_output_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append(os.fstat(number).st_size))
    with atomic_output(str(tmp_path / "f")) as sink:
        sink.write(b"a few bytes, which Python would hold back")
    assert synced == [sink.size]


def test_a_place_that_cannot_be_written_says_which_and_what_to_do():
    with pytest.raises(StorageError, match=r"/proc/none/f.*cannot be written.*another place"):
        replace_file("/proc/none/f", b"x")


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(StorageError, match=r"file/below.json: cannot be written"):
        replace_file(str(tmp_path / "file" / "below.json"), b"")


def test_exclusive_creation_succeeds_once_and_keeps_the_first(tmp_path):
    url = str(tmp_path / "d" / "f")
    assert create_exclusive(url, b"first")
    assert not create_exclusive(url, b"second")
    assert read_bytes(url) == b"first"
    assert len(list((tmp_path / "d").iterdir())) == 1
