"""What a search leaves: ranked candidates with pixels, catalogues, and a summary."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import commit_chunk, committed_chunks, committed_files, open_part, write_part
from darkhaloscope.report.page import render_page
from darkhaloscope.results import CANDIDATES
from darkhaloscope.search.catalogue_files import WRITERS, catalogue_of
from darkhaloscope.search.reference import Reference
from darkhaloscope.search.summary import summary_page
from darkhaloscope.storage import filesystem, is_local, join
from darkhaloscope.writing import replace_file

ROWS_PER_PART = 200_000


def read_scored(root: str) -> pa.Table:
    """Return the CANDIDATES rows that the tasks of a search wrote, without pixels."""
    names = [n for n in CANDIDATES.names if n != "stamp"]
    tables = []
    for url in committed_files(root):
        with open_part(url) as part:
            tables.append(part.read(columns=names))
    return pa.concat_tables(tables).replace_schema_metadata(None)


def write_candidates(root: str, scored: str, table: pa.Table, pictures: int) -> None:
    """Write ranked candidates as one committed chunk, with the pixels of the first `pictures`.

    Args:
        root: URL to write to; where it is committed already nothing is done.
        scored: URL of the tasks' rows, which have the pixels.
        table: of `ranking.rank`.
        pictures: rows with pixels.
    """
    if committed_chunks(root):
        return
    shown = table.filter(pc.less_equal(table.column("rank"), pictures)).column("host_id")
    pixels, metadata = _pixels(scored, shown)
    stamps = [pixels.get(i) for i in shown.to_pylist()]  # of the first rows: they are in the order of rank
    stamps = pa.chunked_array(
        [pa.array(stamps, pa.binary()), pa.nulls(table.num_rows - len(stamps), pa.binary())]
    )
    whole = table.append_column("stamp", stamps).select(CANDIDATES.names)
    schema = CANDIDATES.arrow(metadata)
    parts = [
        write_part(root, 0, i, whole.slice(first, ROWS_PER_PART).cast(schema).to_batches(), schema)
        for i, first in enumerate(range(0, whole.num_rows, ROWS_PER_PART))
    ]
    commit_chunk(root, 0, parts)


def _pixels(scored: str, ids: pa.ChunkedArray) -> tuple[dict[int, bytes], dict[str, str]]:
    """Return the stamps of some rows by host_id, and the layout of their pixels."""
    found: dict[int, bytes] = {}
    metadata: dict[str, str] = {}
    wanted = ids.combine_chunks()
    for url in committed_files(scored):
        with open_part(url) as part:
            metadata = {k.decode(): v.decode() for k, v in (part.schema_arrow.metadata or {}).items()}
            for rows in part.iter_batches(500, columns=["host_id", "stamp"]):
                mine = rows.filter(pc.and_(pc.is_in(rows.column(0), wanted), pc.is_valid(rows.column(1))))
                found |= dict(zip(*(c.to_pylist() for c in mine.columns), strict=True))
    return found, {k: v for k, v in metadata.items() if k != "table"}


def write_catalogues(root: str, table: pa.Table, formats: Sequence[str]) -> Iterator[str]:
    """Write the scored rows in each format, whole or not at all, and yield the URL of each."""
    catalogue = catalogue_of(table)
    with tempfile.TemporaryDirectory(prefix="catalogue-") as scratch:
        for name in formats:
            file, write = WRITERS[name]
            made = Path(scratch, file)
            write(catalogue, made)
            yield _put(made, join(root, file))


def _put(made: Path, url: str) -> str:
    """Put a file or folder in the place of what is there."""
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)
    if is_local(url):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, path)
    else:
        fs.put(str(made), path, recursive=made.is_dir())
    return url


def write_summary(
    root: str, summary: dict[str, Any], table: pa.Table, reference: Reference | None, facts: dict[str, Any]
) -> None:
    """Write summary.json and summary.html."""
    replace_file(join(root, "summary.json"), json.dumps(summary, indent=1).encode())
    page = render_page(summary_page(summary, table, reference, facts))
    replace_file(join(root, "summary.html"), page.encode())
