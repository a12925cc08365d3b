"""Survey files from anywhere to a local path, whole: size-checked copies."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fsspec.callbacks import Callback

from darkhaloscope.storage import StorageError, filesystem, is_local, is_web, shown
from darkhaloscope.survey.errors import Interrupted, TransferFailed
from darkhaloscope.survey.transfer import Client, client_of, writable

DEFAULT_MAX_BYTES = 1 << 30


class _Watch(Callback):
    """Remember the size a store states; stop a transfer that grows beyond the limit."""

    def __init__(self, url: str, limit: int) -> None:
        super().__init__()
        self.url, self.limit = url, limit

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        self._check(size or 0)

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self._check(self.value)

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise TransferFailed(f"{self.url}: {size} bytes or more, the limit is {self.limit}", "too large")


def copy_to_local(
    url: str, target: str | Path, max_bytes: int = DEFAULT_MAX_BYTES, client: Client | None = None
) -> int:
    """Copy a file of any URL to a local path and check that all of it arrived.

    What another try may cure is tried again after a wait (`transfer.Client`). A partial file never stays.

    Args:
        url: path, file://, s3:// or http(s):// URL.
        target: local file to write.
        max_bytes: refuse larger files.
        client: limits and connections; this process's client with the default limits where it is not given.

    Returns:
        Bytes written.

    Raises:
        FileNotFoundError: there is no such file at the source (HTTP 404 or 410).
        TransferFailed: the last try's failure.
        StorageError: the disk is full or `target` cannot be written: no fault of the source.
    """
    client, target = client or client_of(), Path(target)
    try:
        if is_web(url):
            return client.copy(url, target, max_bytes)
        return client.repeat(lambda: _copy_once(url, target, max_bytes))
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy_once(url: str, target: Path, max_bytes: int) -> int:
    fs, path = filesystem(url)
    watch = _Watch(shown(url), max_bytes)
    with writable(target):
        pass  # so that an unwritable target is not taken for a fault of the source
    try:
        if is_local(url):
            watch.set_size(Path(path).stat().st_size)
            shutil.copyfile(path, target)
        else:
            fs.get_file(path, str(target), callback=watch)
    except (FileNotFoundError, TransferFailed):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StorageError(f"{target}: cannot be written: {error}; free space and run again") from error
        if isinstance(error, PermissionError):
            raise TransferFailed(f"{shown(url)}: {error}", "not allowed") from error
        raise Interrupted(f"{shown(url)}: {type(error).__name__}: {error}", "cut off") from error
    found = target.stat().st_size
    if watch.size is not None and found != watch.size:
        raise Interrupted(f"{shown(url)}: {found} bytes arrived, the source states {watch.size}", "cut off")
    return found


@contextlib.contextmanager
def local_copy(url: str, scratch: str | None = None, max_bytes: int = 8 << 30) -> Iterator[str]:
    """Give a local path of `url`: itself where it is local, else a copy in `scratch`, deleted afterwards.

    Raises:
        FileNotFoundError, TransferFailed: as `copy_to_local`.
    """
    if is_local(url):
        path = filesystem(url)[1]
        if not Path(path).is_file():
            raise FileNotFoundError(f"{url}: no such file")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="survey-", dir=scratch) as folder:
        path = str(Path(folder) / url.rstrip("/").rsplit("/", 1)[-1])
        copy_to_local(url, path, max_bytes)
        yield path
