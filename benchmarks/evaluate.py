"""Time and memory of evaluating a large scores data set, resampled intervals included.

    python benchmarks/evaluate.py [--rows 1000000] [--resamples 1000] [--cells 5000]

Writes ``results/evaluate.json``. Half of the rows are injections: classes alternate as often as they can along the
ranking, which is what a resample costs. Target for a million rows and 1,000 resamples of sky cells: 60 s on two cores.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "evaluation")]

from fabricate import drawn_logits, fabricated_columns, write_scores  # noqa: E402
from record import write_result  # noqa: E402

from evaluation.evaluate import evaluate, summary  # noqa: E402
from evaluation.scores import read_scores  # noqa: E402
from evaluation.strata import COLUMNS  # noqa: E402

TARGET_S, CHUNK = 60.0, 100_000


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--rows", type=int, default=1_000_000)
    p.add_argument("--resamples", type=int, default=1_000)
    p.add_argument("--cells", type=int, default=5_000, help="sky cells the rows are spread over")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for chunk in range(-(-a.rows // CHUNK)):
            columns = fabricated_columns(min(CHUNK, a.rows - chunk * CHUNK), seed=chunk, n_cells=a.cells)
            write_scores(folder, columns, drawn_logits(columns, chunk), chunk)
        began = time.perf_counter()
        scores = read_scores(folder, COLUMNS)
        read = time.perf_counter()
        metrics = evaluate(scores, a.resamples)
        ended = time.perf_counter()
    figures = {
        "rows": a.rows, "resamples": a.resamples, "cells": a.cells, "read_s": read - began,
        "evaluate_s": ended - read, "total_s": ended - began, "target_s": TARGET_S,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    print(summary(metrics))
    print({k: round(v, 1) for k, v in figures.items()})
    print(write_result("evaluate", figures, packages=["pyarrow", "scikit-learn"]))


if __name__ == "__main__":
    main()
