"""Files at URLs that are written whole or not at all, created by one writer only, and removed."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from darkhaloscope import servers
from darkhaloscope.servers import StorageError
from darkhaloscope.storage import filesystem, is_local, read_bytes, retrying


class Sink(io.RawIOBase):
    """A write-only stream that hashes and counts what passes: `sha`, `size`."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.sha, self.size = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        """Tell pyarrow that it may write here."""
        return True

    def write(self, data: Any) -> int:
        """Pass bytes on."""
        self.sha.update(data)
        self.size += memoryview(data).nbytes
        return self.stream.write(data)

    def tell(self) -> int:
        """Return the number of bytes written; Parquet records offsets from it."""
        return self.size


@contextmanager
def atomic_output(url: str) -> Iterator[Sink]:
    """Yield a sink whose bytes appear under `url` only when the block ends without an exception.

    Raises:
        StorageError: it cannot be written, with what to do.
    """
    fs, path = filesystem(url)
    local = is_local(url)
    failures = (OSError,) if local else servers.errors()
    try:
        with _renamed(Path(path)) if local else _uploaded(fs, path) as stream:
            yield Sink(stream)
    except failures as error:
        remedy = "free space or give another place" if local else "run the same command again"
        raise StorageError(f"{url}: cannot be written: {error}; {remedy}") from error


@contextmanager
def _renamed(path: Path) -> Iterator[BinaryIO]:
    """Write a local file under a temporary name; it is on the disk before it gets its own."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()  # or what Python still holds (a Parquet file's footer) would not be synced
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _uploaded(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[Any]:
    stream = fs.open(path, "wb")
    try:
        yield stream
        stream.close()
    except BaseException:
        stream.discard()  # aborts the multipart upload
        stream.closed = True  # or its finaliser would try to flush what was discarded
        raise


def create_exclusive(url: str, data: bytes) -> bool:
    """Create a file that must not exist yet, whole or not at all; return False where it exists.

    Local: a hard link of a finished temporary file; S3: a put with `If-None-Match: *`. When the answer to such a put
    is lost, its repetition finds the file there: a file with the very bytes is taken for ours, so `data` should hold
    something that no other writer's does.
    """
    fs, path = filesystem(url)
    if not is_local(url):
        try:
            retrying(url, lambda: fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return read_bytes(url) == data
        return True
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    replace_file(temporary, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink()
    return True


def replace_file(url: str, data: bytes) -> None:
    """Write a small file in one step: a reader sees the old bytes or the new, never a part."""
    fs, path = filesystem(url)
    if not is_local(url):
        retrying(url, lambda: fs.pipe_file(path, data))
        return
    with atomic_output(url) as sink:
        sink.write(data)


def remove(url: str, recursive: bool = False) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none."""
    fs, path = filesystem(url)
    try:
        retrying(url, lambda: fs.rm(path, recursive=True) if recursive else fs.rm_file(path))
    except FileNotFoundError:
        return


def age_s(url: str) -> float:
    """Return the seconds since a file was last written, infinite where there is none.

    Both ends are told by the clock of the storage (a probe is written beside the file): the clocks of two machines may
    differ by more than any expiry.
    """
    fs, path = filesystem(url)
    probe = f"{url}.{uuid.uuid4().hex}.tmp"
    replace_file(probe, b"")
    try:
        now = retrying(url, lambda: fs.modified(filesystem(probe)[1]))
        return (now - retrying(url, lambda: fs.modified(path))).total_seconds()
    except FileNotFoundError:
        return float("inf")
    finally:
        remove(probe)
