"""Talking to AWS so that nothing is made twice and a failure says what to do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from darkhaloscope.errors import Explained

T = TypeVar("T")
ATTEMPTS = 5
THROTTLED = {
    "Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException",
    "SlowDown", "RequestThrottled", "RequestThrottledException",
}  # fmt: skip
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "Forbidden"}
INVALID = {"InvalidAccessKeyId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidClientTokenId",
           "AuthFailure"}  # fmt: skip
SERVER = {"InternalFailure", "InternalServerError", "InternalServerException", "ServiceUnavailable"}


class SubmitError(Explained, RuntimeError):
    """A submission that cannot go on; the message says what happened and what to do."""


def client(service: str, region: str, creates: bool = False) -> Any:
    """Return a boto3 client.

    Args:
        service: its name.
        region: where.
        creates: the client is for `ensure`. Its calls are sent once: after a time-out the thing may exist, and only
            `ensure`, which looks for it first, may send the call again.
    """
    attempts = 1 if creates else ATTEMPTS
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=10, read_timeout=60
    )
    return boto3.client(service, region_name=region, config=config)


def ensure(
    what: str,
    find: Callable[[], T | None],
    create: Callable[[], T],
    pause: Callable[[float], None] = time.sleep,
) -> tuple[T, bool]:
    """Return (what `find` finds or else `create` makes, whether it was made now), and make it once.

    A call that was throttled or cut off is tried again only after looking whether it worked after all.

    Raises:
        SubmitError: it could not be made; says why.
    """
    last: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(2.0**attempt)
        try:
            if (found := find()) is not None:
                return found, False
            return create(), True
        except (ClientError, BotoCoreError) as error:
            if not _may_pass(error):
                raise SubmitError(f"{what}: {explain(error)}") from error
            last = error
    assert last is not None
    raise SubmitError(f"{what}: {explain(last)} (tried {ATTEMPTS} times; nothing was made twice)") from last


def call(what: str, function: Callable[[], T]) -> T:
    """Return `function()`, with an error of AWS explained.

    Raises:
        SubmitError: the call failed; says why and what to do.
    """
    try:
        return function()
    except (ClientError, BotoCoreError) as error:
        raise SubmitError(f"{what}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """Say in one line what an error of AWS means and what to do. Never holds a secret."""
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return "no AWS credentials: sign in (aws sso login, aws configure) or set AWS_PROFILE"
    if not isinstance(error, ClientError):
        return redact(f"{type(error).__name__}: {error}; is the region right, and is there a network?")
    code, operation = _code(error), error.operation_name
    message = error.response.get("Error", {}).get("Message", "")
    if code in EXPIRED:
        return (
            f"the AWS credentials have expired ({code}): sign in again and repeat the command; a job goes on"
        )
    if code in INVALID:
        return f"AWS does not accept the credentials ({code}): check AWS_PROFILE or sign in again"
    if code in DENIED:
        return redact(
            f"not allowed to {operation} ({code}): {message}; docs/emr.md has the policy that is needed"
        )
    if code in THROTTLED:
        return f"AWS is throttling {operation} ({code}); wait a minute and repeat the command"
    if code in {"NoSuchBucket", "404", "NotFound"} and operation.endswith("Bucket"):
        return "the bucket does not exist: create it (docs/emr.md) or check its name"
    if code == "InvalidSubnetID.NotFound":
        return "no such subnet in this region: give the region that the subnet is in, or a subnet of this one"
    return redact(f"{operation} failed ({code}): {message}")


def redact(text: str) -> str:
    """Remove credentials from a text."""
    text = re.sub(r"\b(AKIA|ASIA)[A-Z0-9]{12,}", "<access key>", text)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if (value := os.environ.get(name, "")) and len(value) > 8:
            text = text.replace(value, f"<{name}>")
    return text


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(redact(text), flush=True)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return _code(error) in THROTTLED | SERVER
    return isinstance(error, (ConnectionError, HTTPClientError))
