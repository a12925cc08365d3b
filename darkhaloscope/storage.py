"""URLs (path, file://, s3://, http(s)://): the filesystem of one, and writes that are whole or absent.

What can be done again (a read, a small write, a removal) is, when a server answers badly: `retrying` is the one place
for it. Requests that a server turns down (503 SlowDown, 500, a reset connection) are repeated by the S3 client itself;
a body that ends too soon is not always, and a client gives up after seconds.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import fsspec

from darkhaloscope.errors import Explained

_SCHEMES = {
    "": "file",
    "file": "file",
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "http": "http",
    "https": "https",
}


PAUSES_S = (1.0, 4.0, 10.0)  # before the second, third and fourth try of what a server did not do
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


class StorageError(Explained, OSError):
    """A place that cannot be read or written; the message says why and what to do."""


def retrying(url: str | Path, action: Callable[[], T]) -> T:
    """Do something that may be done again, on a server more than once where it does not succeed.

    On a local file system an error is final, and is raised as it is.

    Args:
        url: what it is done to, for messages.
        action: reads whole, or writes whole; its second call must be as good as its first.

    Raises:
        StorageError: the server failed four times within about a minute.
    """
    if is_local(url):
        return action()
    for pause in (*PAUSES_S, None):
        try:
            return action()
        except _FINAL:
            raise
        except _server_errors() as error:
            if pause is None:
                raise StorageError(
                    f"{url}: the server failed {len(PAUSES_S) + 1} times, last with: {type(error).__name__}: "
                    f"{error}; what is committed stands: run the same command again when the server is well"
                ) from error
            time.sleep(pause * random.uniform(0.5, 1))
    raise AssertionError("unreachable")


def _server_errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions with which the clients that are installed report a server that fails."""
    errors: list[type[BaseException]] = [OSError]
    with suppress(ImportError):  # a training host has no web client
        from aiohttp import ClientError as WebError

        errors.append(WebError)
    with suppress(ImportError):  # and no boto3: Arrow's own client raises OSError
        from botocore.exceptions import BotoCoreError, ClientError

        errors += [BotoCoreError, ClientError]
    return tuple(errors)


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


def is_web(url: str | Path) -> bool:
    """Tell whether `url` is of a web server."""
    return str(url).startswith(("http://", "https://"))


def shown(url: str | Path) -> str:
    """Return a URL as logs and tables may show it: without user, password, query and fragment."""
    if "://" not in str(url):
        return str(url)
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def join(url: str | Path, *parts: str) -> str:
    """Join path parts onto a URL with single slashes."""
    return "/".join([str(url).rstrip("/"), *(p.strip("/") for p in parts)])


def resolve(base: str | Path, reference: str) -> str:
    """Return `reference` where it is absolute (a URL, or a path from the root), else below `base`."""
    return reference if "://" in reference or reference.startswith("/") else join(base, reference)


def read_bytes(url: str | Path, limit: int = 1 << 30) -> bytes:
    """Return a small file's bytes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is larger than `limit` bytes.
    """
    fs, path = filesystem(url)

    def read() -> bytes:
        size = fs.size(path)
        if size is not None and size > limit:
            raise ValueError(f"{url}: {size} bytes, more than the limit of {limit}")
        with fs.open(path, "rb") as stream:
            return stream.read(limit + 1)

    data = retrying(url, read)
    if len(data) > limit:
        raise ValueError(f"{url}: more than the limit of {limit} bytes")
    return data


def read_range(url: str | Path, start: int, stop: int) -> bytes:
    """Return bytes `start` to `stop` of a file.

    Raises:
        StorageError: the file is shorter, or the server fails.
    """
    if start == stop:
        return b""
    fs, path = filesystem(url)
    data = retrying(url, lambda: fs.cat_file(path, start=start, end=stop))
    if len(data) != stop - start:
        raise StorageError(f"{url}: {len(data)} bytes from {start} to {stop}; it is truncated, remake it")
    return data


def read_small(urls: list[str]) -> list[bytes]:
    """Return the bytes of small files of one filesystem, fetched at the same time where that is quicker."""
    if not urls:
        return []
    fs, _ = filesystem(urls[0])
    paths = [filesystem(url)[1] for url in urls]
    found = retrying(urls[0], lambda: fs.cat(paths) if len(paths) > 1 else {paths[0]: fs.cat_file(paths[0])})
    return [found[path] for path in paths]


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


def remove(url: str, recursive: bool = False) -> None:
    """Remove a file, or a folder with all that is in it; nothing where there is none."""
    fs, path = filesystem(url)
    try:
        retrying(url, lambda: fs.rm(path, recursive=True) if recursive else fs.rm_file(path))
    except FileNotFoundError:
        return


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
        if isinstance(error, OSError if local else _server_errors()):
            remedy = (
                "free space or give another place (--output-s3)" if local else "run the same command again"
            )
            raise StorageError(f"{url}: cannot be written: {error}; {remedy}") from error
        raise


def _abandon(stream: Any, temporary: str | None) -> None:
    if stream is not None:
        if temporary is None:
            stream.discard()  # aborts the multipart upload
            stream.closed = True  # or its finaliser would try to flush what was discarded
        else:
            with suppress(OSError):  # closing flushes, and a full disk has no room for that either
                stream.close()
    if temporary is not None:
        Path(temporary).unlink(missing_ok=True)


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
