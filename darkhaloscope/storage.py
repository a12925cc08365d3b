"""URLs (path, file://, s3://, http(s)://): the filesystem of one, and writes that are whole or absent."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec

_SCHEMES = {
    "": "file",
    "file": "file",
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "http": "http",
    "https": "https",
}


class StorageError(OSError):
    """A place that cannot be written to; the message says why and what to do."""


def filesystem(url: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return (filesystem, path on it) of a URL.

    A plain path is made absolute. S3 clients honour AWS_ENDPOINT_URL and the usual AWS variables; they are
    made per process (fsspec keys its instances by process), so call this where the bytes are moved, never at
    import.

    Raises:
        ValueError: an unknown scheme, or an S3 URL without a bucket.
    """
    text = str(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{text!r}: unknown scheme {scheme!r}; expected a path or one of {sorted(_SCHEMES)[1:]}"
        )
    protocol = _SCHEMES[scheme]
    if protocol == "file":
        return fsspec.filesystem("file"), str(Path(text.removeprefix("file://")).absolute())
    if protocol == "s3":
        path = text.split("://", 1)[1].strip("/")
        if not path:
            raise ValueError(f"{text!r}: an S3 URL needs a bucket, s3://bucket/prefix")
        return _s3(), path
    return fsspec.filesystem(protocol), text.rstrip("/")


def _s3() -> fsspec.AbstractFileSystem:
    """Return s3fs, or where it is not installed (a GPU host) Arrow's own client, which is enough to read."""
    try:
        import s3fs  # noqa: F401
    except ImportError:
        return _arrow_s3()
    return fsspec.filesystem("s3", use_listings_cache=False)


def _arrow_s3() -> fsspec.AbstractFileSystem:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem

    # Arrow addresses a bucket by host name, which a server of one's own (AWS_ENDPOINT_URL) seldom has.
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    scheme, _, host = (endpoint or "").partition("://")
    how = {"scheme": scheme, "endpoint_override": host} if endpoint else {}
    return ArrowFSWrapper(S3FileSystem(**how))


def is_local(url: str | Path) -> bool:
    """Tell whether `url` is on this machine's file system."""
    return "://" not in str(url) or str(url).startswith("file://")


def join(url: str | Path, *parts: str) -> str:
    """Join path parts onto a URL with single slashes."""
    return "/".join([str(url).rstrip("/"), *(p.strip("/") for p in parts)])


def read_bytes(url: str | Path, limit: int = 1 << 30) -> bytes:
    """Return a small file's bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is larger than `limit` bytes.
    """
    fs, path = filesystem(url)
    size = fs.size(path)
    if size is not None and size > limit:
        raise ValueError(f"{url}: {size} bytes, more than the limit of {limit}")
    with fs.open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{url}: more than the limit of {limit} bytes")
    return data


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
    """Yield a sink whose bytes appear under `url` only when the block ends without an exception."""
    fs, path = filesystem(url)
    local = is_local(url)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp" if local else path
    stream = None
    try:
        if local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        stream = fs.open(temporary, "wb")
        yield Sink(cast(BinaryIO, stream))
        if local:
            os.fsync(stream.fileno())
        stream.close()
        if local:
            Path(temporary).replace(path)
    except BaseException as error:
        _abandon(stream, temporary if local else None)
        if isinstance(error, OSError):
            raise StorageError(
                f"{url}: cannot be written: {error}; free space or give another place (--output-s3)"
            ) from error
        raise


def _abandon(stream: Any, temporary: str | None) -> None:
    if stream is not None:
        if temporary is None:
            stream.discard()  # aborts the multipart upload
            stream.closed = True  # or its finaliser would try to flush what was discarded
        else:
            stream.close()
    if temporary is not None:
        Path(temporary).unlink(missing_ok=True)


def create_exclusive(url: str, data: bytes) -> bool:
    """Create a file that must not exist yet, whole or not at all; return False where it exists.

    Local: a hard link of a finished temporary file; S3: a put with `If-None-Match: *`.
    """
    fs, path = filesystem(url)
    if not is_local(url):
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
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
    with atomic_output(url) as sink:
        sink.write(data)
