"""URLs (path, file://, s3://, http(s)://): the filesystem of one, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import fsspec

from darkhaloscope import servers
from darkhaloscope.servers import StorageError, UnusableURL

_SCHEMES = {
    "": "file",
    "file": "file",
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "http": "http",
    "https": "https",
}
T = TypeVar("T")


def retrying(url: str | Path, action: Callable[[], T]) -> T:
    """Do something that may be done again, on a server more than once where it does not succeed.

    On a local file system an error is final, and is raised as it is; a file in the place of a folder holds nothing.

    Args:
        url: what it is done to, for messages.
        action: reads whole, or writes whole; its second call must be as good as its first.

    Raises:
        StorageError: the server failed four times within about a minute.
    """
    if not is_local(url):
        return servers.ask(str(url), action)
    try:
        return action()
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from None
    except IsADirectoryError:
        raise StorageError(f"{url}: is a folder; expected a file") from None


def filesystem(url: str | Path) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return (filesystem, path on it) of a URL.

    A plain path is made absolute. S3 clients honour AWS_ENDPOINT_URL and the usual AWS variables; they are
    made per process (fsspec keys its instances by process), so call this where the bytes are moved, never at
    import.

    Raises:
        UnusableURL: an unknown scheme, or an S3 URL without a bucket.
    """
    text = str(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme not in _SCHEMES:
        raise UnusableURL(
            f"{text!r}: unknown scheme {scheme!r}; expected a path or one of {sorted(_SCHEMES)[1:]}"
        )
    protocol = _SCHEMES[scheme]
    if protocol == "file":
        return fsspec.filesystem("file"), str(Path(text.removeprefix("file://")).absolute())
    if protocol == "s3":
        path = text.split("://", 1)[1].strip("/")
        if not path:
            raise UnusableURL(f"{text!r}: an S3 URL needs a bucket, s3://bucket/prefix")
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
