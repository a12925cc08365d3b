"""Copies from a web server that misbehaves: what is tried again, how long is waited, and what never happens."""

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from survey_testing import Server

from darkhaloscope.sections import Fetch
from darkhaloscope.storage import StorageError, shown
from darkhaloscope.survey.errors import TransferFailed
from darkhaloscope.survey.transfer import REDIRECTS, Client

BIG = 1 << 22


@pytest.fixture
def server(tmp_path):
    """A server of one file of 4 MiB, /big, and its bytes."""
    folder = tmp_path / "served"
    folder.mkdir()
    data = np.random.default_rng(1).bytes(BIG)
    (folder / "big").write_bytes(data)
    made = Server(folder)
    made.data = data
    yield made
    made.stop()


def copy(client, server, target, limit=BIG, path="/big"):
    return client.copy(server.url + path, target, limit)


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, 504, "cut", "reset"])
def test_what_another_try_may_cure_is_tried_again_after_a_wait(server, patient, waits, tmp_path, fault):
    server.faults["big"] = [fault, fault]
    assert copy(patient, server, tmp_path / "copy") == BIG
    assert (tmp_path / "copy").read_bytes() == server.data
    assert len(server.requests) == 3
    assert 1 <= waits[0] <= 2 <= waits[1] <= 3 and len(waits) == 2, "waits grow, with some jitter"


@pytest.mark.parametrize("fault", [503, "cut", "stall"])
def test_tries_are_counted_and_the_last_failure_told(server, patient, tmp_path, fault):
    server.faults["big"] = [fault] * 9
    with pytest.raises(TransferFailed, match=r"/big: .*\(tried 3 times\)") as caught:
        copy(patient, server, tmp_path / "copy")
    assert caught.value.cause == {503: "HTTP 503", "cut": "cut off", "stall": "stalled"}[fault]
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 405, 501])
def test_what_no_other_try_cures_is_asked_for_once(server, patient, waits, tmp_path, status):
    server.faults["big"] = [status] * 9
    with pytest.raises(TransferFailed, match=f"HTTP {status}"):
        copy(patient, server, tmp_path / "copy")
    assert (len(server.requests), waits) == (1, [])


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_is_not_there_is_asked_for_once(server, patient, waits, tmp_path, status):
    server.faults["big"] = [status] * 9
    with pytest.raises(FileNotFoundError, match=f"HTTP {status}"):
        copy(patient, server, tmp_path / "copy")
    assert (len(server.requests), waits) == (1, [])


def test_retry_after_is_honoured_in_seconds_and_as_a_date_and_capped(server, patient, waits, tmp_path):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    for status, asked, expected in (
        (429, "17", 17),
        (503, date, 59),
        (429, "86400", 100),
        (503, "soon", 1.5),
    ):
        waits.clear()
        patient._quiet_until = 0.0
        server.faults["big"] = [(status, {"Retry-After": asked})]
        copy(patient, server, tmp_path / "copy")
        assert waits == [pytest.approx(expected, abs=1.5)], asked


def test_one_answer_to_wait_keeps_every_connection_quiet(server, patient, waits, tmp_path):
    server.faults["big"] = [(429, {"Retry-After": "17"})] * 9
    with pytest.raises(TransferFailed):
        copy(patient, server, tmp_path / "copy")
    server.faults.clear()
    waits.clear()
    copy(patient, server, tmp_path / "other")
    assert waits == [17], "a transfer that begins meanwhile waits as well"


@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
def test_a_broken_transfer_goes_on_where_it_stopped(server, patient, tmp_path, fault):
    server.faults["big"] = [fault]
    copy(patient, server, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == server.data
    assert server.ranges[0] is None and server.ranges[1].startswith("bytes=")
    assert server.sent < 1.6 * BIG, "the first half is not sent twice"


@pytest.mark.parametrize(("fault", "requests"), [("other", 2), ("lie", 3)])
def test_a_file_that_changes_meanwhile_is_never_glued_together(server, patient, tmp_path, fault, requests):
    server.faults["big"] = ["cut", fault]
    copy(patient, server, tmp_path / "copy", 2 * BIG)
    new = server.data[::-1] + b"more"
    assert (tmp_path / "copy").read_bytes() == (new if fault == "other" else server.data)
    assert len(server.requests) == requests


def test_without_etag_and_date_a_transfer_begins_anew(server, patient, tmp_path, monkeypatch):
    monkeypatch.setattr("darkhaloscope.survey.transfer._validator", lambda response: "")
    server.faults["big"] = ["cut"]
    copy(patient, server, tmp_path / "copy")
    assert server.ranges == [None, None] and (tmp_path / "copy").read_bytes() == server.data


@pytest.mark.parametrize("answer", [None, "endless"])
def test_more_than_the_limit_is_not_fetched(server, tmp_path, answer):
    server.faults["big"] = [answer] * 9
    with pytest.raises(TransferFailed, match=r"the limit is 300000") as caught:
        copy(Client(Fetch(timeout_s=60)), server, tmp_path / "copy", 300_000)
    assert caught.value.cause == "too large" and len(server.requests) == 1
    assert (tmp_path / "copy").stat().st_size <= 300_000


def test_a_trickle_is_given_up(server, tmp_path):
    now = iter(range(0, 10_000, 100))
    slow = Client(Fetch(attempts=1, timeout_s=60, min_bytes_per_s=1e6), clock=lambda: next(now))
    with pytest.raises(TransferFailed, match="below 1e\\+06 bytes/s"):
        copy(slow, server, tmp_path / "copy")


def test_redirects_are_followed_to_web_servers_only_and_not_for_ever(server, patient, tmp_path):
    server.faults["/moved"] = [(302, {"Location": "/big"})]
    assert copy(patient, server, tmp_path / "copy", path="/moved") == BIG
    server.faults["/round"] = [(302, {"Location": "/round"})] * 99
    with pytest.raises(TransferFailed, match="redirects"):
        copy(patient, server, tmp_path / "copy", path="/round")
    assert server.requests.count("/round") == REDIRECTS + 1
    server.faults["/away"] = [(302, {"Location": "file:///etc/hostname"})]
    with pytest.raises(TransferFailed, match="no URL of a web server"):
        copy(patient, server, tmp_path / "copy", path="/away")


def test_nothing_secret_of_a_url_is_told(server, patient, tmp_path):
    assert shown("https://me:pw@host:8/a/b?token=x#y") == "https://host:8/a/b"
    server.faults["token=abc"] = [403]
    with pytest.raises(TransferFailed) as caught:
        copy(patient, server, tmp_path / "copy", path="/big?token=abc")
    assert "abc" not in str(caught.value)
    with pytest.raises(ValueError, match="password") as refused:
        patient.copy("https://me:pw@host/a", tmp_path / "copy", 1)
    assert "pw" not in str(refused.value)


def test_no_more_connections_than_agreed(server, tmp_path):
    client = Client(Fetch(connections=2))
    threads = [threading.Thread(target=copy, args=(client, server, tmp_path / f"{i}")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 8 and server.connections <= 2


def test_a_disk_that_refuses_is_not_blamed_on_the_server(server, patient, tmp_path):
    with pytest.raises(StorageError, match="cannot be written"):
        copy(patient, server, tmp_path / "no" / "such" / "folder")
    assert server.requests == []
    with pytest.raises(StorageError, match=r"/dev/full.*free space"):
        patient.copy(server.url + "/big", type(tmp_path)("/dev/full"), BIG)


def test_refusals_keep_their_connection(server, patient, tmp_path):
    for status in (404, 403, 410):
        server.faults["big"] = [status]
        with suppress(OSError):
            copy(patient, server, tmp_path / "copy")
    copy(patient, server, tmp_path / "copy")
    assert server.connections == 1


def test_failures_use_up_no_connection(server, tmp_path, waits):
    client = Client(Fetch(connections=1, attempts=2), sleep=waits.append)
    for fault in (404, 403, 503, "cut", "html", "endless"):
        server.faults["big"] = [fault]
        with suppress(OSError):
            copy(client, server, tmp_path / "copy", 300_000)
    assert copy(client, server, tmp_path / "copy") == BIG, "or this would wait for a connection for ever"


def test_a_server_that_is_not_there_is_tried_again(patient, waits, tmp_path):
    with pytest.raises(TransferFailed, match="tried 3 times"):
        patient.copy("http://127.0.0.1:9/a", tmp_path / "copy", 1)
    assert len(waits) == 2
