"""What servers and clocks do to a run, and that it ends as if nothing had happened.

After each fault nothing half-written is seen; a repetition has every row once, the same bytes, and leaves no orphan.
"""

import dataclasses
import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import numpy as np
import pytest
from fault_cases import wait_until, write
from faulty_server import FaultyServer

from darkhaloscope import dataset as ds
from darkhaloscope import servers, stage
from darkhaloscope.stage import OutputRefused, Owner
from darkhaloscope.storage import StorageError, filesystem, join, read_bytes, read_range
from darkhaloscope.writing import atomic_output, create_exclusive, replace_file

FAULTS = ("slow_down", "reset", "cut")


# ---- a server that answers badly ----


@pytest.fixture(scope="module")
def server(s3_bucket, s3_server):
    """The S3 server behind a proxy that injects faults; every client made meanwhile goes through it."""
    from s3fs import S3FileSystem

    proxy = FaultyServer(s3_server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setattr(servers, "PAUSES_S", (0.01, 0.01, 0.01))
        S3FileSystem.clear_instance_cache()
        yield proxy
    S3FileSystem.clear_instance_cache()
    proxy.stop()


@pytest.fixture
def far(server, s3_bucket):
    """(proxy, URL of an empty place behind it); no fault outlives its test."""
    yield server, join(s3_bucket, uuid.uuid4().hex)
    server.faults.clear()


def is_get(method: str, path: str) -> bool:
    return method == "GET" and "list-type" not in path


@pytest.mark.parametrize("kind", FAULTS)
def test_a_dataset_is_written_and_read_through_a_server_that_fails(far, tmp_path, kind):
    proxy, root = far
    expected = write(str(tmp_path))
    fault = proxy.inject(kind, 4, lambda method, path: kind != "cut" or is_get(method, path))
    part = write(root)
    ds.commit_chunk(root, 0, [part], {"ok": 300})
    assert part.sha256 == expected.sha256
    assert ds.read_table(root).equals(ds.read_table(commit(tmp_path, expected)))
    assert ds.committed_chunks(root)[0]["ok"] == 300
    assert ds.gc(root) == []
    assert fault.met == fault.count


def commit(folder: Path, part: ds.Part) -> str:
    ds.commit_chunk(str(folder), 0, [part])
    return str(folder)


def test_a_body_that_is_cut_off_again_and_again_is_read_again(far):
    proxy, root = far
    url = join(root, "f")
    data = np.random.default_rng(0).bytes(100_000)
    replace_file(url, data)
    fault = proxy.inject("cut", 7, is_get)  # more than the client itself repeats
    assert read_bytes(url) == data
    assert fault.met == 7
    proxy.inject("cut", 7, is_get)
    assert read_range(url, 10, 50_000) == data[10:50_000]


@pytest.mark.parametrize("kind", ["slow_down", "internal", "reset"])
def test_a_server_that_never_recovers_is_a_clear_error(far, kind, monkeypatch):
    from s3fs import S3FileSystem

    proxy, root = far
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    proxy.inject(kind, 10_000)
    with pytest.raises(StorageError, match=r"server failed 4 times.*run the same command again"):
        ds.committed_chunks(root)
    with pytest.raises(StorageError, match=root):
        write(root)
    S3FileSystem.clear_instance_cache()


def test_a_commit_whose_answer_is_lost_is_a_commit(far):
    proxy, root = far
    part = write(root)
    lost = proxy.inject("lost", 1, lambda method, path: method == "PUT" and "_manifest.json" in path)
    ds.commit_chunk(root, 0, [part])
    assert lost.met == 1 and ds.committed_parts(root) == [part]
    with pytest.raises(ds.DatasetError, match="committed by another run"):
        ds.commit_chunk(root, 0, [dataclasses.replace(part, key="other")])


def test_an_upload_that_fails_leaves_nothing(far, monkeypatch):
    _, root = far
    monkeypatch.setattr(servers, "PAUSES_S", ())
    fs, path = filesystem(root)
    with (
        pytest.raises(RuntimeError, match="lost"),
        atomic_output(join(root, "chunk=00000/part-x")) as sink,
    ):
        sink.write(b"x" * (6 << 20) * 10)  # beyond a block: the multipart upload has begun
        raise RuntimeError("lost")
    assert fs.find(path) == [] and uploads() == []


def uploads() -> list[str]:
    listed = boto3.client("s3").list_multipart_uploads(Bucket="test-bucket").get("Uploads", [])
    return sorted(u["Key"] for u in listed)


def test_gc_aborts_uploads_below_its_own_root_only_page_by_page(far, monkeypatch):
    _, root = far
    client, prefix = boto3.client("s3"), root.removeprefix("s3://test-bucket/")
    for key in ("chunk=00000/part-a", "chunk=00001/part-b", "chunk=00001/part-c"):
        client.create_multipart_upload(Bucket="test-bucket", Key=f"{prefix}/{key}")
    client.create_multipart_upload(Bucket="test-bucket", Key=f"{prefix}y/chunk=00000/part-d")
    fs, _ = filesystem(root)
    page_through(fs, monkeypatch, size=2)
    ds.gc(root)
    assert uploads() == [f"{prefix}y/chunk=00000/part-d"]
    ds.gc(root + "y")
    assert uploads() == []


def page_through(fs, monkeypatch, size: int) -> None:
    """Let a filesystem list uploads as S3 does, so many at a time; the local server gives all at once."""
    call = fs.call_s3

    def paged(method, **kwargs):
        if method != "list_multipart_uploads":
            return call(method, **kwargs)
        after = kwargs.pop("KeyMarker", ""), kwargs.pop("UploadIdMarker", "")
        found = call(method, **kwargs).get("Uploads", [])
        rest = sorted(
            (u for u in found if (u["Key"], u["UploadId"]) > after), key=lambda u: (u["Key"], u["UploadId"])
        )
        page = {"Uploads": rest[:size], "IsTruncated": len(rest) > size}
        if page["IsTruncated"]:
            page |= {"NextKeyMarker": rest[size - 1]["Key"], "NextUploadIdMarker": rest[size - 1]["UploadId"]}
        return page

    monkeypatch.setattr(fs, "call_s3", paged)


def test_more_chunks_than_a_page_of_a_listing_are_all_found_with_few_requests(far):
    proxy, root = far
    for chunk in range(25):
        replace_file(join(root, ds.chunk_name(chunk), ds.MANIFEST_NAME), b'{"parts": [], "rows": 1}')
    with proxy.listing(10) as listings:
        found = ds.committed_chunks(root)
    assert list(found) == list(range(25)) and sum(c["rows"] for c in found.values()) == 25
    assert len(listings) == 3, "a flat listing, page by page, and not one a chunk"


# ---- two runs, and what their clocks say ----


def test_on_s3_a_second_start_is_refused_while_the_first_lives_and_allowed_after_it_died(s3_bucket):
    output = join(s3_bucket, uuid.uuid4().hex)
    first = Owner(output, heartbeat_s=0.05)
    first.acquire(take_over=False)
    with pytest.raises(OutputRefused, match="is writing here"):
        Owner(output).acquire(take_over=False)
    die(first)
    time.sleep(1.1)  # S3 tells times in whole seconds
    second = Owner(output, expiry_s=0.5)
    second.acquire(take_over=False)
    with pytest.raises(OutputRefused, match="taken over"):
        first.check()
    second.release()
    fs, path = filesystem(output)
    assert fs.find(path) == []


def die(owner: Owner) -> None:
    """Stop an owner's heartbeat as a killed process would: its file stays."""
    owner._stop.set()
    owner._thread.join()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_wrong_by_hours_neither_steals_an_output_nor_keeps_it(tmp_path, monkeypatch, hours):
    first = Owner(str(tmp_path), expiry_s=60)
    first.acquire(take_over=False)
    right = time.time
    monkeypatch.setattr(stage.time, "time", lambda: right() + 3600 * hours)
    with pytest.raises(OutputRefused, match="is writing here"):
        Owner(str(tmp_path), expiry_s=60).acquire(take_over=False)
    die(first)
    old = datetime.now(UTC) - timedelta(seconds=61)
    os.utime(tmp_path / "_owner.json", (old.timestamp(), old.timestamp()))
    second = Owner(str(tmp_path), expiry_s=60)
    second.acquire(take_over=False)
    second.release()


@pytest.mark.parametrize("kind", ["slow_down", "cut"])
def test_a_heartbeat_survives_a_server_that_fails(far, kind):
    proxy, root = far
    owner = Owner(root, heartbeat_s=0.02)
    owner.acquire(take_over=False)
    fault = proxy.inject(kind, 8, lambda method, path: "_owner.json" in path and ".tmp" not in path)
    wait_until(lambda: fault.met == fault.count, 60)
    written = modified(root)
    wait_until(lambda: modified(root) > written)
    assert owner._thread.is_alive()
    owner.check()
    owner.release()


def modified(root: str):
    fs, _ = filesystem(root)
    return fs.modified(filesystem(join(root, "_owner.json"))[1])


def test_one_of_many_that_start_at_once_gets_the_output(tmp_path):
    got, refused = [], []

    def start() -> None:
        owner = Owner(str(tmp_path))
        try:
            owner.acquire(take_over=False)
            got.append(owner)
        except OutputRefused:
            refused.append(owner)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    got[0].release()


def test_exclusive_creation_on_s3_succeeds_once(s3_bucket):
    url = join(s3_bucket, uuid.uuid4().hex)
    assert create_exclusive(url, b"first") and not create_exclusive(url, b"second")
    assert read_bytes(url) == b"first"
