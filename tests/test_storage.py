import hashlib
import os

import pytest

from darkhaloscope.storage import (
    StorageError,
    atomic_output,
    create_exclusive,
    filesystem,
    is_local,
    join,
    read_bytes,
    replace_file,
)


def test_every_kind_of_url_finds_its_filesystem(tmp_path):
    for url in (str(tmp_path / "a"), f"file://{tmp_path}/a", tmp_path / "a"):
        fs, path = filesystem(url)
        assert fs.protocol[0] == "file"
        assert path == f"{tmp_path}/a"
    for url in ("s3://bucket/key", "s3a://bucket/key"):
        fs, path = filesystem(url)
        assert fs.protocol[0] == "s3"
        assert path == "bucket/key"
    assert filesystem("https://host/a/")[1] == "https://host/a"


@pytest.mark.parametrize("url", ["ftp://host/a", "s3://", "gopher://x"])
def test_other_urls_are_refused_by_name(url):
    with pytest.raises(ValueError, match=url.split(":")[0]):
        filesystem(url)


def test_join_makes_single_slashes():
    assert join("s3://b/x/", "/y/", "z") == "s3://b/x/y/z"
    assert is_local("x/y") and is_local("file:///x") and not is_local("s3://b")


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


def test_a_file_for_a_folder_and_a_folder_for_a_file_are_told(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "file" / "below.json")
    with pytest.raises(StorageError, match="is a folder; expected a file"):
        read_bytes(tmp_path)
    with pytest.raises(StorageError, match=r"file/below.json: cannot be written"):
        replace_file(str(tmp_path / "file" / "below.json"), b"")


def test_exclusive_creation_succeeds_once_and_keeps_the_first(tmp_path):
    url = str(tmp_path / "d" / "f")
    assert create_exclusive(url, b"first")
    assert not create_exclusive(url, b"second")
    assert read_bytes(url) == b"first"
    assert len(list((tmp_path / "d").iterdir())) == 1


def test_a_file_above_the_limit_is_not_read(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    with pytest.raises(ValueError, match="limit of 4"):
        read_bytes(str(tmp_path / "f"), 4)
