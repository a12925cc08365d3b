"""A visit to a brick: opened, worked on and closed in threads of its own, none of it for longer than a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.errors import BrickTooSlow

T = TypeVar("T")


class Visit:
    """A brick that is being opened from now on.

    A step that exceeds the limit is left behind: its thread is a daemon, so one that never comes back keeps no
    process from ending, and what it holds is closed should it come back. A thread can only be left where it waits
    without the interpreter's lock: in Python's own file and network reads (copies, the first look at every
    file, tiles of the survey's layout), not inside `fitsio`.

    Args:
        reader: of the brick, not open yet.
        seconds: limit of opening it (which copies remote files), and of each piece of work.
    """

    def __init__(self, reader: BrickReader, seconds: float) -> None:
        self.reader, self.seconds = reader, seconds
        self._begin(reader.open)

    def opened(self) -> BrickReader:
        """Wait until the brick is open.

        Raises:
            BrickTooSlow: that takes too long.
            BrickUnreadable: it cannot be opened.
        """
        return self._outcome("opening it")

    def work(self, work: Callable[[BrickReader], T]) -> T:
        """Return `work(reader)`; raise what it raises, or `BrickTooSlow`."""
        self._begin(lambda: work(self.reader))
        return self._outcome("reading it")

    def wait(self) -> None:
        """Wait until the brick is open, cannot be opened, or took too long."""
        wait([self._future], max(0.0, self._until - time.monotonic()))

    def close(self) -> None:
        """Close the brick; where a step was left behind: as soon as it ends."""
        self._future.add_done_callback(lambda _: self.reader.close())

    def _begin(self, step: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        self._until = time.monotonic() + self.seconds
        threading.Thread(target=_run, args=(step, self._future), daemon=True).start()

    def _outcome(self, what: str) -> Any:
        self.wait()
        if not self._future.done():
            raise BrickTooSlow(
                f"{self.reader.brickname}: {what} took more than {self.seconds:g} s; see whether "
                f"{self.reader.source_url} answers, or raise limits.brick_seconds"
            )
        return self._future.result()


def _run(step: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(step())
    except BaseException as error:
        future.set_exception(error)


def ahead(visits: Iterator[Visit]) -> Iterator[Visit]:
    """Yield visits in order, each once its opening has ended, with the next begun; close each afterwards.

    So two bricks are open or on the way at most.
    """
    current, following = next(visits, None), None
    try:
        while current is not None:
            current.wait()
            following = next(visits, None)
            yield current
            current.close()
            current, following = following, None
    finally:
        for visit in (current, following):
            if visit is not None:
                visit.close()
