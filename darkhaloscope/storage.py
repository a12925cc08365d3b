"""The one place that turns a URL into a filesystem: path, file://, s3://, s3a://, http(s)://."""

from __future__ import annotations

from pathlib import Path
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
        return fsspec.filesystem("s3", use_listings_cache=False), path
    return fsspec.filesystem(protocol), text.rstrip("/")


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
