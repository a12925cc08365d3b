"""What can be wrong with a brick or a catalogue file; the messages say what was found and what to do."""

from __future__ import annotations


class FitsBroken(ValueError):
    """A file is not FITS, or ends before its headers say it does."""


class TransferFailed(OSError):
    """A file could not be copied: the connection, the server or its size; the message says which."""


class CatalogueError(ValueError):
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
