"""Speed of scoring beside that of the network alone: same rows, same run, interleaved.

    python benchmarks/score.py [--rows 2048] [--rounds 3] [--arch small_resnet] [--device cpu]

Writes ``results/score.json``. Alone: ``training.predict.predict`` on batches that lie ready in memory. Scoring:
``evaluation.score.score`` from committed files to committed scores: reading, decoding, checks, the network, writing
every allowed column. Both as the clock has it; the ratio of the two is the figure (target 0.9). Weights are random:
speed does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
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


def measure(committee: Committee, data: str, rows: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return stamps/s of the network alone and of scoring, in interleaved rounds after one that is not counted."""
    source, member = stamp_files(data, "test"), committee.members[0]
    tables = [t for i in range(len(source)) for t in source.tables(i, BATCH, {})]
    batches = [make_batch(t, member.preprocessing, "memory") for t in tables]
    found: dict[str, list[float]] = {"network alone": [], "scoring": []}
    for number in range(rounds + WARM_UP):
        began = time.perf_counter()
        for batch in batches:
            predict(member.model, batch)
        middle = time.perf_counter()
        score(committee, source, "test", str(folder / f"out{number}"), BATCH, progress=False)
        ended = time.perf_counter()
        if number >= WARM_UP:
            found["network alone"].append(rows / (middle - began))
            found["scoring"].append(rows / (ended - middle))
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--rows", type=int, default=2_048)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--arch", default="small_resnet")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "pack", a.rows)
        committee = load_committee([make_checkpoint(Path(folder) / "c.pt", a.arch)], device=a.device)
        found = measure(committee, data, a.rows, a.rounds, Path(folder))
    ratios = [s / n for s, n in zip(found["scoring"], found["network alone"], strict=True)]
    figures = {
        "arch": a.arch, "device": a.device, "rows": a.rows, "batch": BATCH, "threads": torch.get_num_threads(),
        "stamps_per_s": {name: summary(rates) for name, rates in found.items()},
        "scoring_over_network": summary(ratios), "target": TARGET,
    }  # fmt: skip
    print(
        {k: round(v["median"]) for k, v in figures["stamps_per_s"].items()},
        f"ratio {summary(ratios)['median']:.3f}",
    )
    print(write_result("score", figures, packages=["torch", "pyarrow"]))


if __name__ == "__main__":
    main()
