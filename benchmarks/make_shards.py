"""Speed of shards made where they are used: rows per second of one core, bare and with injections.

    python benchmarks/make_shards.py [--fields 12] [--experiment experiments/gen2.toml]

Writes ``results/make_shards.json``: per kind the rows made of whole fields (paint, measure, select, lay out, cut,
inject, pack, write), per second of the clock and of the core's own time, and how long 400,000 hosts would take on 16
such cores, which share nothing but the disk; and the time a loader's worker takes to plan a live arc. One process, one
thread; what is compiled is compiled before.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from record import write_result  # noqa: E402

from darkhaloscope.experiment import load  # noqa: E402
from darkhaloscope.sections import Splits  # noqa: E402
from darkhaloscope.simulated.field import FieldPlan, field_names, paint_field  # noqa: E402
from training.batch import make_batch  # noqa: E402
from training.live import HOST_COLUMNS, LiveInjection  # noqa: E402
from training.make_shards import Job, make_part, plan_jobs, stamps_of  # noqa: E402
from training.preprocess import Preprocessing  # noqa: E402

HOSTS, CORES, TARGET_S = 400_000, 16, 180


def measure(job: Job) -> dict[str, Any]:
    """Rows per second of one part, after a field that is not counted."""
    make_part(dataclasses.replace(job, fields=job.fields[:1]))
    clock, core = time.perf_counter(), time.process_time()
    *_, samples = make_part(dataclasses.replace(job, fields=job.fields[1:]))
    clock, core, rows = time.perf_counter() - clock, time.process_time() - core, sum(samples.values())
    return {
        "rows": rows, "rows_per_s_by_clock": rows / clock, "rows_per_s_by_core_time": rows / core,
        "seconds_for_400k_on_16_cores": HOSTS / (rows / core) / CORES,
    }  # fmt: skip


def planning(name: str) -> float:
    """Microseconds of the core to draw and prepare one live arc with a generation's prior."""
    experiment = load(HERE.parent / "experiments" / f"{name}.toml")
    field = paint_field(FieldPlan(42), str(field_names(np.array([0]), 42)[0]))
    rows = stamps_of(
        field, dataclasses.replace(experiment, splits=Splits(train=1.0, val=0.0, test=0.0)), "train", True
    )
    batch = make_batch(rows, Preprocessing(), name, HOST_COLUMNS)
    live, every = LiveInjection(experiment, experiment.stamps.size), np.arange(rows.num_rows)
    live.arcs(batch, every, 0)
    began = time.process_time()
    for epoch in range(1, 11):
        live.arcs(batch, every, epoch)
    return 1e6 * (time.process_time() - began) / 10 / len(every)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--fields", type=int, default=12, help="of 64 hosts (default: %(default)s)")
    p.add_argument("--experiment", default=str(HERE.parent / "experiments" / "gen2.toml"))
    a = p.parse_args()
    experiment, plan = load(a.experiment), FieldPlan(42)
    figures: dict[str, Any] = {"experiment": experiment.name, "target_s": TARGET_S}
    for rendered in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            job = plan_jobs(folder, {"train": a.fields * plan.cells**2}, experiment, plan, rendered)[0]
            figures["rendered" if rendered else "bare"] = measure(job)
    figures["live_arc_planned_us"] = {name: planning(name) for name in ("gen2", "gen5", "modern")}
    print(figures)
    print(write_result("make_shards", figures, ["pyarrow"]))


if __name__ == "__main__":
    main()
