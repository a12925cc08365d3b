"""The coadd cache as a whole: what is known of it, which bricks are still to be fetched, whether they will fit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from darkhaloscope.dataset import committed_files, committed_parts, open_part
from darkhaloscope.records import ASSETS
from darkhaloscope.schema import check_schema
from darkhaloscope.storage import StorageError, filesystem, is_local, join
from darkhaloscope.survey.coadds import brick_files, file_path
from darkhaloscope.survey.fetch import INCOMING

BRICK_BYTES = 79 << 20
"""Mean size of a DR10 brick's files in three bands, before anything was measured."""

DAY_S = 86_400.0
_DEAD_AFTER_S = 3_600.0  # no transfer is silent for so long: its time-outs are minutes
_SAMPLE = 16


def read_assets(root: str) -> dict[str, dict[str, Any]]:
    """Return the newest row of each brick from stage 4b's table; nothing where nothing is committed.

    Raises:
        SchemaError: a file has another layout.
    """
    newest: dict[str, dict[str, Any]] = {}
    if not committed_parts(root):
        return newest
    for url in committed_files(root):  # in the order of the chunks, and so of the tries
        with open_part(url) as part:
            check_schema(ASSETS, part.schema_arrow, url)
            newest.update((row["brickname"], row) for row in _rows(part.read()))
    return newest


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    return table.to_pylist()


def bricks_to_fetch(
    bricks: Sequence[str],
    assets: Mapping[str, Mapping[str, Any]],
    now: float,
    ask_again_s: float,
    bytes_there: Mapping[str, int] | None = None,
) -> list[str]:
    """Return the bricks that a run has to visit.

    These are the bricks no run has visited, those that failed, those that lack files and were asked for too long
    ago, and those whose files are no longer what was recorded.

    Args:
        bricks: wanted.
        assets: newest row of each brick that is known.
        now: Unix time, s.
        ask_again_s: age of the answer after which files that were missing are asked for again.
        bytes_there: size of each brick's files in the cache, where it was looked up.
    """

    def due(brick: str) -> bool:
        row = assets.get(brick)
        if row is None or row["status"] == "failed":
            return True
        if "not found" in row["cause"] and now - row["tried"] >= ask_again_s:
            return True
        return bytes_there is not None and bytes_there.get(brick, 0) != row["bytes"]

    return [brick for brick in bricks if due(brick)]


def bytes_in_cache(cache: str, bricks: Iterable[str], bands: str) -> dict[str, int] | None:
    """Return the size of each brick's files in a local cache, without opening one; None where it is not local.

    On S3 that would be a request a brick; what was uploaded is whole, and the committed rows are trusted.
    """
    if not is_local(cache):
        return None
    base = Path(filesystem(cache)[1])
    return {brick: _brick_bytes(base, brick, bands) for brick in bricks}


def _brick_bytes(base: Path, brick: str, bands: str) -> int:
    paths = (base / file_path(brick, kind, band) for kind, band, _ in brick_files(bands))
    return sum(path.stat().st_size for path in paths if path.is_file())


def mean_brick_bytes(
    source: str, bricks: Sequence[str], bands: str, assets: Iterable[Mapping[str, Any]]
) -> float:
    """Return the expected size of a brick: of those cached already, of some of a local source, or DR10's."""
    sizes = [row["bytes"] for row in assets if row["status"] == "cached"]
    if not sizes and is_local(source):
        base = Path(filesystem(source)[1])
        sizes = [_brick_bytes(base, b, bands) for b in bricks[:: max(len(bricks) // _SAMPLE, 1)]]
    return sum(sizes) / len(sizes) if sizes else BRICK_BYTES * len(bands) / 3


def check_space(cache: str, bricks: int, brick_bytes: float) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        StorageError: with what is needed, what is free, and what to do.
    """
    if not is_local(cache):
        return
    folder = Path(filesystem(cache)[1])
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, bricks * brick_bytes
    if needed > free:
        raise StorageError(
            f"{cache}: {bricks} bricks of about {brick_bytes / 1e6:.0f} MB need {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free; what is cached and committed stays: free space and run again, or give "
            "another place (--output-s3) or fewer rows (--test-limit)"
        )


def clear_incoming(cache: str, now: float | None = None) -> int:
    """Remove what killed runs left on its way into a local cache; return how many files."""
    if not is_local(cache):
        return 0
    folder = Path(filesystem(join(cache, INCOMING))[1])
    dead = (time.time() if now is None else now) - _DEAD_AFTER_S
    old = [path for path in folder.glob("*.part") if path.stat().st_mtime < dead]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)
