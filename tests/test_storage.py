import pytest

from darkhaloscope.storage import StorageError, filesystem, is_local, join, read_bytes


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


def test_a_file_for_a_folder_is_told_and_below_a_file_is_nothing(tmp_path):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "file" / "below.json")
    with pytest.raises(StorageError, match="is a folder; expected a file"):
        read_bytes(tmp_path)


def test_a_file_above_the_limit_is_not_read(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    with pytest.raises(ValueError, match="limit of 4"):
        read_bytes(str(tmp_path / "f"), 4)
