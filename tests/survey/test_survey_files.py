import errno

import numpy as np
import pytest
from survey_testing import BRICK, write_plane

from darkhaloscope.storage import StorageError
from darkhaloscope.survey.errors import FitsBroken, TransferFailed
from darkhaloscope.survey.files import check_fits, copy_to_local, local_copy

IMAGE = f"legacysurvey-{BRICK}-image-r.fits.fz"
PATH = f"/coadd/059/{BRICK}/{IMAGE}"


@pytest.fixture
def plane(sky):
    return sky / PATH[1:]


@pytest.mark.parametrize("compress", ["RICE", "GZIP", None])
def test_a_whole_file_passes_and_its_headers_account_for_it(tmp_path, compress):
    path = write_plane(tmp_path, "image", "r", np.zeros((210, 210), np.float32), compress=compress)
    size = path.stat().st_size
    assert size - 2880 < check_fits(path) <= size


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_a_file_cut_off_anywhere_is_found_without_reading_its_data(plane, share):
    whole = plane.read_bytes()
    cut = int(check_fits(plane) * share) - 1
    plane.write_bytes(whole[:cut])
    with pytest.raises(FitsBroken, match=rf"has {cut:,} bytes.*(header says [\d,]+; )?.*file is truncated"):
        check_fits(plane)


def test_cut_inside_the_second_header_is_truncated_too(plane):
    plane.write_bytes(plane.read_bytes()[: 2880 + 1440])
    with pytest.raises(FitsBroken, match="ends inside a header; file is truncated"):
        check_fits(plane)


def test_an_error_page_and_an_empty_file_are_no_fits(tmp_path):
    path = tmp_path / "page.fits"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(FitsBroken, match=r"22 bytes and begins with b'<html>.*not a FITS file"):
        check_fits(path)
    path.write_bytes(b"")
    with pytest.raises(FitsBroken, match="file is empty"):
        check_fits(path)


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
