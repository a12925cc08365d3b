"""Where the stamps that are scored come from: files of a committed dataset, or positions on the sky.

A source is divided into pieces; each becomes one committed file of scores, so that a run that was cut off goes on with
the next piece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import committed_chunks, committed_files, content_hash, open_part
from darkhaloscope.draws import digest
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import STAMPS
from darkhaloscope.results import SCORES
from darkhaloscope.schema import check_schema
from darkhaloscope.storage import join
from darkhaloscope.survey.bricks import BrickTable
from darkhaloscope.survey.positions import Positions, mark_duplicates

NARROW = [name for name in SCORES.names if name in STAMPS.names]
"""The stamps' columns that scores carry."""

_BRICK_DEG = 0.25  # height of a brick
_PIECE = 1_000  # positions of one piece: 49 MB of float32 stamps


class Source(Protocol):
    """Stamps to score, in pieces."""

    hash: str  # of what is scored

    def __len__(self) -> int:
        """Return the number of pieces."""

    def name(self, number: int) -> str:
        """Return what messages call a piece."""

    def tables(self, number: int, batch_size: int, facts: dict[str, Any]) -> Iterator[pa.Table]:
        """Yield the rows of a piece that have a stamp; tell `facts`, once read, `without_stamp` and why."""


@dataclass(frozen=True)
class StampFiles:
    """Committed stamps: packed shards, or stage 4c's output. Piece = file.

    Attributes:
        files: URLs.
        hash: content hash of the dataset.
        split: region_split of the rows that are taken; "": all.
    """

    files: Sequence[str]
    hash: str
    split: str

    def __len__(self) -> int:
        return len(self.files)

    def name(self, number: int) -> str:
        """See `Source`."""
        return self.files[number]

    def tables(self, number: int, batch_size: int, facts: dict[str, Any]) -> Iterator[pa.Table]:
        """See `Source`."""
        url, columns = self.files[number], [*NARROW, "stamp"]
        facts |= {"source": Path(url).name, "without_stamp": 0}
        with open_part(url) as part:
            check_schema(STAMPS, part.schema_arrow, url, columns)
            for rows in part.iter_batches(batch_size, columns=columns):
                table = pa.Table.from_batches([rows.replace_schema_metadata(part.schema_arrow.metadata)])
                if self.split:
                    table = table.filter(pc.equal(table.column("region_split"), self.split))
                kept = table.filter(pc.equal(table.column("cutout_ok"), 1))
                facts["without_stamp"] += table.num_rows - kept.num_rows
                if kept.num_rows:
                    yield kept


def stamp_files(data: str, split: str) -> StampFiles:
    """Return the split of packed shards, or of stage 4c's output; "all": every row of the latter.

    Raises:
        DatasetError: nothing is committed there.
    """
    packed = join(data, f"split={split}")
    if committed_chunks(packed):
        return StampFiles(committed_files(packed), content_hash(packed), "")
    return StampFiles(committed_files(data), content_hash(data), "" if split == "all" else split)


@dataclass(frozen=True)
class StampsAtPositions:
    """Stamps cut at positions, as stages 4a to 4c would cut them; made by `stamps_at_positions`.

    Attributes:
        positions: those of one place marked.
        pieces: rows of each piece.
        bricks: the survey's brick table.
        coadds: URL with coadd/ below it.
        experiment: the checkpoint's own.
        cache: where to keep copies of bricks; "": nowhere.
    """

    positions: Positions
    pieces: Sequence[np.ndarray]
    bricks: BrickTable
    coadds: str
    experiment: Experiment
    cache: str

    @property
    def hash(self) -> str:
        """Hash of the positions and of how stamps are cut."""
        c = self.positions.columns
        return digest(
            "positions", self.experiment.digest(), *(c[k].tolist() for k in ("ra", "dec", "label"))
        )[:16]

    def __len__(self) -> int:
        return len(self.pieces)

    def name(self, number: int) -> str:
        """See `Source`."""
        return f"{self.positions.source}, piece {number} of {len(self)}"

    def tables(self, number: int, batch_size: int, facts: dict[str, Any]) -> Iterator[pa.Table]:
        """See `Source`; `facts` counts the refused positions by reason and lists them."""
        # Here: a GPU host, which scores shards, has none of the survey's tools.
        from darkhaloscope.injection.at_positions import stamps_at

        rows, p = self.pieces[number], self.positions
        piece = Positions({k: v[rows] for k, v in p.columns.items()}, p.fault[rows], p.source)
        made = stamps_at(piece, self.bricks, self.coadds, self.experiment, self.cache)
        refused = np.flatnonzero(made.refused != "")
        facts |= {
            "source": p.source,
            "without_stamp": len(refused),
            "reasons": dict(Counter(made.refused[refused].tolist())),
            "refused": [{"row": int(rows[i]), "reason": made.refused[i]} for i in refused],
        }
        for start in range(0, made.stamps.num_rows, batch_size):
            yield made.stamps.slice(start, batch_size)


def stamps_at_positions(
    positions: Positions, bricks: BrickTable, coadds: str, experiment: Experiment, cache: str = ""
) -> StampsAtPositions:
    """Divide positions into pieces of neighbours, so that a brick is read once; arguments as the attributes."""
    marked = mark_duplicates(positions)
    ra, dec = marked.columns["ra"], marked.columns["dec"]
    order = np.lexsort((ra, np.floor(dec / _BRICK_DEG)))
    pieces = np.array_split(order, max(-(-len(order) // _PIECE), 1))
    return StampsAtPositions(marked, pieces, bricks, coadds, experiment, cache)
