"""Bricks are opened ahead, two at most; one that hangs is left behind and closed when it comes back."""

import threading
import time

import pytest

from darkhaloscope.injection.visit import Visit, ahead
from darkhaloscope.survey.errors import BrickMissing, BrickTooSlow


class Reader:
    """A brick that notes what is done with it; `gate` holds its opening."""

    source_url = "somewhere"

    def __init__(self, name, notes, gate=None, error=None):
        self.brickname, self.notes, self.gate, self.error = name, notes, gate, error

    def open(self):
        self.notes.append(f"open {self.brickname}")
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        return self

    def close(self):
        self.notes.append(f"close {self.brickname}")


def wait_until(true):
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_the_next_brick_is_opened_while_one_is_worked_on_and_no_third():
    notes = []
    for visit in ahead(Visit(Reader(name, notes), 60.0) for name in "abc"):
        name = visit.opened().brickname
        following = {"a": "b", "b": "c", "c": None}[name]
        if following:
            wait_until(lambda f=following: f"open {f}" in notes)
        assert sum(n.startswith("open") for n in notes) - sum(n.startswith("close") for n in notes) <= 2
        assert visit.work(lambda reader: reader.brickname) == name
    assert sorted(notes) == [f"{what} {n}" for what in ("close", "open") for n in "abc"]


def test_a_brick_that_hangs_is_left_behind_and_the_next_one_made():
    notes, gate = [], threading.Event()
    visits = ahead(
        Visit(Reader(n, notes, gate if n == "b" else None), 0.2 if n == "b" else 60.0) for n in "abc"
    )
    assert next(visits).opened().brickname == "a"
    slow = next(visits)
    with pytest.raises(BrickTooSlow, match=r"^b: opening it took more than 0\.2 s; .*brick_seconds"):
        slow.opened()
    assert next(visits).opened().brickname == "c"
    assert "close b" not in notes
    gate.set()
    slow._future.result(60)
    visits.close()
    assert {"close a", "close b", "close c"} <= set(notes)


def test_work_that_hangs_is_left_behind():
    gate, notes = threading.Event(), []
    visit = Visit(Reader("a", notes), 0.2)
    visit.opened()
    with pytest.raises(BrickTooSlow, match="reading it took"):
        visit.work(lambda _: gate.wait())
    visit.close()
    assert "close a" not in notes, "closed under the feet of the work"
    gate.set()


def test_what_opening_raises_is_raised_where_it_is_waited_for():
    visit = Visit(Reader("a", [], error=BrickMissing("a: gone")), 60.0)
    with pytest.raises(BrickMissing, match="a: gone"):
        visit.opened()
