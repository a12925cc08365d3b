"""Validation of the pack: classes and size of every shard, and that no order of bricks is left."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes

from darkhaloscope.dataset import read_table
from darkhaloscope.records import SHARDS
from darkhaloscope.report.charts import BLUE, GREY, ORANGE, draw
from darkhaloscope.report.page import Chart, Page, Section, Table, percent
from darkhaloscope.schema import check_schema
from darkhaloscope.stage import read_record
from darkhaloscope.storage import join

_HEADER = ("shard", "stamps", "lenses", "others", "lenses, share", "MB", "bricks", "same-brick neighbours", "by chance",
           "sha256")  # fmt: skip
_SIGMA = 5.0  # beyond which a count is not what a shuffle gives

Rows = list[dict[str, Any]]


def pack_page(root: str) -> Page:
    """Return the page of packed shards.

    Args:
        root: URL of the pack stage's output.

    Raises:
        DatasetError: the stage has not finished there.
        SchemaError: the index lacks a column.
    """
    index = read_table(join(root, "index"))
    check_schema(SHARDS, index.schema, join(root, "index"))
    rows, record = index.to_pylist(), read_record(root) or {}
    counts = record.get("counts", {})
    facts = {"output": root, "hash": record.get("hash"), "inputs": record.get("inputs")}
    facts |= {name: counts.get(name) for name in ("rows", "left_out_failed", "left_out_pixels")}
    splits = list(dict.fromkeys(r["split"] for r in rows))
    return Page(
        "Training shards",
        f"{sum(r['rows'] for r in rows):,} stamps in {len(rows)} shards, shuffled over all bricks",
        facts,
        [_split_section([r for r in rows if r["split"] == split], split) for split in splits],
    )


def _split_section(rows: Rows, split: str) -> Section:
    n, lenses = sum(r["rows"] for r in rows), sum(r["lenses"] for r in rows)
    cells = [_cells(row) for row in rows]
    said = f"{n:,} stamps in {len(rows)} shards; lenses {percent(lenses / n if n else None)}"
    picture = draw(lambda share, size: _paint(share, size, rows, lenses / max(n, 1)), 4.4, (1, 1))
    what = f"Share of lenses and size of each of {len(rows)} shards of {split}, {n:,} stamps"
    return Section(
        split, said, faults(rows), [Table(_HEADER, cells, f"Shards of {split}")], [Chart(picture, what)]
    )


def _cells(row: dict[str, Any]) -> list[Any]:
    share = percent(row["lenses"] / row["rows"] if row["rows"] else None)
    order = [row[n] for n in ("bricks", "same_brick_neighbours", "same_brick_by_chance")]
    return [*(row[n] for n in ("shard", "rows", "lenses", "others")), share, row["bytes"] / 1e6, *order,
            row["sha256"][:12]]  # fmt: skip


def faults(rows: Rows) -> list[str]:
    """Return what a shuffle would not have left so, of the shards of one split.

    A count of same-brick neighbours, and of lenses, is about Poisson and binomial in a random order.
    """
    n, lenses = sum(r["rows"] for r in rows), sum(r["lenses"] for r in rows)
    found = [] if n else ["no stamps"]
    for row in rows:
        chance = row["same_brick_by_chance"]
        # A brick that is all of a shard follows itself always: chance and count are then the same.
        if row["same_brick_neighbours"] > chance + _SIGMA * math.sqrt(chance) + _SIGMA:
            found.append(
                f"shard {row['shard']}: {row['same_brick_neighbours']} stamps follow one of their own brick, "
                f"{chance:.0f} would by chance: bricks were not mixed"
            )
        expected = row["rows"] * lenses / max(n, 1)
        if abs(row["lenses"] - expected) > _SIGMA * math.sqrt(expected * (1 - lenses / max(n, 1))) + 1:
            found.append(
                f"shard {row['shard']}: {row['lenses']} lenses, {expected:.0f} expected: classes are uneven"
            )
    return found


def _paint(share: Axes, size: Axes, rows: Rows, mean: float) -> None:
    numbers = [r["shard"] for r in rows]
    share.plot(
        numbers, [r["lenses"] / r["rows"] if r["rows"] else math.nan for r in rows], "o", ms=4, color=BLUE
    )
    share.axhline(mean, color=ORANGE, lw=1, label="whole split")
    share.set(ylim=(0, 1), ylabel="share of lenses")
    share.legend()
    size.bar(numbers, [r["bytes"] / 1e6 for r in rows], color=GREY)
    size.set(xlabel="shard", ylabel="MB")
