"""Speed of scoring beside that of the network alone: same rows, same run, interleaved.

    python benchmarks/score.py [--rows 1024] [--rounds 3] [--arch small_resnet] [--device cpu]

Writes ``results/score.json``. Alone: ``training.predict.predict`` on batches that lie ready in memory, once in the main
thread and once in a thread of its own, as scoring runs it: where other programs want the cores too, the two differ by
how long OpenMP's workers spin (twice the processor time was seen in the main thread), and a ratio to one of them alone
would credit or blame scoring for that. Scoring: ``evaluation.score.score`` from committed files to committed scores:
reading, decoding, checks, the network, writing every allowed column. The order turns round from round to round. By the
clock, scoring is compared with the faster of the two in each round (target 0.9); by processor time, with the thread.
Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "training")]

from record import summary, write_result  # noqa: E402
from tiny_shards import make_columns, write_shards  # noqa: E402

from darkhaloscope.experiment import Experiment  # noqa: E402
from darkhaloscope.records import STAMP_SIZE  # noqa: E402
from darkhaloscope.sections import Training  # noqa: E402
from evaluation.committee import Committee, load_committee  # noqa: E402
from evaluation.score import score  # noqa: E402
from evaluation.sources import stamp_files  # noqa: E402
from training import checkpoint  # noqa: E402
from training.batch import make_batch  # noqa: E402
from training.models import Finder  # noqa: E402
from training.predict import predict  # noqa: E402
from training.preprocess import Preprocessing  # noqa: E402

BATCH, TARGET, WARM_UP = 512, 0.9, 1


def make_checkpoint(path: Path, arch: str) -> str:
    """Write a checkpoint of a network with fresh weights."""
    experiment = Experiment("bench", "bench", "bench", training=Training(arch=arch))
    preprocessing = Preprocessing(norm_method="sky_asinh")
    content = {
        "model": Finder(arch, preprocessing).state_dict(), "config": experiment.as_dict(),
        "preprocessing": preprocessing.as_dict(), "data": {}, "progress": {}, "metrics": {}, "training_state": {},
    }  # fmt: skip
    checkpoint.save(path, content)
    return str(path)


def make_data(root: Path, rows: int) -> str:
    """Write packed float16 shards: two files of one split."""
    files = [make_columns(rows // 2, seed, "float16", "test", STAMP_SIZE) for seed in (0, 1)]
    write_shards(root / "split=test", files, "float16", rows_per_group=256, size=STAMP_SIZE)
    return str(root)


def in_a_thread(work: Callable[[], None]) -> None:
    """Do the work in a thread of its own."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def measure(
    committee: Committee, data: str, rows: int, rounds: int, folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Return stamps/s of each way, by the clock and by processor time, after a round that is not counted."""
    source, member = stamp_files(data, "test"), committee.members[0]
    tables = [t for i in range(len(source)) for t in source.tables(i, BATCH, {})]
    batches = [make_batch(t, member.preprocessing, "memory") for t in tables]
    outputs = itertools.count()

    def alone() -> None:
        for batch in batches:
            predict(member.model, batch)

    ways: dict[str, Callable[[], object]] = {
        "network alone": alone,
        "network alone, in a thread": lambda: in_a_thread(alone),
        "scoring": lambda: score(
            committee, source, "test", str(folder / f"out{next(outputs)}"), BATCH, progress=False
        ),
    }
    found: dict[str, dict[str, list[float]]] = {k: {"by_clock": [], "by_core_time": []} for k in ways}
    for number in range(rounds + WARM_UP):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            clock, core = time.perf_counter(), time.process_time()
            ways[name]()
            if number >= WARM_UP:
                found[name]["by_clock"].append(rows / (time.perf_counter() - clock))
                found[name]["by_core_time"].append(rows / (time.process_time() - core))
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--rows", type=int, default=1_024)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--arch", default="small_resnet")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "pack", a.rows)
        committee = load_committee([make_checkpoint(Path(folder) / "c.pt", a.arch)], device=a.device)
        found = measure(committee, data, a.rows, a.rounds, Path(folder))
    main_thread, thread, scoring = found.values()
    best = [max(pair) for pair in zip(main_thread["by_clock"], thread["by_clock"], strict=True)]
    clock = [s / n for s, n in zip(scoring["by_clock"], best, strict=True)]
    core = [s / n for s, n in zip(scoring["by_core_time"], thread["by_core_time"], strict=True)]
    figures = {
        "arch": a.arch, "device": a.device, "rows": a.rows, "batch": BATCH, "threads": torch.get_num_threads(),
        "stamps_per_s": {n: {k: summary(v) for k, v in ways.items()} for n, ways in found.items()},
        "scoring_over_network_by_clock": summary(clock),
        "scoring_over_network_by_core_time": summary(core),
        "target": TARGET,
    }  # fmt: skip
    print({n: {k: [round(x) for x in v] for k, v in ways.items()} for n, ways in found.items()})
    print(f"by clock {[round(x, 3) for x in clock]}, by core time {[round(x, 3) for x in core]}")
    print(write_result("score", figures, packages=["torch", "pyarrow"]))


if __name__ == "__main__":
    main()
