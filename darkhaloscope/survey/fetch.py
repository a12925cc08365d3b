"""Stage 4b for one brick: its coadd files from the survey's server into a cache."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

from darkhaloscope.storage import filesystem, is_local, join
from darkhaloscope.survey.coadds import MAX_FILE_BYTES, brick_files, file_path
from darkhaloscope.survey.errors import FitsBroken, TransferFailed
from darkhaloscope.survey.files import check_fits, copy_to_local


def fetch_brick(
    source_url: str,
    cache_url: str,
    brickname: str,
    bands: str = "grz",
    scratch: str | Path | None = None,
    attempts: int = 2,
) -> dict[str, Any]:
    """Copy a brick's files into the cache; files already there and whole are left alone.

    A file is accepted when its size is what the source states and its FITS structure is complete; only then
    does it appear under its name (rename on a disk, one upload on S3), so a reader never sees a part of one.

    Args:
        source_url: base URL with coadd/ below it.
        cache_url: local directory or s3:// URL, filled with the same layout.
        brickname: AAAA[pm]BBB.
        bands: bands wanted.
        scratch: folder for copies on their way to S3.
        attempts: tries per file.

    Returns:
        A row of `records.ASSETS`. status "cached": at least one band has image and invvar (`bands` says
        which); "missing": the source has no image of the brick; "failed": a file could not be copied or is
        broken. `reason` names the files that are absent or failed.

    Raises:
        OSError: the cache or scratch cannot be written (full, no right to): not the brick's fault.
        ValueError: the cache is neither local nor S3.
    """
    if cache_url.startswith(("http://", "https://")):
        raise ValueError(f"cache {cache_url!r}: expected a directory or an s3:// URL, not a web server")
    sizes: dict[tuple[str, str], int] = {}
    absent, broken = [], []
    for kind, band, _ in brick_files(bands):
        path = file_path(brickname, kind, band)
        try:
            sizes[kind, band] = _fetch_file(join(source_url, path), join(cache_url, path), scratch, attempts)
        except FileNotFoundError:
            absent.append(f"{kind}-{band}" if band else kind)
        except TransferFailed as error:
            broken.append(str(error))
    found = "".join(b for b in bands if ("image", b) in sizes and ("invvar", b) in sizes)
    missing = f"not in the source: {', '.join(absent)}" if absent else ""
    if broken:
        status, reason = "failed", f"{brickname}: {'; '.join(broken)}"
    elif not found:
        status, reason = "missing", f"{brickname}: {missing} ({source_url})"
    else:
        status, reason = "cached", f"{brickname}: {missing}" if missing else ""
    size = sum(sizes.values())
    return {"brickname": brickname, "status": status, "reason": reason, "bands": found,
            "files": len(sizes), "bytes": size}  # fmt: skip


def _fetch_file(source: str, target: str, scratch: str | Path | None, attempts: int) -> int:
    """Make sure that a whole copy of `source` is at `target`; return its size."""
    if (size := _cached_size(target)) is not None:
        return size
    if not is_local(target):
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=scratch) as folder:
            path = Path(folder) / target.rsplit("/", 1)[-1]
            size = _copy_checked(source, path, attempts)
            fs, key = filesystem(target)
            fs.put_file(str(path), key)
        return size
    final = Path(filesystem(target)[1])
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
    size = _copy_checked(source, part, attempts)
    part.replace(final)
    return size


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


def _copy_checked(source: str, path: Path, attempts: int) -> int:
    size = copy_to_local(source, path, MAX_FILE_BYTES, attempts)
    try:
        check_fits(path)
    except FitsBroken as error:
        path.unlink(missing_ok=True)
        raise TransferFailed(f"{source}: {error}") from error
    return size
