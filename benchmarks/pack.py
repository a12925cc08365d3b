"""The pack end to end on one core, beside a plain copy of the same bytes and Spark's own shuffle of the pixels.

    python benchmarks/pack.py [--rows 6000] [--bound-mb 1200]

Writes ``results/pack.json``. Every figure is MB of float32 pixels read a second, on one core (the process and its
children are pinned to it), from gzip float32 stamps as stage 4c writes by default and from zstd float16. The stage runs
through Spark with local[1]; its rate is the slope between two sizes, so that start-up stands apart. The peers in the
same run: pyarrow reads the same files and writes float16 zstd in their own order (a copy, no shuffle), and Spark
shuffles the pixel rows as the stage did before. Memory is the largest resident size of a Python worker.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import pyarrow as pa  # noqa: E402
from packing_cases import write_stamps  # noqa: E402
from record import write_result  # noqa: E402

from darkhaloscope.dataset import committed_files, committed_parts, open_part, write_part  # noqa: E402
from darkhaloscope.experiment import Experiment, from_dict  # noqa: E402
from darkhaloscope.pack.packing import Layout, packed_schema, repack, shuffle_keys  # noqa: E402
from darkhaloscope.pack.shuffle import _good_rows, count  # noqa: E402
from darkhaloscope.stage import place  # noqa: E402
from darkhaloscope.writing import replace_file  # noqa: E402
from spark_jobs import pack  # noqa: E402
from spark_jobs.inputs import spark_schema  # noqa: E402
from spark_jobs.session import spark_session  # noqa: E402

FLOAT32 = Layout("float32", 64)
FLOAT16 = Layout("float16", 64)
MB_A_ROW = 3 * 64 * 64 * 4 / 1e6
PART_ROWS = 1_000
KINDS = {"gzip float32": (FLOAT32, "gzip"), "zstd float16": (FLOAT16, "zstd")}


def experiment_of(name: str) -> Experiment:
    """An experiment whose stamps are the workspace `name`."""
    return from_dict({"name": name, "variant": "bench", "experiment_id": name}, "bench")


def make_input(root: str, experiment: Experiment, rows: int, kind: str) -> str:
    """Write a table of stamps as stage 4c would; return its URL."""
    source = place(root, "phase4c", experiment)
    write_stamps(source, [PART_ROWS] * (rows // PART_ROWS), *KINDS[kind])
    replace_file(f"{source}/_stage_config.json", b'{"hash": "x", "state": "done"}')
    return source


def run_stage(spark, root: str, experiment: Experiment) -> float:
    """Pack; return seconds."""
    args = argparse.Namespace(output_s3=root, test_limit=None, partitions=4, overwrite=False, take_over=False)
    shutil.rmtree(place(root, "pack", experiment), ignore_errors=True)
    start = time.perf_counter()
    pack.run(spark, experiment, args)
    return time.perf_counter() - start


def copy(source: str, target: str) -> float:
    """The peer that does least: read, recode, write, in the order of the files; return seconds."""
    start = time.perf_counter()
    for index, url in enumerate(committed_files(source)):
        batches = (repack(b, layout, FLOAT16)[0] for b, layout in _good_rows(count(url, None).pieces, None))
        write_part(target, 0, index, batches, packed_schema(FLOAT16), rows_per_group=256)
    return time.perf_counter() - start


def spark_shuffle(spark, source: str, target: str) -> float:
    """The stage as it was: Spark repartitions and sorts the pixel rows; return seconds."""
    schema = packed_schema(FLOAT16)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for url in (u for batch in batches for u in batch.column(0).to_pylist()):
            with open_part(url) as part:
                for rows in part.iter_batches(500):
                    packed, _ = repack(rows, FLOAT32, FLOAT16)
                    keys = pa.array(shuffle_keys(rows.column("task_id").to_pylist(), 0))
                    yield pa.RecordBatch.from_arrays(
                        [*packed.columns, keys], names=[*packed.schema.names, "_key"]
                    )

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        named = (pa.Table.from_batches([b]).select(schema.names).cast(schema) for b in batches)
        part = write_part(
            target, 0, 0, (b for t in named for b in t.to_batches()), schema, rows_per_group=256
        )
        yield pa.RecordBatch.from_pydict({"rows": [part.rows]})

    urls = spark.createDataFrame(
        spark.sparkContext.parallelize([(u,) for u in committed_files(source)], 4), "u string"
    )
    start = time.perf_counter()
    placed = urls.mapInArrow(read, spark_schema(schema.append(pa.field("_key", pa.int64()))))
    placed.repartition(2, "_key").sortWithinPartitions("_key").mapInArrow(write, "rows long").collect()
    return time.perf_counter() - start


class WorkerMemory:
    """Watches the largest resident size that any Python worker of this process's Spark ever had, in MB."""

    def __init__(self) -> None:
        self.peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> WorkerMemory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            for process in descendants(os.getpid()):
                self.peak = max(self.peak, peak_mb(process))


def descendants(process: int) -> list[int]:
    """Python workers below a process."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def peak_mb(process: int) -> float:
    """Largest resident size of a Python process; 0 for others and for one that has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    if not status.startswith("Name:\tpython"):
        return 0.0
    line = next((one for one in status.splitlines() if one.startswith("VmHWM")), "VmHWM: 0")
    return int(line.split()[1]) / 1e3


def measured(what: str, rows: int, seconds: float) -> dict[str, float]:
    """Say and return a rate."""
    rate = rows * MB_A_ROW / seconds
    print(f"{what:42s} {rate:7.1f} MB/s of float32, {rows / seconds:8.0f} stamps/s")
    return {"mb_float32_per_second": rate, "stamps_per_second": rows / seconds, "seconds": seconds}


def best(action: Callable[[], float], rounds: int) -> float:
    """The shortest of some runs: what the code takes where the machine does nothing else."""
    return min(action() for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, default=6_000, help="of the larger input; the smaller has a third"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of which the quickest counts")
    parser.add_argument("--bound-mb", type=float, default=1_200, help="fail when a Python worker needs more")
    options = parser.parse_args()
    os.environ["SPARK_CONF_DIR"] = str(HERE)  # no defaults but ours
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[1] --driver-memory 2g pyspark-shell"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    pa.set_cpu_count(1)
    figures: dict = {"settings": vars(options)}
    root = tempfile.mkdtemp(prefix="pack-bench-")
    try:
        spark = spark_session("benchmark of the pack")
        for kind in KINDS:
            figures[kind] = measure(spark, root, kind, options)
    finally:
        shutil.rmtree(root)
    print("wrote", write_result("pack", figures, packages=["pyspark", "pyarrow"]))


def measure(spark, root: str, kind: str, options: argparse.Namespace) -> dict:
    """Every figure of one kind of input."""
    small, large = options.rows // 3 // PART_ROWS * PART_ROWS, options.rows // PART_ROWS * PART_ROWS
    name = kind.replace(" ", "-")
    experiments = {rows: experiment_of(f"{name}-{rows}") for rows in (small, large)}
    sources = {rows: make_input(root, experiments[rows], rows, kind) for rows in (small, large)}
    run_stage(spark, root, experiments[small])  # workers, imports
    with WorkerMemory() as memory:
        seconds = {
            r: best(lambda e=e: run_stage(spark, root, e), options.rounds) for r, e in experiments.items()
        }
    found = {
        "input_mb": sum(p.bytes for p in committed_parts(sources[large])) / 1e6,
        "pack, whole": measured(f"{kind}: pack, {large} stamps with its start-up", large, seconds[large]),
        "pack, slope": measured(f"{kind}: pack, slope", large - small, seconds[large] - seconds[small]),
        "copy with pyarrow": measured(
            f"{kind}: copy, no shuffle",
            large,
            best(lambda: copy(sources[large], f"{root}/copy"), options.rounds),
        ),
        "worker_peak_mb": memory.peak,
    }
    if kind == "gzip float32":
        took = spark_shuffle(spark, sources[large], f"{root}/shuffle")
        found["spark shuffle"] = measured(f"{kind}: Spark's shuffle of pixels", large, took)
    print(f"{kind}: largest Python worker {memory.peak:.0f} MB")
    if memory.peak > options.bound_mb:
        raise SystemExit(f"a Python worker needed {memory.peak:.0f} MB, more than {options.bound_mb:.0f}")
    return found


if __name__ == "__main__":
    main()
