"""Mined negatives: a list of galaxies that earlier models took for lenses, found again among the stamps.

The list is a table of `evaluation.mine`, or a Parquet file with the seed's ra_key and dec_key (degrees,
rounded to six decimals). A stamp is one of them if its task_id or host_id is on the list, or if it lies
within half an arcsecond of a position on it, and if it is a negative: an arc added to the same galaxy makes
a positive, which stays one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import committed_chunks, open_part, read_table
from darkhaloscope.sky import nearest
from training.selection import DataError

MATCH_ARCSEC = 0.5
IDS = ("task_id", "host_id")
COLUMNS = (*IDS, "ra", "dec", "label")
"""Columns of the stamps that matching reads."""
_POSITIONS = (("ra_key", "dec_key"), ("ra", "dec"))


@dataclass(frozen=True)
class HardNegatives:
    """A list of mined negatives.

    Attributes:
        where: its URL.
        table: those of task_id, host_id, ra, dec, region_split that it has, one row an entry.
    """

    where: str
    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    def values(self, name: str) -> pa.ChunkedArray | None:
        """Return a column, None where the list has none."""
        return self.table.column(name) if name in self.table.column_names else None


@dataclass
class Matches:
    """What matching found, file by file.

    Attributes:
        entry: (entry,) bool: found as a negative that takes part.
        rows: number of stamps found.
        positives: stamps found that are positives.
        left_out: negatives found that the selection leaves out.
        nearest_arcsec: distance of the nearest stamp to any entry.
    """

    entry: np.ndarray
    rows: int = 0
    positives: int = 0
    left_out: int = 0
    nearest_arcsec: float = field(default=np.inf)

    def add(self, other: Matches) -> None:
        """Count another file's."""
        self.entry |= other.entry
        self.rows += other.rows
        self.positives += other.positives
        self.left_out += other.left_out
        self.nearest_arcsec = min(self.nearest_arcsec, other.nearest_arcsec)


def read_hard_negatives(url: str) -> HardNegatives:
    """Read a list: a committed dataset, or one Parquet file.

    Raises:
        DatasetError: it is not there or damaged.
        DataError: it is empty, or has neither an id nor a position.
    """
    if committed_chunks(url):
        table = read_table(url)
    else:
        with open_part(url) as part:
            table = part.read()
    names = table.column_names
    pair = next((p for p in _POSITIONS if set(p) <= set(names)), None)
    found = {name: table.column(name) for name in (*IDS, "region_split") if name in names}
    if pair:
        found |= {"ra": table.column(pair[0]), "dec": table.column(pair[1])}
    if not table.num_rows or not (pair or set(IDS) & set(names)):
        raise DataError(
            f"{url}: {table.num_rows} rows with the columns {names}; a list of hard negatives needs rows, and "
            "task_id, host_id, ra_key and dec_key, or ra and dec: python -m evaluation.mine writes one"
        )
    return HardNegatives(url, pa.table(found).group_by(list(found)).aggregate([]))


def match(hard: HardNegatives, table: pa.Table, keep: np.ndarray) -> tuple[np.ndarray, Matches]:
    """Find mined negatives among stamps.

    Args:
        hard: the list.
        table: stamps, with `COLUMNS`.
        keep: (row,) bool: those that take part.

    Returns:
        (row,) bool: stamps that take part and are on the list; and the counts.
    """
    entry = np.full(table.num_rows, -1)
    for name in IDS:
        if (values := hard.values(name)) is not None:
            by_id = pc.index_in(table.column(name), values.combine_chunks()).fill_null(-1).to_numpy()
            entry = np.where(entry < 0, by_id, entry)
    closest = np.inf
    if hard.values("ra") is not None and table.num_rows:
        ra, dec = (table.column(c).to_numpy() for c in ("ra", "dec"))
        index, arcsec = nearest(ra, dec, *(hard.table.column(c).to_numpy() for c in ("ra", "dec")))
        entry = np.where((entry < 0) & (arcsec <= MATCH_ARCSEC), index, entry)
        closest = float(arcsec.min())
    found, negative = entry >= 0, table.column("label").to_numpy() == 0
    marked = found & negative & keep
    hit = np.zeros(len(hard), bool)
    hit[entry[marked]] = True
    left_out = int((found & negative & ~keep).sum())
    return marked, Matches(hit, int(marked.sum()), int((found & ~negative).sum()), left_out, closest)


def check_matches(hard: HardNegatives, matches: Matches, where: str) -> None:
    """Refuse a list of which nothing was found, saying why.

    Raises:
        DataError: no stamp that takes part is on the list.
    """
    if matches.rows:
        return
    reasons = []
    if matches.positives:
        reasons.append(
            f"{matches.positives} stamps of these galaxies are positives (arcs were added to them)"
        )
    if matches.left_out:
        reasons.append(f"{matches.left_out} are left out by split or bounds")
    if not reasons:
        near = matches.nearest_arcsec
        reasons.append(
            f"the nearest stamp is {near:,.1f} arcsec away"
            if np.isfinite(near)
            else "no id on it is known here"
        )
    if (splits := hard.values("region_split")) is not None:
        reasons.append(f"the list is of region_split {', '.join(sorted(set(splits.to_pylist())))}")
    raise DataError(
        f"{hard.where}: none of {len(hard):,} hard negatives is among the negatives of {where}: "
        f"{'; '.join(reasons)}; mine from scores of the training split of this dataset, or leave --hard_neg_path out"
    )
