"""Stage 4b for one brick: its coadd files from the survey's server into a cache."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkhaloscope.provenance import sha256_of
from darkhaloscope.storage import StorageError, filesystem, is_local, is_web, join, shown
from darkhaloscope.survey.checksums import read_checksums
from darkhaloscope.survey.coadds import MAX_FILE_BYTES, brick_files, file_path
from darkhaloscope.survey.errors import FitsBroken, TransferFailed
from darkhaloscope.survey.files import copy_to_local
from darkhaloscope.survey.fits_headers import check_fits
from darkhaloscope.survey.plane import plane_label
from darkhaloscope.survey.transfer import Client

INCOMING = ".incoming"
"""Folder of a local cache for files on their way; what a killed run left there is removed by a later one."""


@dataclass
class _Brick:
    """A brick that is being fetched, and what became of its files."""

    source: str
    cache: str
    name: str
    client: Client | None
    scratch: str | Path | None
    published: dict[str, str] | None = None
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    failures: list[TransferFailed] = field(default_factory=list)
    by_checksum: int = 0
    other_checksum: list[str] = field(default_factory=list)

    def fetch(self, kind: str, band: str) -> None:
        """Make sure that a whole copy of a file is in the cache."""
        path = file_path(self.name, kind, band)
        try:
            size = _cached_size(join(self.cache, path))
            self.sizes[kind, band] = self._copy(path) if size is None else size
        except FileNotFoundError:
            self.absent.append(plane_label(kind, band))
        except TransferFailed as error:
            self.failures.append(error)

    def _copy(self, path: str) -> int:
        if self.published is None:  # not asked for where every file is there already
            self.published = read_checksums(self.source, self.name, self.client)
        source, file = join(self.source, path), path.rsplit("/", 1)[-1]
        expected = self.published.get(file)
        with _incoming(self.cache, self.scratch) as part:
            size = _copy_whole(source, part, self.client)
            if expected is not None and (digest := sha256_of(part)) != expected:
                size = _copy_whole(source, part, self.client)
                if (again := sha256_of(part)) not in (digest, expected):
                    raise TransferFailed(
                        f"{shown(source)}: arrived twice, and different each time", "checksum"
                    )
                if again == digest:
                    self.other_checksum.append(file)
                    expected = None
            _place(part, join(self.cache, path))
        self.by_checksum += expected is not None
        return size

    def row(self, bands: str) -> dict[str, Any]:
        """Return what `records.ASSETS` says about it, times aside."""
        there = "".join(b for b in bands if ("image", b) in self.sizes and ("invvar", b) in self.sizes)
        notes = [f"not in the source: {', '.join(self.absent)}"] if self.absent else []
        causes = ["not found"] if self.absent else []
        if self.other_checksum:
            notes.append(f"not of the published checksum, twice the same: {', '.join(self.other_checksum)}")
            causes.append("other checksum")
        status = "failed" if self.failures else "cached" if there else "missing"
        if status == "failed":
            notes, causes = [str(e) for e in self.failures], [e.cause for e in self.failures]
        elif status == "missing":
            notes[-1] += f" ({shown(self.source)})"
        return {
            "brickname": self.name,
            "status": status,
            "cause": ", ".join(sorted(set(causes))),
            "reason": f"{self.name}: {'; '.join(notes)}" if notes else "",
            "bands": there,
            "files": len(self.sizes),
            "bytes": sum(self.sizes.values()),
            "by_checksum": self.by_checksum,
        }


def fetch_brick(
    source_url: str,
    cache_url: str,
    brickname: str,
    bands: str = "grz",
    client: Client | None = None,
    scratch: str | Path | None = None,
) -> dict[str, Any]:
    """Copy a brick's files into the cache; files already there and whole are left alone.

    A file is accepted when its size is what the source states, its FITS structure is complete and, where the survey
    publishes checksums, its sha256 is the survey's (or it arrived twice the same: see `checksums`); only then does it
    appear under its name (rename on a disk, one upload on S3), so a reader never sees a part of one.

    Args:
        source_url: base URL with coadd/ below it.
        cache_url: local directory or s3:// URL, filled with the same layout.
        brickname: AAAA[pm]BBB.
        bands: bands wanted.
        client: limits and connections; this process's client with the default limits where it is not given.
        scratch: folder for copies on their way to S3.

    Returns:
        A row of `records.ASSETS`. status "cached": at least one band has image and invvar (`bands` says
        which); "missing": the source has no image of the brick; "failed": a file could not be copied or is
        broken. `reason` names the files that are absent or failed.

    Raises:
        StorageError: the cache or scratch cannot be written (full, no right to): not the brick's fault.
        ValueError: the cache is neither local nor S3.
    """
    if is_web(cache_url):
        raise ValueError(f"cache {cache_url!r}: expected a directory or an s3:// URL, not a web server")
    start = time.perf_counter()
    brick = _Brick(source_url, cache_url, brickname, client, scratch)
    for kind, band, _ in brick_files(bands):
        brick.fetch(kind, band)
    return brick.row(bands) | {"seconds": time.perf_counter() - start, "tried": time.time()}


@contextmanager
def _incoming(cache: str, scratch: str | Path | None) -> Iterator[Path]:
    """Give the path of a file on its way, on the cache's own disk where that is local; nothing of it stays."""
    if not is_local(cache):
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=scratch) as name:
            yield Path(name) / "part"
        return
    folder = Path(filesystem(cache)[1]) / INCOMING
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{cache}: cannot be written: {error}") from error
    part = folder / f"{uuid.uuid4().hex}.part"
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _place(part: Path, target: str) -> None:
    """Make a whole file appear under its name in one step."""
    fs, path = filesystem(target)
    try:
        if is_local(target):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
        else:
            fs.put_file(str(part), path)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error


def _cached_size(target: str) -> int | None:
    """Return the size of a file of the cache, None where it is not there or (on a disk) not whole."""
    fs, path = filesystem(target)
    try:
        size = int(fs.size(path))
        if is_local(target):
            check_fits(path)
        return size
    except (FileNotFoundError, FitsBroken):
        return None
    except OSError as error:
        raise StorageError(
            f"{target}: cannot be read: {error}; the cache must be a folder or on S3"
        ) from error


def _copy_whole(source: str, path: Path, client: Client | None) -> int:
    """Copy a FITS file and check that it is whole; one the server itself has broken is not asked for again."""
    size = copy_to_local(source, path, MAX_FILE_BYTES, client)
    try:
        check_fits(path)
    except FitsBroken as error:
        cause = "not FITS" if "not a FITS file" in str(error) else "truncated at the source"
        raise TransferFailed(f"{shown(source)}: {error}", cause) from error
    return size
