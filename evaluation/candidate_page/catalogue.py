"""The rows of a search that can be looked at: those with a stamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import DatasetError, committed_files, content_hash, open_part
from darkhaloscope.errors import Explained
from darkhaloscope.records import BANDS, STAMP_SIZE
from darkhaloscope.results import CANDIDATES
from darkhaloscope.schema import check_schema

COLUMNS = (
    "name", "object_name", "ra", "dec", "brickname", "type", "ebv", "mag_g", "mag_r", "mag_z",
    "psfsize_g", "psfsize_r", "psfsize_z", "psfdepth_g", "psfdepth_r", "psfdepth_z", "stamp", "host_x", "host_y",
    "bad_fraction", "maskbits_any", "bands", "merged", "outside", "rank", "logit", "logit_spread", "probability",
    "prevalence", "fpr", "fpr_high", "false_per_sqdeg", "false_per_sqdeg_high", "known_name", "known_type",
    "known_grading", "known_reference", "known_arcsec", "release", "viewer_url",
)  # fmt: skip
"""Columns of CANDIDATES that the page uses."""

CENTRES = ("host_x", "host_y")


class CatalogueError(Explained, ValueError):
    """A catalogue that cannot be shown; the message names it and says what to do."""


@dataclass(frozen=True)
class Catalogue:
    """Candidates with pixels, best rank first.

    Attributes:
        root: where it was read.
        hash: the dataset's content hash.
        table: columns of `COLUMNS`, one row a candidate.
        dtype: of a pixel.
        bands: of a stamp, in its order.
        size: pixels on a side.
        n_rows: rows of the whole catalogue, those without a stamp among them.
    """

    root: str
    hash: str
    table: pa.Table
    dtype: str
    bands: str
    size: int
    n_rows: int

    def stamp(self, row: int) -> np.ndarray:
        """Return the stamp of a row, (band, y, x) float32, nmgy/pixel."""
        pixels = np.frombuffer(self.table.column("stamp")[row].as_buffer(), self.dtype)
        return pixels.astype(np.float32).reshape(len(self.bands), self.size, self.size)

    def centres(self) -> np.ndarray:
        """Return (x, y) of each galaxy in its stamp, (n, 2) pixels; the stamp's middle where it is not known."""
        found = np.stack([self.table.column(c).to_numpy().astype(float) for c in CENTRES], axis=1)
        return np.where(np.isfinite(found), found, (self.size - 1) / 2)


def read_catalogue(root: str, top: int | None = None) -> Catalogue:
    """Read the candidates of a search (`<search>/candidates`).

    Args:
        root: URL of the committed dataset.
        top: only so many, best first.

    Raises:
        DatasetError: nothing is committed there, or a file cannot be read.
        SchemaError: a column is missing or of another type.
        CatalogueError: no row has a stamp, stamps are not what the file says, or a name stands twice.
    """
    found, n_rows = [], 0
    for url in committed_files(root):
        with open_part(url) as part:
            check_schema(CANDIDATES, part.schema_arrow, url, COLUMNS)
            n_rows += part.metadata.num_rows
            try:
                table = part.read(columns=list(COLUMNS))
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{url}: cannot be read: {error}; run the search again") from error
            found.append(table.filter(pc.and_(pc.is_valid(table["stamp"]), pc.is_valid(table["rank"]))))
    table = pa.concat_tables(found) if found else None
    if table is None or not table.num_rows:
        raise CatalogueError(
            f"{root}: none of its {n_rows} rows has a score and a stamp, so there is nothing to grade; "
            "look at the search's summary for why"
        )
    table = table.take(pc.sort_indices(table, [("rank", "ascending"), ("name", "ascending")]))
    table = table.slice(0, top if top is not None else table.num_rows)
    dtype, bands, size = _layout(table, root)
    names = table.column("name")
    if len(pc.unique(names)) < len(names):
        twice = next(v["values"] for v in pc.value_counts(names).to_pylist() if v["counts"] > 1)
        raise CatalogueError(
            f"{root}: {twice!r} names two rows, and grades go by name; remake the catalogue (a search merges doubles)"
        )
    return Catalogue(root, content_hash(root), table, dtype, bands, size, n_rows)


def _layout(table: pa.Table, root: str) -> tuple[str, str, int]:
    """Return dtype, bands and size of the stamps, and check that each has the bytes these take."""
    said = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    dtype, bands = said.get("stamp_dtype", "float32"), said.get("bands", BANDS)
    shape = said.get("stamp_shape", f"{len(bands)},{STAMP_SIZE},{STAMP_SIZE}")
    n_band, height, width = (int(n) for n in shape.split(","))
    if n_band != len(bands) or height != width:
        raise CatalogueError(
            f"{root}: stamps of shape {shape} for bands {bands!r}; expected (band, y, x), square"
        )
    expected = n_band * height * width * np.dtype(dtype).itemsize
    wrong = pc.not_equal(pc.binary_length(table.column("stamp")), expected)
    if at := pc.indices_nonzero(wrong).to_pylist():
        raise CatalogueError(
            f"{root}: stamp of {table.column('name')[at[0]].as_py()!r} (and {len(at) - 1} more) is not "
            f"{shape} {dtype} = {expected} bytes; it is damaged, run the search again"
        )
    return dtype, bands, width
