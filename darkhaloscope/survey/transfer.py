"""Files from web servers, politely and whole: few connections, waits that grow, transfers that go on where they broke.

urllib3 keeps the connections, follows redirects, reads Retry-After and computes the waits. What stands here is what
it leaves to its caller: a body that breaks off half-way is asked for from there on (Range), and only if the server
vouches (If-Range with a strong ETag or a date) that it is still the same file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO

import urllib3
from urllib3.exceptions import (
    HTTPError,
    InvalidHeader,
    LocationValueError,
    MaxRetryError,
    ReadTimeoutError,
    ResponseError,
    SSLError,
    TimeoutError,
)
from urllib3.util.retry import RequestHistory, Retry

from darkhaloscope.provenance import code_version
from darkhaloscope.sections import Fetch
from darkhaloscope.storage import StorageError, shown
from darkhaloscope.survey.errors import Interrupted, TransferFailed

WORTH_ANOTHER_TRY = frozenset({408, 425, 429, *range(500, 600)} - {501, 505})
REDIRECTS = 5
_PIECE = 1 << 20
# waits of 1, 2, 4 ... s, up to a minute, and up to 1 s more
_BACKOFF_S, _BACKOFF_MAX_S, _JITTER_S = 0.5, 60.0, 1.0


@dataclass
class _Part:
    """What has arrived of a file: bytes in `stream`, and what the server said about the whole of it."""

    stream: BinaryIO
    have: int = 0
    total: int | None = None
    validator: str = ""

    def restart(self) -> None:
        if self.have:
            self.stream.seek(0)
            self.stream.truncate()
        self.have, self.total, self.validator = 0, None, ""

    def headers(self) -> dict[str, str]:
        if not self.have or not self.validator:
            return {}
        return {"Range": f"bytes={self.have}-", "If-Range": self.validator}


class Client:
    """Connections to web servers, and the patience with which they are used; one a process, shared by threads.

    Args:
        fetch: the limits.
        connections: how many at most to one server; `fetch.connections` by default.
        sleep, clock: `time.sleep` and `time.monotonic`; tests give their own.
    """

    def __init__(
        self,
        fetch: Fetch = Fetch(),
        connections: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if fetch.attempts < 1 or fetch.connections < 1:
            raise ValueError(
                f"fetch.attempts {fetch.attempts}, connections {fetch.connections}; expected 1 or more"
            )
        self.fetch, self.sleep, self.clock = fetch, sleep, clock
        self._pool = urllib3.PoolManager(
            maxsize=connections or fetch.connections,
            block=True,
            timeout=urllib3.Timeout(connect=min(fetch.timeout_s, 20.0), read=fetch.timeout_s),
            headers={"User-Agent": f"darkhaloscope/{code_version()}", "Accept-Encoding": "identity"},
        )
        self._quiet_until = 0.0

    def repeat(self, attempt: Callable[[], int]) -> int:
        """Return what `attempt` returns, trying again (after a wait) while it raises `Interrupted`.

        Raises:
            TransferFailed: the last failure, when the tries are used up.
        """
        first = RequestHistory("GET", None, None, None, None)  # or there is no wait before the first repeat
        retries = Retry(
            total=self.fetch.attempts - 1,
            backoff_factor=_BACKOFF_S,
            backoff_max=_BACKOFF_MAX_S,
            backoff_jitter=_JITTER_S,
            history=(first,),
        )
        while True:
            try:
                return attempt()
            except Interrupted as error:
                try:
                    retries = retries.increment("GET", error=error)
                except MaxRetryError:
                    raise TransferFailed(
                        f"{error} (tried {self.fetch.attempts} times)", error.cause
                    ) from error
                if error.retry_after_s is None:
                    self.sleep(retries.get_backoff_time())
                else:  # every connection of this process keeps quiet
                    self._quiet_until = max(self._quiet_until, self.clock() + error.retry_after_s)

    def copy(self, url: str, target: Path, max_bytes: int) -> int:
        """Copy a file of a web server to `target`; return its size.

        Raises:
            FileNotFoundError: the server has no such file (404, 410).
            TransferFailed: another status, too many redirects, larger than `max_bytes`; or the last of the failures
                that are worth another try: no connection, 408, 429, 5xx, stalled, cut off.
            StorageError: `target` cannot be written.
            ValueError: the URL has a user or password.
        """
        if "@" in url.split("/")[2]:
            raise ValueError(
                f"{shown(url)}: a user or password in the URL would end up in records; leave it out"
            )
        with writable(target) as stream:
            part = _Part(stream)
            return self.repeat(lambda: self._attempt(url, part, max_bytes))

    def _attempt(self, url: str, part: _Part, max_bytes: int) -> int:
        if (wait := self._quiet_until - self.clock()) > 0:
            self.sleep(wait)
        response = self._request(url, part)
        try:
            self._read_head(url, response, part, max_bytes)
            self._read_body(url, response, part, max_bytes)
        except BaseException:
            if response.status >= 400 and int(response.headers.get("Content-Length") or _PIECE) < _PIECE:
                response.drain_conn()  # a short refusal is read to its end, so that the connection can be kept
            response.close()  # in the middle of any other body it cannot
            raise
        finally:
            response.release_conn()  # or the pool would count it as taken for ever
        return part.have

    def _request(self, url: str, part: _Part) -> urllib3.BaseHTTPResponse:
        only_redirects = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=REDIRECTS)
        headers = {**self._pool.headers, **part.headers()}
        try:
            response = self._pool.request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                retries=only_redirects,
            )
        except MaxRetryError as error:
            if isinstance(error.reason, ResponseError):
                raise TransferFailed(f"{shown(url)}: more than {REDIRECTS} redirects", "redirects") from error
            raise _broken(url, error.reason or error) from error
        except LocationValueError as error:
            raise TransferFailed(
                f"{shown(url)}: redirected to what is no URL of a web server", "redirects"
            ) from error
        except HTTPError as error:
            raise _broken(url, error) from error
        hops = [h.redirect_location or "" for h in (response.retries.history if response.retries else ())]
        if url.startswith("https://") and any(h.startswith("http://") for h in hops):
            response.close()
            response.release_conn()
            raise TransferFailed(f"{shown(url)}: redirected from https to http; refused", "redirects")
        return response

    def _read_head(self, url: str, response: urllib3.BaseHTTPResponse, part: _Part, max_bytes: int) -> None:
        """Look at status and headers; a new file starts `part` anew, the rest of a known one continues it."""
        status = response.status
        if status in (404, 410):
            raise FileNotFoundError(f"{shown(url)}: HTTP {status}")
        if status in WORTH_ANOTHER_TRY:
            raise Interrupted(f"{shown(url)}: HTTP {status}", f"HTTP {status}", self._retry_after(response))
        if status == 206 and part.have:
            if _range_of(response) != (part.have, part.total) or _validator(response) not in (
                "",
                part.validator,
            ):
                part.restart()
                raise Interrupted(f"{shown(url)}: changed while it was copied", "changed")
        elif status == 200:
            part.restart()
            length = response.headers.get("Content-Length", "")
            part.total = int(length) if length.isdigit() else None
            part.validator = _validator(response)
        elif status == 416 and part.have:
            part.restart()
            raise Interrupted(f"{shown(url)}: changed while it was copied", "changed")
        else:
            raise TransferFailed(f"{shown(url)}: HTTP {status}", f"HTTP {status}")
        self._refuse_large(url, part.total or 0, max_bytes)

    def _read_body(self, url: str, response: urllib3.BaseHTTPResponse, part: _Part, max_bytes: int) -> None:
        start, before = self.clock(), part.have
        try:
            for piece in response.stream(_PIECE, decode_content=False):
                self._refuse_large(url, part.have + len(piece), max_bytes)
                _refused(part.stream, partial(part.stream.write, piece))
                part.have += len(piece)
                spent = self.clock() - start - self.fetch.timeout_s
                if spent * self.fetch.min_bytes_per_s > part.have - before:
                    raise Interrupted(
                        f"{shown(url)}: below {self.fetch.min_bytes_per_s:g} bytes/s", "stalled"
                    )
        except HTTPError as error:
            raise _broken(url, error) from error
        if part.total is not None and part.have != part.total:
            have, total = part.have, part.total
            part.restart()
            raise Interrupted(f"{shown(url)}: {have} bytes arrived, the source states {total}", "cut off")

    def _refuse_large(self, url: str, size: int, limit: int) -> None:
        if size > limit:
            raise TransferFailed(f"{shown(url)}: {size} bytes or more, the limit is {limit}", "too large")

    def _retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        try:
            return Retry(retry_after_max=int(self.fetch.max_retry_after_s)).get_retry_after(response)
        except InvalidHeader:
            return None


@lru_cache(maxsize=8)
def client_of(fetch: Fetch = Fetch(), connections: int | None = None) -> Client:
    """Return this process's client for some limits."""
    return Client(fetch, connections)


def _broken(url: str, error: Exception) -> TransferFailed:
    """Return what a failure of the connection is to the caller."""
    if isinstance(error, SSLError):
        return TransferFailed(f"{shown(url)}: {error}", "TLS")
    stalled = isinstance(error, (ReadTimeoutError, TimeoutError))
    text = re.sub(r"HTTPS?ConnectionPool\([^)]*\):? ?", "", str(error))
    return Interrupted(f"{shown(url)}: {type(error).__name__}: {text}", "stalled" if stalled else "cut off")


def _validator(response: urllib3.BaseHTTPResponse) -> str:
    """Return what If-Range may compare with: a strong ETag, else the date of the last change; "" where neither is."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _range_of(response: urllib3.BaseHTTPResponse) -> tuple[int, int] | None:
    """Return (first byte, size of the whole file) of a partial answer."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2])) if found else None


@contextmanager
def writable(target: Path) -> Iterator[BinaryIO]:
    """Open a file to write; what the disk refuses is a StorageError, no fault of the source."""
    try:
        stream = target.open("wb")
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    try:
        yield stream
        _refused(stream, stream.flush)
    finally:
        with suppress(OSError):
            stream.close()


def _refused(stream: BinaryIO, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise StorageError(f"{stream.name}: cannot be written: {error}; free space and run again") from error
