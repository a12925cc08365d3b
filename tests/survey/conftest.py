"""Fixtures: a release with one small brick, on disk and served over HTTP."""

import pytest
from survey_testing import Server, write_brick

from darkhaloscope.sections import Fetch
from darkhaloscope.survey.transfer import Client


@pytest.fixture
def sky(tmp_path):
    """A release with one small brick."""
    base = tmp_path / "sky"
    write_brick(base)
    return base


@pytest.fixture
def web(sky):
    """The release of `sky`, served over HTTP."""
    server = Server(sky)
    yield server
    server.stop()


@pytest.fixture
def waits():
    """The waits of `patient`, in seconds; none of them took place."""
    return []


@pytest.fixture
def patient(waits):
    """A client that tries three times, and whose clock stands still while it waits."""
    return Client(
        Fetch(attempts=3, timeout_s=1.5, max_retry_after_s=100), sleep=waits.append, clock=lambda: 0.0
    )
