"""Fixtures: a release with one small brick, on disk and served over HTTP."""

import pytest
from survey_testing import Server, write_brick


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
