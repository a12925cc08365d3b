"""What the commands of evaluation share: the look of their help, and how a user's mistake is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import wraps

from darkhaloscope.errors import Explained

Main = Callable[[Sequence[str] | None], int]


def command_line(name: str, doc: str | None, usage: str | None = None) -> argparse.ArgumentParser:
    """Return a parser of `python -m evaluation.NAME` whose help is the module's docstring, line by line."""
    return argparse.ArgumentParser(
        f"python -m evaluation.{name}", usage, doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def explaining(name: str) -> Callable[[Main], Main]:
    """Make a command tell in one line what a person can put right, and end with status 1.

    That is `Explained`, and an OSError: of a path that the user gave. Anything else is a fault of the code.
    """

    def around(main: Main) -> Main:
        @wraps(main)
        def told(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except (Explained, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1

        return told

    return around
