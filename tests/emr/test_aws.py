"""Calls of AWS: each thing is made once, a failure says what to do, and no secret is printed."""

import re

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError

from emr.aws import ATTEMPTS, SubmitError, ensure, explain, redact


def test_a_call_that_times_out_after_it_worked_is_not_repeated():
    made, looks = [], []

    def find():
        looks.append(None)
        return made[0] if made else None

    def create():
        made.append("j-1")
        raise ConnectTimeoutError(endpoint_url="x")

    assert ensure("cluster", find, create, pause=lambda s: None) == ("j-1", False)
    assert len(made) == 1 and len(looks) == 2


def refusal(code: str, operation: str = "RunJobFlow", message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


def test_throttling_is_waited_out_and_then_says_so():
    waited = []
    answers = [refusal("ThrottlingException"), refusal("ThrottlingException"), None]

    def find():
        if (answer := answers.pop(0)) is not None:
            raise answer
        return None

    assert ensure("cluster", find, lambda: "j-1", pause=waited.append) == ("j-1", True)
    assert waited == [2.0, 4.0]

    def throttled():
        raise refusal("ThrottlingException")

    with pytest.raises(
        SubmitError, match=f"throttling RunJobFlow.*tried {ATTEMPTS} times; nothing was made twice"
    ):
        ensure("cluster", lambda: None, throttled, pause=waited.append)


def test_secrets_are_never_printed(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMIsecret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-session")
    said = "key AKIAIOSFODNN7EXAMPLE ASIAIOSFODNN7EXAMPLE wJalrXUtnFEMIsecret token-of-the-session"
    for text in (
        redact(said),
        explain(refusal("ValidationException", message=said)),
        explain(refusal("AccessDenied", message=said)),
    ):
        assert not re.search("IOSFODNN7|wJalr|token-of", text)
    assert "no AWS credentials" in explain(NoCredentialsError())
