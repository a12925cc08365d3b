"""Copy packed shards to this machine, each file checked: python -m bootstrap.fetch_shards SOURCE DESTINATION.

SOURCE is what stage pack or training.make_shards wrote, on S3 or on a mounted disk. A file is copied, its sha256
compared with the one in its chunk's manifest, and only then given its name; the manifest comes last, so that a chunk is
readable when it is whole. Started again it copies what is missing or was changed, and checks all that is there.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from darkhaloscope.dataset import MANIFEST_NAME, DatasetError, Part, chunk_name, committed_chunks
from darkhaloscope.errors import Explained
from darkhaloscope.provenance import sha256_of
from darkhaloscope.records import SPLITS
from darkhaloscope.stage import RECORD_NAME
from darkhaloscope.storage import filesystem, join, read_bytes, retrying
from darkhaloscope.writing import replace_file

_BLOCK = 8 << 20


class FetchError(Explained, RuntimeError):
    """Shards that cannot be trusted; the message names the file and says what to do."""


def fetch(source: str, destination: Path) -> dict[str, int]:
    """Copy what is missing; return how many files were copied, and how many were there already.

    Args:
        source: URL of the folder with split=train and the like.
        destination: local folder.

    Raises:
        DatasetError: nothing is committed there.
        FetchError: a file is not the one that was committed, or this disk is too small.
    """
    chunks = {split: committed_chunks(join(source, f"split={split}")) for split in SPLITS}
    if not any(chunks.values()):
        raise DatasetError(f"{source}: no committed shard below split=train, split=val or split=test")
    counts = {"copied": 0, "there": 0}
    wanted = [(s, n, Part(**p)) for s, some in chunks.items() for n, m in some.items() for p in m["parts"]]
    _refuse_full_disk(destination, sum(part.bytes for *_, part in wanted))
    for split, _, part in tqdm(wanted, "fetch shards", unit="file"):
        target = destination / f"split={split}" / part.key
        if target.exists() and sha256_of(target) == part.sha256:
            counts["there"] += 1
            continue
        _copy(join(source, f"split={split}", part.key), target, part)
        counts["copied"] += 1
    for split, some in chunks.items():
        for number in some:
            name = f"{chunk_name(number)}/{MANIFEST_NAME}"
            manifest = read_bytes(join(source, f"split={split}", name))
            replace_file(str(destination / f"split={split}" / name), manifest)
    with contextlib.suppress(FileNotFoundError):  # a record explains shards, it is not needed to read them
        (destination / RECORD_NAME).write_bytes(read_bytes(join(source, RECORD_NAME)))
    return counts


def _copy(url: str, target: Path, part: Part) -> None:
    """Copy one file under a temporary name and rename it once its content is proved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".tmp")
    fs, path = filesystem(url)

    def copy() -> None:
        with fs.open(path, "rb") as stream, temporary.open("wb") as sink:
            shutil.copyfileobj(stream, sink, _BLOCK)

    retrying(url, copy)
    found = sha256_of(temporary)
    if found != part.sha256:
        temporary.unlink()
        raise FetchError(
            f"{url}: sha256 {found[:16]}, {part.sha256[:16]} was committed: the file was changed or cut off; copy "
            "the shards to the source again, or make them again"
        )
    temporary.replace(target)


def _refuse_full_disk(destination: Path, size: int) -> None:
    destination.mkdir(parents=True, exist_ok=True)
    there = sum(f.stat().st_size for f in destination.rglob("*.parquet"))
    free = shutil.disk_usage(destination).free
    if size - there > free:
        raise FetchError(
            f"{destination}: {(size - there) / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free; give a "
            "folder on a larger disk"
        )


def main(argv: list[str] | None = None) -> int:
    """Copy, say what was done; return the exit status."""
    p = argparse.ArgumentParser(
        "python -m bootstrap.fetch_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("source", help="URL of the shards, s3:// or a path")
    p.add_argument("destination", type=Path, help="local folder")
    a = p.parse_args(argv)
    try:
        counts = fetch(a.source, a.destination)
    except Explained as error:
        print(f"fetch_shards: {error}", file=sys.stderr)
        return 1
    print(f"{a.destination}: {counts['copied']} files copied, {counts['there']} were there; all checked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
