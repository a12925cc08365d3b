"""Speed of stage 4c: stamps a second and core, with the share of each step, beside the straightforward way.

    python benchmarks/stamps.py [--full]

Writes ``results/stamps.json``. The bricks are painted by ``local_spark`` in the survey's layout (3600 x 3600, RICE,
100 x 100 tiles), 50 stamps each, half of them controls; a task is one brick, all its files counted. A rate is the
slope between a few and many tasks, so that start-up is apart; ``--full`` takes 20 and 80 tasks, the default 4 and
12. Everything is pinned to one core (two where it says so) and the files are in the page cache. The peer reads
``astropy`` sections stamp by stamp, renders each row by itself with the same renderer, and writes the same Parquet.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "injection")]

from injection_cases import experiment, target_table  # noqa: E402
from record import write_result  # noqa: E402

from darkhaloscope.dataset import commit_chunk, open_part, write_part  # noqa: E402
from darkhaloscope.experiment import Experiment  # noqa: E402
from darkhaloscope.injection import stamps as making  # noqa: E402
from darkhaloscope.injection import task as tasking  # noqa: E402
from darkhaloscope.injection.arcs import render_rows  # noqa: E402
from darkhaloscope.injection.layout import lay_out_injections  # noqa: E402
from darkhaloscope.injection.task import BrickRows, StampTask, stamps_of_bricks  # noqa: E402
from darkhaloscope.records import BANDS, MANIFEST, STAMP_SIZE  # noqa: E402
from darkhaloscope.schema import to_batch  # noqa: E402
from darkhaloscope.survey.bricks import brick_centre, parse_names  # noqa: E402
from darkhaloscope.survey.coadds import BrickReader, brick_files, file_path  # noqa: E402
from darkhaloscope.survey.wcs import TanWcs  # noqa: E402
from local_spark.mini_sky import paint_sky  # noqa: E402
from local_spark.sky_plan import PLAN, SkyConfig  # noqa: E402

PER_BRICK = 50
WRITTEN = {"float16 zstd": ("float16", "zstd"), "float32 gzip": ("float32", "gzip"),
           "float32 zstd": ("float32", "zstd"), "float16 none": ("float16", "none")}  # fmt: skip
STEPS = {  # of a task, by the function that does it
    "open": (BrickReader, "open"),
    "gain": (tasking, "gains_of"),
    "read": (making, "ground_at"),
    "psf": (making, "psf_at"),
    "render": (making, "render_rows"),
    "noise and measure": (making, "_stamp"),
    "columns": (making, "_batch"),
    "manifest": (tasking, "read_manifest_rows"),
    "all": (tasking, "write_part"),
}


def config(dtype: str, codec: str) -> Experiment:
    """The experiment that is timed."""
    base = experiment()
    return replace(base, stamps=replace(base.stamps, dtype=dtype, codec=codec))


def make_workspace(folder: Path, n_bricks: int) -> list[BrickRows]:
    """Paint bricks and write a manifest of `PER_BRICK` rows for each."""
    paint_sky(folder / "sky", SkyConfig(bricks=n_bricks), processes=1)
    rng, bricks = np.random.default_rng(3), []
    for number, plan in enumerate(PLAN[:n_bricks]):
        x, y = rng.uniform(80, 3520, (2, PER_BRICK))
        centre = (float(v[0]) for v in brick_centre(*parse_names([plan.name])))
        ra, dec = TanWcs.of_brick(*centre).pixel_to_sky(x, y)
        hosts = target_table(
            PER_BRICK, 1 + number * PER_BRICK, ra=ra, dec=dec, brickname=[plan.name] * PER_BRICK
        )
        rows = lay_out_injections(hosts, experiment())
        batch = to_batch(MANIFEST, {n: rows.column(n) for n in MANIFEST.names})
        part = write_part(str(folder / "manifest"), 0, number, [batch], MANIFEST.arrow())
        bricks.append(BrickRows(plan.name, batch.num_rows, (str(folder / "manifest" / part.key),)))
    return bricks


def tasks_of(bricks: list[BrickRows], n: int, output: str) -> list[StampTask]:
    """N tasks of one brick, the bricks over and over."""
    return [StampTask((bricks[i % len(bricks)],), output, 0) for i in range(n)]


def slope(run: Callable[[int], Any], few: int, many: int) -> dict[str, float]:
    """Stamps per second between `few` and `many` tasks, and the start-up that is left."""
    seconds = []
    for n in (few, many):
        started = time.perf_counter()
        run(n)
        seconds.append(time.perf_counter() - started)
    a_task = (seconds[1] - seconds[0]) / (many - few)
    return {"stamps_per_second": PER_BRICK / a_task, "start_up_seconds": seconds[0] - few * a_task}


def pure(bricks: list[BrickRows], sky: str, how: Experiment, output: str) -> Callable[[int], None]:
    """The tasks one after the other, without Spark, committed as a chunk."""

    def run(n: int) -> None:
        with tempfile.TemporaryDirectory(dir=output) as root:
            tasks = tasks_of(bricks, n, root)
            done = [stamps_of_bricks(task, i, 0, sky, how) for i, task in enumerate(tasks)]
            assert all(r.ok == PER_BRICK for r in done), [r.reasons for r in done]
            commit_chunk(root, 0, [r.part for r in done])

    return run


def shares(bricks: list[BrickRows], sky: str, how: Experiment, output: str, n: int) -> dict[str, float]:
    """Share of each step in the time of n tasks."""
    spent: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **more: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                spent[name] += time.perf_counter() - started

        return wrapper

    patches = [mock.patch.object(o, f, timed(name, getattr(o, f))) for name, (o, f) in STEPS.items()]
    for patch in patches:
        patch.start()
    pure(bricks, sky, how, output)(n)
    for patch in patches:
        patch.stop()
    total = spent.pop("all")
    return {**{k: v / total for k, v in spent.items()}, "write and the rest": 1 - sum(spent.values()) / total}


def brick_cost(bricks: list[BrickRows], sky: str, how: Experiment, output: str) -> float:
    """What a brick costs beside its stamps, in stamps: from tasks with all and with a few of its rows."""
    small, n, seconds = [replace(b, rows=5) for b in bricks], 2 * len(bricks), []
    for some in (bricks, small):
        started = time.perf_counter()
        for i, task in enumerate(tasks_of(some, n, output)):
            stamps_of_bricks(task, i, 0, sky, how)
        seconds.append((time.perf_counter() - started) / n)
    a_stamp = (seconds[0] - seconds[1]) / (PER_BRICK - 5)
    return seconds[1] / a_stamp - 5


def peer(bricks: list[BrickRows], sky: str, output: str) -> Callable[[int], None]:
    """The straightforward way: astropy sections and one rendered row a stamp."""
    from astropy.io import fits

    how, half = config("float32", "gzip"), STAMP_SIZE // 2

    def one_brick(brick: BrickRows, index: int) -> None:
        with open_part(brick.files[0]) as part:
            rows = part.read()
        planes = {(k, b): fits.open(f"{sky}/{file_path(brick.name, k, b)}") for k, b, _ in brick_files(BANDS)}
        wcs = TanWcs.from_header(planes["image", "r"][1].header, 3600, 3600)
        x, y = wcs.sky_to_pixel(rows["ra"].to_numpy(), rows["dec"].to_numpy())
        columns = {n: rows[n].to_numpy() for n in MANIFEST.names}
        cells = []
        for i in range(rows.num_rows):
            xa, ya = int(x[i] + 0.5) - half, int(y[i] + 0.5) - half
            window = np.s_[ya : ya + STAMP_SIZE, xa : xa + STAMP_SIZE]
            image, _invvar = ([planes[k, b][1].section[window] for b in BANDS] for k in ("image", "invvar"))
            planes["maskbits", ""][1].section[window]
            fwhm = [0.745 * planes["psfsize", b][1].section[window][half, half] for b in BANDS]
            row = {n: v[i : i + 1] for n, v in columns.items()} | {
                "host_x": np.array([x[i] - xa]), "host_y": np.array([y[i] - ya]),
                **{f"fwhm_{b}": np.array([f]) for b, f in zip(BANDS, fwhm, strict=True)}}  # fmt: skip
            cells.append((np.stack(image) + render_rows(row, how, None, None).image[0]).tobytes())
        batch = pa.RecordBatch.from_pydict({"task_id": columns["task_id"].tolist(), "stamp": cells})
        write_part(output, 1, index, [batch], batch.schema, codec="gzip")
        for plane in planes.values():
            plane.close()

    def run(n: int) -> None:
        for i in range(n):
            one_brick(bricks[i % len(bricks)], i)

    return run


def on_spark(
    bricks: list[BrickRows], sky: str, how: Experiment, output: str, cores: int
) -> Callable[[int], None]:
    """The tasks through Spark's executors, committed as a chunk."""
    from pyspark.sql import SparkSession

    from spark_jobs.session import find_java, run_tasks

    find_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false").getOrCreate()

    def make(index: int, attempt: int, task: StampTask) -> Any:
        return stamps_of_bricks(task, index, attempt, sky, how)

    def run(n: int) -> None:
        with tempfile.TemporaryDirectory(dir=output) as root:
            done = run_tasks(spark, tasks_of(bricks, n, root), make)
            commit_chunk(root, 0, [r.part for r in done])

    run(cores)
    return run


def spark_slope(folder: Path, bricks: list[BrickRows], cores: int, few: int, many: int) -> dict[str, float]:
    """As `slope`, in a process of its own that is pinned to the cores before its JVM starts."""
    facts = json.dumps([folder.as_posix(), [vars(b) for b in bricks], cores, few, many])
    command = [sys.executable, str(HERE / "stamps.py"), "--spark", facts]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_spark(facts: str) -> None:
    """What `spark_slope` starts."""
    folder, bricks, cores, few, many = json.loads(facts)
    pin(cores)
    rows = [BrickRows(**{**b, "files": tuple(b["files"])}) for b in bricks]
    run = on_spark(rows, f"{folder}/sky", config("float16", "zstd"), folder, cores)
    print(json.dumps(slope(run, few, many)))


def pin(cores: int) -> None:
    """Keep this process, and what it starts, on so many cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))


def measure(folder: Path, few: int, many: int, n_bricks: int) -> dict[str, Any]:
    """All figures."""
    bricks, sky, output = make_workspace(folder, n_bricks), str(folder / "sky"), str(folder)
    spark = {cores: spark_slope(folder, bricks, cores, few * cores, many * cores) for cores in (1, 2)}
    pin(1)
    rates: dict[str, Any] = {}
    for name, (dtype, codec) in WRITTEN.items():
        how = config(dtype, codec)
        run = pure(bricks, sky, how, output)
        run(len(bricks))
        rates[name] = slope(run, few, many)
        rates[name]["shares"] = shares(bricks, sky, how, output, few)
    best = rates["float16 zstd"]["stamps_per_second"]
    straight = slope(peer(bricks, sky, output), 1, 3)
    return {
        "one core, without Spark": rates,
        "Spark, float16 zstd, by cores": spark,
        "Spark costs on the slope": best / spark[1]["stamps_per_second"] - 1,
        "two cores over one": spark[2]["stamps_per_second"] / spark[1]["stamps_per_second"],
        "astropy sections, row by row, float32 gzip": straight,
        "ours is faster by": rates["float32 gzip"]["stamps_per_second"] / straight["stamps_per_second"],
        "a brick costs, in stamps": brick_cost(bricks, sky, config("float16", "zstd"), output),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--full", action="store_true", help="20 and 80 tasks on 4 bricks instead of 4 and 12 on 1"
    )
    parser.add_argument("--spark", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.spark:
        run_spark(options.spark)
        return
    few, many, n_bricks = (20, 80, 4) if options.full else (4, 12, 1)
    with tempfile.TemporaryDirectory(prefix="bench-stamps-") as folder:
        figures = measure(Path(folder), few, many, n_bricks)
    print(json.dumps(figures, indent=1))
    settings = {"tasks": [few, many], "bricks": n_bricks, "stamps_per_brick": PER_BRICK}
    target = write_result(
        "stamps", {"settings": settings, **figures}, ["fitsio", "astropy", "pyarrow", "pyspark"]
    )
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
