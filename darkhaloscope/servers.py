"""Servers that fail for a while: which errors say so, and how often a thing is asked for again.

Requests that a server turns down (503 SlowDown, 500, a reset connection) are repeated by the S3 client itself; a body
that ends too soon is not always, and a client gives up after seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from darkhaloscope.errors import Explained

PAUSES_S = (1.0, 4.0, 10.0)  # before the second, third and fourth try of what a server did not do
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


class StorageError(Explained, OSError):
    """A place that cannot be read or written; the message says why and what to do."""


class UnusableURL(StorageError, ValueError):
    """A URL that names no place: an unknown scheme, or S3 without a bucket."""


def ask(what: str, action: Callable[[], T]) -> T:
    """Do something on a server, again and after a longer wait each time while it fails; `storage.retrying` says more.

    Raises:
        StorageError: it failed four times.
    """
    for pause in (*PAUSES_S, None):
        try:
            return action()
        except _FINAL:
            raise
        except errors() as error:
            if pause is None:
                raise StorageError(
                    f"{what}: the server failed {len(PAUSES_S) + 1} times, last with: {type(error).__name__}: "
                    f"{error}; what is committed stands: run the same command again when the server is well"
                ) from error
            time.sleep(pause * random.uniform(0.5, 1))
    raise AssertionError("unreachable")


def errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions with which the clients that are installed report a server that fails."""
    found: list[type[BaseException]] = [OSError]
    with suppress(ImportError):  # a training host has no web client
        from aiohttp import ClientError as WebError

        found.append(WebError)
    with suppress(ImportError):  # and no boto3: Arrow's own client raises OSError
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError]
    return tuple(found)
