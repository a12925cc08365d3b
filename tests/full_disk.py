"""A real file system that can be filled: 4 MB of memory, where this user may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A file system of 4 MB, and a file that fills it up to a rest."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ballast = folder, folder / "ballast"

    def fill(self, rest: int) -> None:
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        with self.ballast.open("wb") as stream:
            stream.write(b"x" * max(0, free - rest))

    def free(self) -> None:
        self.ballast.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mount it on a folder, or skip the test, saying so."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
