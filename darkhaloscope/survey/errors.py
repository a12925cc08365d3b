"""What can be wrong with a brick or a catalogue file; the messages say what was found and what to do."""

from __future__ import annotations

from darkhaloscope.errors import Explained


class FitsBroken(Explained, ValueError):
    """A file is not FITS, or ends before its headers say it does."""


class TransferFailed(Explained, OSError):
    """A file could not be copied; the message says why, `cause` in a word or two (for counting)."""

    def __init__(self, message: str, cause: str = "not copied") -> None:
        super().__init__(message)
        self.cause = cause


class Interrupted(TransferFailed):
    """A transfer that another try may complete; `retry_after_s` is the wait the server asked for, if any."""

    def __init__(self, message: str, cause: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, cause)
        self.retry_after_s = retry_after_s


class CatalogueError(Explained, ValueError):
    """A catalogue that cannot be used; the message names the file and every missing column."""


class BrickUnreadable(Exception):
    """A brick's coadds cannot be read; rows of the brick fail with this message, other bricks go on."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class BrickMissing(BrickUnreadable):
    """The source has no coadds of the brick."""


class BandMissing(BrickUnreadable):
    """The source has coadds of the brick, but not in every band asked for."""


class BrickTooSlow(BrickUnreadable):
    """A read of the brick's coadds did not come back in time."""
