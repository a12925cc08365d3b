"""Speed and memory of the loader beside row-by-row loaders: same files, same run, interleaved.

    python benchmarks/loader.py [--rounds 5] [--rows 4096] [--core 0]

Writes ``results/loader.json``. One core (the process pins itself to it), one thread, no worker process for the
rates: stamps/s from committed files to tensors that a network can take, shuffled, task_ids and sky levels with
them. Files are read once before, so that they are in the page cache. A stamp is 3 x 64 x 64 noise with a galaxy.
Peers read the same columns of the same files: rows by ``to_pylist`` and ``np.frombuffer``, and a map-style data set
(one row an index, rows from a cached row group) in torch's own DataLoader with its collation. Rates
are given by the clock and by the time the core gave to this process, which other programs on the machine touch less;
targets and ratios go by the latter. Memory is that of one worker process over ten epochs, of float32, which takes most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "training")]

from record import summary, write_result  # noqa: E402
from tiny_shards import make_columns, write_shards  # noqa: E402

from darkhaloscope.dataset import committed_files, open_part  # noqa: E402
from darkhaloscope.records import STAMP_SIZE  # noqa: E402
from training.data import StampStream, batch_columns, make_loader  # noqa: E402
from training.preprocess import Preprocessing  # noqa: E402
from training.shards import Shards, open_split  # noqa: E402

PREPROCESSING = Preprocessing()
BATCH = 256
EPOCHS = 10
FAILED = 0.02  # share of rows without a stamp in stage 4c's output
DATASETS = {  # name: (dtype, codec, packed, target in stamps/s)
    "float16 uncompressed": ("float16", "none", True, 30_000),
    "float16 zstd": ("float16", "zstd", True, 15_000),
    "float32 gzip, stage 4c's output": ("float32", "gzip", False, 4_000),
}


def make_dataset(root: Path, rows: int, dtype: str, codec: str, packed: bool) -> str:
    """Write and commit four files; stage 4c's output has every split and rows that failed."""
    files = []
    for i in range(4):
        columns = make_columns(rows // 4, i, dtype, size=STAMP_SIZE)
        if not packed:
            failed = np.random.default_rng(i).random(rows // 4) < FAILED
            columns["cutout_ok"] = (~failed).astype(int)
            for name in ("stamp", *PREPROCESSING.columns):
                columns[name] = [None if f else v for f, v in zip(failed, columns[name], strict=True)]
        files.append(columns)
    place = root / "split=train" if packed else root
    write_shards(place, files, dtype, 256 if packed else 1_000, codec, STAMP_SIZE)
    return str(root)


def ours(shards: Shards) -> int:
    """Three epochs of the loader, in one stream as training has it."""
    stream = StampStream(shards, PREPROCESSING, BATCH, 42, epochs=(0, 3))
    return sum(len(batch.label) for batch in make_loader(stream, 0))


def row_by_row(shards: Shards) -> int:
    """An epoch as a first script reads Parquet: Python objects of every row, stacked."""
    rows = 0
    for url in shards.files:
        with open_part(url) as part:
            for table in part.iter_batches(BATCH, columns=[*batch_columns(PREPROCESSING), "cutout_ok"]):
                made = [item_of(row, shards.layout) for row in table.to_pylist() if row["cutout_ok"]]
                rows += len(torch.utils.data.default_collate(made)[0])
    return rows


def item_of(row: dict[str, Any], layout: Any) -> tuple[np.ndarray, float, np.ndarray, str]:
    """One row as arrays."""
    stamp = np.frombuffer(row["stamp"], layout.dtype).reshape(layout.shape).copy()
    sky = np.array([row[name] for name in PREPROCESSING.columns], np.float32)
    return stamp, float(row["label"]), sky, row["task_id"]


class RowByIndex(torch.utils.data.Dataset):
    """A map-style data set: row i of tables in memory, as the data-set libraries give it."""

    def __init__(self, shards: Shards) -> None:
        self.layout = shards.layout
        tables = []
        for url in shards.files:
            with open_part(url) as part:
                tables.append(
                    part.read(columns=[*batch_columns(PREPROCESSING), "cutout_ok"], use_threads=False)
                )
        table = pa.concat_tables(tables)
        self.table = table.filter(pa.compute.equal(table.column("cutout_ok"), 1)).combine_chunks()

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> tuple[np.ndarray, float, np.ndarray, str]:
        return item_of(self.table.slice(index, 1).to_pylist()[0], self.layout)


def map_style(shards: Shards) -> int:
    """An epoch of a shuffled map-style data set, reading included."""
    loader = torch.utils.data.DataLoader(RowByIndex(shards), BATCH, shuffle=True)
    return sum(len(batch[0]) for batch in loader)


def rates(codes: dict[str, Callable[[], int]], rounds: int) -> dict[str, Any]:
    """Name -> stamps/s, by the clock and by the core's own time, in interleaved rounds after one not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
    for number in range(rounds + 1):
        for name, code in codes.items():
            clock, core = time.perf_counter(), time.process_time()
            rows = code()
            if number:
                found[name].append(
                    (rows / (time.perf_counter() - clock), rows / (time.process_time() - core))
                )
    return {
        name: {"by_clock": summary([v[0] for v in values]), "by_core_time": summary([v[1] for v in values])}
        for name, values in found.items()
    }


def memory(shards: Shards) -> dict[str, Any]:
    """Resident and own memory of one worker process, MB, after each of ten epochs."""
    stream = StampStream(shards, PREPROCESSING, BATCH, 42, epochs=(0, EPOCHS), workers=1)
    steps, after = stream.steps_per_epoch, []
    batches: Iterator[Any] = iter(make_loader(stream, 1))
    for number, _ in enumerate(batches, 1):
        if number % steps == 0 and number < steps * EPOCHS:  # the worker is gone at the very end
            after.append(_process_memory(batches._workers[0].pid))  # type: ignore[attr-defined]
    return {"rss_mb": [m["Rss"] for m in after], "pss_mb": [m["Pss"] for m in after]}


def _process_memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def measured(root: str, dtype: str, codec: str, packed: bool, target: int, rounds: int) -> dict[str, Any]:
    """What the loader and its peers do with one data set."""
    shards = open_split(root, "train")
    files = committed_files(f"{root}/split=train" if packed else root)
    codes = {"darkhaloscope": ours, "to_pylist": row_by_row, "map-style DataLoader": map_style}
    found = rates({name: partial(code, shards) for name, code in codes.items()}, rounds)
    medians = {name: rate["by_core_time"]["median"] for name, rate in found.items()}
    print({name: round(rate) for name, rate in medians.items()}, f"target {target}")
    own = medians.pop("darkhaloscope")
    return {
        "dtype": dtype, "codec": codec, "bytes": sum(Path(url).stat().st_size for url in files), "target": target,
        "stamps_per_s": found, "times_best_peer": own / max(medians.values()),
    }  # fmt: skip


def memory_in_its_own_process(root: str, core: int) -> dict[str, Any]:
    """`memory` of a data set, started anew: a forked worker has whatever its parent holds."""
    command = [sys.executable, __file__, "--memory-of", root, "--core", str(core)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--rows", type=int, default=4_096, help="stamps of each data set")
    p.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)), help="the core to run on")
    p.add_argument("--memory-of", help=argparse.SUPPRESS)
    p.add_argument("--folder", help="where to write the data sets for the run (default: the system's)")
    a = p.parse_args()
    os.sched_setaffinity(0, {a.core})
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    if a.memory_of:
        print(json.dumps(memory(open_split(a.memory_of, "train"))))
        return
    figures: dict[str, Any] = {"batch": BATCH, "rows": a.rows, "stamp": "3 x 64 x 64", "page_cache": "warm"}
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        for name, (dtype, codec, packed, target) in DATASETS.items():
            print(name)
            root = make_dataset(Path(folder) / name.replace(" ", "-"), a.rows, dtype, codec, packed)
            figures[name] = measured(root, dtype, codec, packed, target, a.rounds)
        figures["memory of a worker, float32 gzip"] = memory_in_its_own_process(root, a.core)
        print(figures["memory of a worker, float32 gzip"])
    print(write_result("loader", figures, packages=["torch", "pyarrow"]))


if __name__ == "__main__":
    main()
