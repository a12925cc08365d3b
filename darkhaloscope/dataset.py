"""Committed datasets: parts that tasks write, chunks that the driver commits, and what is committed.

    <root>/chunk=00000/part-00003-a0-<uuid>.parquet   written by a task, invisible until committed
    <root>/chunk=00000/_manifest.json                 the commit: parts with rows, bytes and sha256

A listing shows parts of failed, repeated and unfinished tasks alike, so no reader may use one:
`committed_files(root)` is the only way to a dataset's files. The same code serves local paths and S3.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FSSpecHandler, PyFileSystem

from darkhaloscope.errors import Explained
from darkhaloscope.storage import filesystem, is_local, join, read_small, retrying
from darkhaloscope.writing import atomic_output, create_exclusive, remove

MANIFEST_NAME = "_manifest.json"
MAX_ROWS_PER_GROUP = 1_000
# Noise hardly compresses: level 1 costs a seventh less than pyarrow's 9, for files larger by 0.2 %.
LEVELS = {"gzip": 1, "zstd": 1}


class DatasetError(Explained, RuntimeError):
    """A dataset that is not as a reader or writer needs it; the message names it and says what to do."""


@dataclass(frozen=True)
class Part:
    """One Parquet file of a chunk: its key below the root, and what proves it is the one that was written."""

    key: str
    rows: int
    bytes: int
    sha256: str


def chunk_name(chunk: int) -> str:
    """Return the folder of a chunk."""
    return f"chunk={chunk:05d}"


def part_key(chunk: int, index: int, attempt: int, suffix: str) -> str:
    """Return a key below the root that no other task or attempt will use."""
    return f"{chunk_name(chunk)}/part-{index:05d}-a{attempt}-{uuid.uuid4().hex[:12]}.{suffix}"


def write_part(
    root: str,
    chunk: int,
    index: int,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    attempt: int = 0,
    codec: str = "zstd",
    rows_per_group: int = MAX_ROWS_PER_GROUP,
) -> Part:
    """Write one Parquet file and return what the driver needs to commit it.

    Nothing is visible under the final name before the file is whole: a local file is written under a
    temporary name, synced and renamed; on S3 the multipart upload is completed last, or aborted.

    Args:
        root: URL of the dataset.
        chunk: number of the chunk.
        index: number of the task in the chunk.
        batches: rows, all of `schema`.
        schema: Arrow schema with the file's metadata.
        attempt: number of the attempt; with a random part it keeps repeated tasks apart.
        codec: gzip, zstd or none.
        rows_per_group: rows of a row group, at most 1,000.

    Raises:
        StorageError: the place cannot be written to (no right, no space), with the reason.
        DatasetError: rows_per_group out of range.
    """
    if not 1 <= rows_per_group <= MAX_ROWS_PER_GROUP:
        raise DatasetError(f"rows_per_group = {rows_per_group}; expected 1 to {MAX_ROWS_PER_GROUP}")
    key = part_key(chunk, index, attempt, "parquet")
    rows = 0
    with atomic_output(join(root, key)) as sink:
        with pq.ParquetWriter(
            sink,
            schema,
            compression=codec,
            compression_level=LEVELS.get(codec),
            write_statistics=_columns(schema, lambda of: not pa.types.is_binary(of)),  # none of pixels
            use_dictionary=_columns(schema, pa.types.is_string),  # numbers hardly repeat
        ) as writer:
            for table in _regroup(batches, schema, rows_per_group):
                writer.write_table(table, row_group_size=rows_per_group)
                rows += table.num_rows
        size, digest = sink.size, sink.sha.hexdigest()
    return Part(key, rows, size, digest)


def _columns(schema: pa.Schema, kind: Callable[[pa.DataType], bool]) -> list[str]:
    return [f.name for f in schema if kind(f.type)]


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Yield tables of exactly `rows` rows (the last may have fewer), so that row groups are full."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch.cast(schema) if batch.schema != schema else batch)
        count += batch.num_rows
        if count >= rows:
            table = pa.Table.from_batches(held, schema)
            whole = count - count % rows
            yield table.slice(0, whole)
            held, count = table.slice(whole).to_batches(), count - whole
    if count:
        yield pa.Table.from_batches(held, schema)


def commit_chunk(root: str, chunk: int, parts: Iterable[Part], facts: dict[str, Any] | None = None) -> None:
    """Make a chunk's parts readable. `facts` (counts, timings) are kept in the manifest beside them.

    Raises:
        DatasetError: the chunk is committed already.
    """
    ordered = sorted(parts, key=lambda p: p.key)
    manifest = {"parts": [asdict(p) for p in ordered], "rows": sum(p.rows for p in ordered), **(facts or {})}
    url = join(root, chunk_name(chunk), MANIFEST_NAME)
    if not create_exclusive(url, json.dumps(manifest, indent=1).encode()):
        raise DatasetError(f"{url} exists: this chunk was committed by another run; its parts stand")


def committed_chunks(root: str) -> dict[int, dict[str, Any]]:
    """Return chunk number -> its manifest, for every committed chunk; empty where there is none."""
    found = _manifest_keys(root)
    manifests = read_small([join(root, key) for key in found])
    numbers = [int(key.split("/")[0].removeprefix("chunk=")) for key in found]
    return {n: json.loads(m) for n, m in zip(numbers, manifests, strict=True)}


def _manifest_keys(root: str) -> list[str]:
    return [key for key in _keys_in_chunks(root) if key.endswith("/" + MANIFEST_NAME)]


def _keys_in_chunks(root: str) -> list[str]:
    """Return the keys of all files in chunks, sorted: one flat listing, where a glob would ask S3 chunk by chunk."""
    fs, path = filesystem(root)
    keys = (f.removeprefix(path + "/") for f in retrying(root, lambda: fs.find(path)))
    return sorted(k for k in keys if k.startswith("chunk=") and k.count("/") == 1)


def count_committed_chunks(root: str) -> int:
    """Return the number of committed chunks without reading their manifests: a running stage's progress."""
    return len(_manifest_keys(root))


def committed_parts(root: str) -> list[Part]:
    """Return the parts of every committed chunk, in the order of chunk and key."""
    chunks = committed_chunks(root)
    return [Part(**p) for number in sorted(chunks) for p in chunks[number]["parts"]]


def committed_files(root: str) -> list[str]:
    """Return the URLs of a dataset's files, in a fixed order. The only way any reader finds them.

    Raises:
        DatasetError: nothing is committed there.
    """
    parts = committed_parts(root)
    if not parts:
        raise DatasetError(f"{root}: no committed chunk; run the stage that writes it first")
    base = root if not is_local(root) else filesystem(root)[1]
    return [join(base, p.key) for p in parts if p.rows]


def content_hash(root: str) -> str:
    """Return 16 hex digits over the committed parts' hashes: what a result says it was measured on."""
    digests = sorted(p.sha256 for p in committed_parts(root))
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def open_part(url: str) -> pq.ParquetFile:
    """Open one committed file.

    Raises:
        DatasetError: it is missing, truncated or no Parquet file.
    """
    fs, path = filesystem(url)
    try:
        if is_local(url):
            return pq.ParquetFile(path)  # no Python between Arrow and the disk
        return pq.ParquetFile(path, filesystem=PyFileSystem(FSSpecHandler(fs)))
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"{url}: not a readable Parquet file: {error}; remake the chunk it is in"
        ) from error


def read_table(root: str, columns: list[str] | None = None) -> pa.Table:
    """Read a whole committed dataset that fits in memory; the schema's metadata is its first part's."""
    tables = []
    for url in committed_files(root):
        with open_part(url) as part:
            tables.append(part.read(columns=columns))
    return pa.concat_tables(tables)


def gc(root: str) -> list[str]:
    """Remove what no manifest names: parts and temporary files of failed, repeated and killed tasks.

    Call it only while no other run writes there. Returns the keys removed. Orphan multipart uploads on S3
    are aborted too.
    """
    fs, path = filesystem(root)
    kept = {p.key for p in committed_parts(root)}
    orphans = [
        key for key in _keys_in_chunks(root) if key not in kept and ("/part-" in key or key.endswith(".tmp"))
    ]
    for orphan in orphans:
        remove(join(root, orphan))
    if not is_local(root):
        _abort_uploads(fs, path)
    return orphans


def _abort_uploads(fs: Any, path: str) -> None:
    """Abort the multipart uploads below a path, page by page (S3 lists a thousand at a time)."""
    bucket, _, prefix = path.partition("/")
    where = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    page: dict[str, Any] = {"IsTruncated": True}
    while page.get("IsTruncated"):
        after = {k: page[f"Next{k}"] for k in ("KeyMarker", "UploadIdMarker") if page.get(f"Next{k}")}
        page = retrying(f"s3://{path}", partial(fs.call_s3, "list_multipart_uploads", **where, **after))
        for upload in page.get("Uploads", []):
            fs.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
