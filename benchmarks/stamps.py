"""Speed of stage 4c: stamps a second and core, with the share of each step, beside the straightforward way.

    python benchmarks/stamps.py [--full]

Writes ``results/stamps.json``, which ``python -m emr.scale_model`` reads. The bricks are painted by ``local_spark`` in
the survey's layout (3600 x 3600, RICE, 100 x 100 tiles), 50 stamps each, half of them controls; a task is one brick,
all its files counted. A rate is the slope between a few and many tasks, so that start-up is apart; ``--full`` takes 20
and 80 tasks, five times, the default 3 and 9, once. The ways take turns, and a figure is the median of its rounds.
Everything is pinned to one core (two where it says so) and the files are in the page cache. The peer reads ``fitsio``
sections stamp by stamp, renders each row by itself with the same renderer, and writes the same Parquet; it draws no
noise and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
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
from turns import Worker, pin, seconds_of, serve  # noqa: E402

from darkhaloscope.dataset import commit_chunk, open_part, write_part  # noqa: E402
from darkhaloscope.experiment import Experiment  # noqa: E402
from darkhaloscope.injection import stamps as making  # noqa: E402
from darkhaloscope.injection import task as tasking  # noqa: E402
from darkhaloscope.injection.arcs import render_rows  # noqa: E402
from darkhaloscope.injection.layout import lay_out_injections  # noqa: E402
from darkhaloscope.injection.task import BrickRows, StampTask, stamps_of_bricks  # noqa: E402
from darkhaloscope.records import BANDS, MANIFEST, STAMP_SIZE  # noqa: E402
from darkhaloscope.schema import to_batch  # noqa: E402
from darkhaloscope.simulated.sky_plan import PLAN, SkyConfig  # noqa: E402
from darkhaloscope.survey.bricks import brick_centre, parse_names  # noqa: E402
from darkhaloscope.survey.coadds import BrickReader, brick_files, file_path  # noqa: E402
from darkhaloscope.survey.wcs import TanWcs  # noqa: E402
from local_spark.mini_sky import paint_sky  # noqa: E402

PER_BRICK = 50
WRITTEN = {"float16_zstd": ("float16", "zstd"), "gzip_float32": ("float32", "gzip")}
DEFAULT = WRITTEN["gzip_float32"]
WAYS = {  # how it is written, or by Spark; cores
    "float16_zstd": ("float16_zstd", 1),
    "gzip_float32": ("gzip_float32", 1),
    "spark_float16_zstd": ("spark", 1),
    "spark_float16_zstd_2_cores": ("spark", 2),
}
STEPS = {  # of a task, by the function that does it
    "open": (BrickReader, "open"),
    "gain": (tasking, "gains_of"),
    "read": (making, "grounds_at"),
    "psf": (making, "psfs_at"),
    "render": (making, "render_rows"),
    "noise and measure": (making, "stamp_row"),
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


def slope(seconds: list[np.ndarray], few: int, many: int) -> dict[str, float]:
    """Stamps per second, and per second of the core, of which a run of more tasks makes more."""
    rate = PER_BRICK * (many - few) / (seconds[1] - seconds[0])
    return {"stamps_per_s": float(rate[0]), "stamps_per_cpu_s": float(rate[1])}


def pure(bricks: list[BrickRows], sky: str, how: Experiment, output: str) -> Callable[[int], None]:
    """The tasks one after the other, without Spark, committed as a chunk."""

    def run(n: int) -> None:
        with tempfile.TemporaryDirectory(dir=output) as root:
            tasks = tasks_of(bricks, n, root)
            done = [stamps_of_bricks(task, i, 0, sky, how) for i, task in enumerate(tasks)]
            assert all(r.ok == sum(b.rows for b in t.bricks) for r, t in zip(done, tasks, strict=True))
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


def costs(bricks: list[BrickRows], sky: str, output: str, n: int) -> dict[str, float]:
    """Core seconds and bytes of a brick and of a further stamp, written as by default: from tasks of 50 and 5 rows."""
    how, small, rows = config(*DEFAULT), [replace(b, rows=5) for b in bricks], PER_BRICK - 5
    whole, part = (float(seconds_of(pure(some, sky, how, output), n)[1]) / n for some in (bricks, small))
    files = [Path(sky, file_path(b.name, kind, band)) for b in bricks for kind, band, _ in brick_files(BANDS)]
    made = stamps_of_bricks(tasks_of(bricks, 1, output)[0], 0, 0, sky, how).part
    a_stamp = (whole - part) / rows
    return {
        "per_stamp_s": a_stamp,
        "per_brick_s": part - 5 * a_stamp,
        "brick_in_stamps": part / a_stamp - 5,
        "bytes_per_stamp": made.bytes / made.rows,
        "bytes_per_brick": sum(f.stat().st_size for f in files) / len(bricks),
    }


def peer(bricks: list[BrickRows], sky: str, output: str) -> Callable[[int], None]:
    """The straightforward way: fitsio sections and one rendered row a stamp."""
    import fitsio

    how, half = config(*DEFAULT), STAMP_SIZE // 2

    def one_brick(brick: BrickRows, index: int) -> None:
        with open_part(brick.files[0]) as part:
            rows = part.read()
        files = {
            (k, b): fitsio.FITS(f"{sky}/{file_path(brick.name, k, b)}") for k, b, _ in brick_files(BANDS)
        }
        wcs = TanWcs.from_header(files["image", "r"][1].read_header(), 3600, 3600)
        x, y = wcs.sky_to_pixel(rows["ra"].to_numpy(), rows["dec"].to_numpy())
        columns, cells = {n: rows[n].to_numpy() for n in MANIFEST.names}, []
        for i in range(rows.num_rows):
            xa, ya = int(x[i] + 0.5) - half, int(y[i] + 0.5) - half
            window = np.s_[ya : ya + STAMP_SIZE, xa : xa + STAMP_SIZE]
            middle = np.s_[ya + half : ya + half + 1, xa + half : xa + half + 1]
            image, _ = ([files[k, b][1][window] for b in BANDS] for k in ("image", "invvar"))
            files["maskbits", ""][1][window]
            row = {n: v[i : i + 1] for n, v in columns.items()}
            row |= {"host_x": np.array([x[i] - xa]), "host_y": np.array([y[i] - ya])}
            row |= {f"fwhm_{b}": 0.745 * files["psfsize", b][1][middle].ravel() for b in BANDS}
            cells.append((np.stack(image) + render_rows(row, how, None, None).image[0]).tobytes())
        batch = pa.RecordBatch.from_pydict({"task_id": columns["task_id"].tolist(), "stamp": cells})
        write_part(output, 1, index, [batch], batch.schema, codec="gzip")
        for file in files.values():
            file.close()

    def run(n: int) -> None:
        for i in range(n):
            one_brick(bricks[i % len(bricks)], i)

    return run


def on_spark(cores: int) -> Callable[..., Callable[[int], None]]:
    """As `pure`, the tasks through Spark's executors."""
    from pyspark.sql import SparkSession

    from spark_jobs.session import find_java
    from spark_jobs.tasks import run_tasks

    find_java()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    quiet = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    spark = SparkSession.builder.master(f"local[{cores}]").config(map=quiet).getOrCreate()

    def spread(bricks: list[BrickRows], sky: str, how: Experiment, output: str) -> Callable[[int], None]:
        def make(index: int, attempt: int, task: StampTask) -> Any:
            return stamps_of_bricks(task, index, attempt, sky, how)

        def run(n: int) -> None:
            with tempfile.TemporaryDirectory(dir=output) as root:
                done = run_tasks(spark, tasks_of(bricks, n, root), make)
                commit_chunk(root, 0, [r.part for r in done])

        return run

    return spread


def run_worker(facts: str) -> None:
    """What a `Worker` starts."""
    folder, bricks, kind, cores = json.loads(facts)
    pin(cores)
    rows, sky = [BrickRows(**{**b, "files": tuple(b["files"])}) for b in bricks], f"{folder}/sky"
    way, how = (on_spark(cores), "float16_zstd") if kind == "spark" else (pure, kind)
    run = way(rows, sky, config(*WRITTEN[how]), folder)
    run(cores)
    serve(run)


def rates(folder: Path, bricks: list[BrickRows], few: int, many: int, rounds: int) -> dict[str, Any]:
    """Rates of all ways, the median of rounds in which they take turns, and the ratios of those, round by round."""
    facts = [folder.as_posix(), [vars(b) for b in bricks]]
    workers = {name: Worker(__file__, [*facts, *way]) for name, way in WAYS.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, (_, cores) in WAYS.items():
            tasks = few * cores, many * cores
            found[name].append(slope([workers[name].seconds(n) for n in tasks], *tasks))
    for worker in workers.values():
        worker.stop()
    each = {name: [f["stamps_per_s"] for f in of_way] for name, of_way in found.items()}
    one = each["spark_float16_zstd"]
    return {
        "stamps_per_s": {name: float(np.median(rates)) for name, rates in each.items()},
        "stamps_per_s_of_each_round": each,
        "start_up_s": workers["spark_float16_zstd"].start_up_s,
        "spark_overhead_on_slope": float(np.median(np.divide(each["float16_zstd"], one))) - 1,
        "two_cores_over_one": float(np.median(np.divide(each["spark_float16_zstd_2_cores"], one))),
    }


def measure(folder: Path, few: int, many: int, n_bricks: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    bricks, sky, output = make_workspace(folder, n_bricks), str(folder / "sky"), str(folder)
    figures = rates(folder, bricks, few, many, rounds)
    pin(1)
    pure(bricks, sky, config(*DEFAULT), output)(len(bricks))
    straight_way, default = peer(bricks, sky, output), pure(bricks, sky, config(*DEFAULT), output)
    straight, ours = (
        slope([seconds_of(run, n) for n in (1, 3)], 1, 3)["stamps_per_cpu_s"]
        for run in (straight_way, default)
    )
    return {
        **figures,
        "shares": {n: shares(bricks, sky, config(*w), output, few) for n, w in WRITTEN.items()},
        **costs(bricks, sky, output, few),
        "peer_fitsio_sections_stamps_per_cpu_s": straight,
        "ours_over_peer_gzip_float32": ours / straight,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--full",
        action="store_true",
        help="20 and 80 tasks on 2 bricks, five rounds, instead of 3 and 9 on 1, once",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker)
        return
    few, many, n_bricks, rounds = (20, 80, 2, 5) if options.full else (3, 9, 1, 1)
    with tempfile.TemporaryDirectory(prefix="bench-stamps-") as folder:
        figures = measure(Path(folder), few, many, n_bricks, rounds)
    print(json.dumps(figures, indent=1))
    settings = {"tasks": [few, many], "rounds": rounds, "bricks": n_bricks, "stamps_per_brick": PER_BRICK}
    target = write_result("stamps", {"settings": settings, **figures}, ["fitsio", "pyarrow", "pyspark"])
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
