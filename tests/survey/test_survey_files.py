import errno

import pytest
from survey_testing import BRICK

from darkhaloscope.storage import StorageError
from darkhaloscope.survey.errors import TransferFailed
from darkhaloscope.survey.files import copy_to_local, local_copy
from darkhaloscope.survey.fits_headers import check_fits

IMAGE = f"legacysurvey-{BRICK}-image-r.fits.fz"
PATH = f"/coadd/059/{BRICK}/{IMAGE}"


@pytest.fixture
def plane(sky):
    return sky / PATH[1:]


def test_http_copies_are_byte_identical(web, plane, tmp_path):
    assert copy_to_local(web.url + PATH, tmp_path / "copy") == plane.stat().st_size
    assert (tmp_path / "copy").read_bytes() == plane.read_bytes()


@pytest.mark.parametrize(
    ("answer", "error", "tries"),
    [
        ("cut", TransferFailed, 3),
        (503, TransferFailed, 3),
        (403, TransferFailed, 1),
        (404, FileNotFoundError, 1),
    ],
)
def test_a_transfer_that_fails_leaves_nothing_behind(web, patient, tmp_path, answer, error, tries):
    web.faults[IMAGE] = [answer] * 9
    with pytest.raises(error, match=f"{web.url}{PATH}: .+"):
        copy_to_local(web.url + PATH, tmp_path / "copy", client=patient)
    assert len(web.requests) == tries and not (tmp_path / "copy").exists()


def test_a_file_beyond_the_limit_is_refused(web, plane, tmp_path):
    for url in (web.url + PATH, str(plane)):
        with pytest.raises(TransferFailed, match="the limit is 1000"):
            copy_to_local(url, tmp_path / "copy", max_bytes=1000)
        assert not (tmp_path / "copy").exists()


def test_an_unknown_scheme_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown scheme 'ftp'"):
        copy_to_local("ftp://example.org/a.fits", tmp_path / "copy")


def test_a_copy_shorter_than_the_store_states_is_refused_though_its_client_is_content(
    tmp_path, monkeypatch, patient, waits
):
    class ShortFilesystem:
        def get_file(self, path, target, callback):
            callback.set_size(100)
            with open(target, "wb") as stream:  # noqa: PTH123
                stream.write(b"x" * 60)

    monkeypatch.setattr("darkhaloscope.survey.files.filesystem", lambda url: (ShortFilesystem(), url))
    with pytest.raises(TransferFailed, match=r"s3://b/k: 60 bytes arrived, the source states 100"):
        copy_to_local("s3://b/k", tmp_path / "copy", client=patient)
    assert len(waits) == 2 and not (tmp_path / "copy").exists()


def test_a_full_disk_is_not_blamed_on_the_source(plane, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("darkhaloscope.survey.files.shutil.copyfile", full)
    with pytest.raises(StorageError, match="No space left"):
        copy_to_local(str(plane), tmp_path / "copy")


def test_a_local_file_is_used_in_place_and_a_remote_one_deleted_after(web, plane, tmp_path):
    with local_copy(str(plane)) as path:
        assert path == str(plane)
    with local_copy(web.url + PATH, str(tmp_path)) as path:
        assert path.startswith(str(tmp_path)) and path.endswith(IMAGE)
        assert check_fits(path) > 0
    assert [p.name for p in tmp_path.iterdir()] == ["sky"]
