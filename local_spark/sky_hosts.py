"""Galaxies of the simulated sky as ready-cut hosts, for pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from darkhaloscope.records import TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Splits, Targets
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.catalogue import read_catalogue
from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.targets import select_targets
from local_spark.mini_sky import BRICK_TABLE, paint_sky
from local_spark.real_hosts import StampBrick, sky_sigma

SIDE = 91  # pixels, as the real stamps


def sky_stamps(sky: str, count: int) -> tuple[list[StampBrick], pa.RecordBatch]:
    """Return the brightest targets of the simulated sky as bricks of their own, and their target rows.

    Args:
        sky: folder of the sky; painted where it is not there.
        count: galaxies wanted.
    """
    paint_sky(sky, progress=True)
    bricks = read_brick_table(f"{sky}/{BRICK_TABLE}")
    found: list[pa.RecordBatch] = []
    for sweep in sorted(Path(sky, "sweep", "10.1").glob("sweep-*.fits")):
        columns = select_targets(
            read_catalogue(str(sweep)), Targets(), Splits(guard_arcsec=0), 0, bricks
        ).columns
        found.append(to_batch(TARGETS, columns))
    targets = pa.Table.from_batches(found).sort_by("mag_z").slice(0, count)
    made = [_cut(sky, row, f"{i:04d}p000") for i, row in enumerate(targets.to_pylist())]
    names = pa.array([brick.brickname for brick in made])
    targets = targets.set_column(TARGETS.names.index("brickname"), "brickname", names)
    return made, targets.combine_chunks().to_batches()[0]


def _cut(sky: str, row: dict[str, object], name: str) -> StampBrick:
    with BrickReader(sky, str(row["brickname"])) as brick:
        x, y = (float(v[0]) for v in brick.sky_to_pixel(np.array([row["ra"]]), np.array([row["dec"]])))
        x0, y0 = round(x) - SIDE // 2, round(y) - SIDE // 2
        image = brick.cut(x0, y0, SIDE).image
    return StampBrick(name, image, sky_sigma(image), (x - x0, y - y0))
