"""Speed of a search on one core: cutting stamps, scoring them, writing catalogues.

    python benchmarks/search.py [--full]

Writes ``results/search.json``. Stamps: 50 positions a brick of a painted sky in the survey's layout, one task a brick,
cut as a search cuts them (no injection, nothing measured), and cut, scored and written. Scoring: the rows of a stage 4c
table through ``Model.logits_of_rows``, against the same ONNX session fed with arrays that lie ready. Catalogue: a
million fabricated rows (``--full``; else 100,000, scaled) as HATS Parquet, FITS, CSV and VOTable. Files are in the page
cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "search")]

from fabricated import candidates  # noqa: E402
from record import write_result  # noqa: E402

from darkhaloscope.dataset import Part, write_part  # noqa: E402
from darkhaloscope.experiment import Experiment, load  # noqa: E402
from darkhaloscope.injection.task import BrickRows, StampTask, TaskResult, stamp_batches  # noqa: E402
from darkhaloscope.pack.packing import pixels_of  # noqa: E402
from darkhaloscope.records import MANIFEST  # noqa: E402
from darkhaloscope.search.catalogue_files import WRITERS, catalogue_of  # noqa: E402
from darkhaloscope.search.model import Model, load_model  # noqa: E402
from darkhaloscope.search.ranking import merge, rank  # noqa: E402
from darkhaloscope.search.rows import rows_of_positions  # noqa: E402
from darkhaloscope.search.scoring import Scoring, score_bricks  # noqa: E402
from darkhaloscope.simulated.sky_plan import PLAN, SkyConfig  # noqa: E402
from darkhaloscope.survey.bricks import brick_centre, parse_names, read_brick_table  # noqa: E402
from darkhaloscope.survey.wcs import TanWcs  # noqa: E402
from evaluation.finder import positions_at  # noqa: E402
from local_spark.mini_sky import BRICK_TABLE, paint_sky  # noqa: E402
from training.export import export  # noqa: E402

PER_BRICK = 50


def export_small(folder: Path) -> Model:
    """Export an untrained small_resnet: its speed is that of a trained one."""
    from training import checkpoint
    from training.models import Finder
    from training.preprocess import Preprocessing

    experiment = load(HERE.parent / "experiments" / "smoke.toml")
    how = Preprocessing()
    kept = {"model": Finder("small_resnet", how).state_dict(), "preprocessing": how.as_dict()}
    content = kept | {"config": experiment.as_dict()}
    content |= {name: {} for name in ("data", "progress", "metrics", "training_state")}
    folder.mkdir(parents=True)
    checkpoint.save(folder / "best.pt", content)
    export(folder / "best.pt", folder / "out")
    return load_model(str(folder / "out" / "finder.onnx"))


def make_tasks(folder: Path, experiment: Experiment, n_bricks: int) -> list[BrickRows]:
    """Paint bricks and lay out `PER_BRICK` positions in each."""
    paint_sky(folder / "sky", SkyConfig(bricks=n_bricks), processes=1)
    table = read_brick_table(str(folder / "sky" / BRICK_TABLE))
    rng, bricks = np.random.default_rng(3), []
    for number, plan in enumerate(PLAN[:n_bricks]):
        x, y = rng.uniform(80, 3400, (2, PER_BRICK))
        centre = (float(v[0]) for v in brick_centre(*parse_names([plan.name])))
        places = np.stack(TanWcs.of_brick(*centre).pixel_to_sky(x, y), axis=1)
        rows, _, _ = rows_of_positions(positions_at(places.tolist()), table, experiment)
        part = write_part(str(folder / "manifest"), 0, number, rows.to_batches(), MANIFEST.arrow())
        bricks.append(BrickRows(plan.name, rows.num_rows, (str(folder / "manifest" / part.key),)))
    return bricks


def rate(work: Callable[[], int], repeats: int) -> dict[str, float]:
    """Rows a second by the clock and of the core, best of some repeats."""
    rates = []
    for _ in range(repeats):
        begun, cpu = time.perf_counter(), time.process_time()
        rows = work()
        rates.append((rows / (time.perf_counter() - begun), rows / (time.process_time() - cpu)))
    return dict(zip(("per_s", "per_cpu_s"), np.max(rates, axis=0).round(1).tolist(), strict=True))


def stamps(folder: Path, model: Model, repeats: int) -> dict[str, dict[str, float]]:
    """Cutting alone; cutting, scoring and writing; scoring of rows, and the model alone."""
    config = model.experiment
    config = replace(config, stamps=replace(config.stamps, poisson_noise=False))
    bricks, sky = make_tasks(folder, config, 2), str(folder / "sky")
    scoring = Scoring(((model.url, model.hash),), None, "dr10-south", True, 10)

    def cut() -> int:
        return sum(
            b.num_rows for b in stamp_batches(tuple(bricks * 3), sky, config, TaskResult(Part("", 0, 0, "")))
        )

    def search() -> int:
        task = StampTask(tuple(bricks * 3), str(folder / "found"), 0)
        return score_bricks(task, 0, 0, sky, config, scoring).part.rows

    cut(), search()  # files into the page cache, model into the worker
    made = list(stamp_batches(tuple(bricks), sky, config, TaskResult(Part("", 0, 0, ""))))
    rows = pa.Table.from_batches(made).combine_chunks().to_batches()[0]
    rows = rows.filter(pa.array(rows.column("cutout_ok").to_numpy() == 1))
    pixels = np.ascontiguousarray(pixels_of(rows), np.float32)
    sky_sigma = np.stack([rows.column(f"sky_sigma_{b}").to_numpy() for b in "grz"], axis=1)

    def of_rows() -> int:
        return len(model.logits_of_rows(rows))

    def alone() -> int:
        for i in range(0, len(pixels), 64):
            model.session.run(None, {"stamps": pixels[i : i + 64], "sky_sigma": sky_sigma[i : i + 64]})
        return len(pixels)

    of_rows(), alone()
    return {
        "cut": rate(cut, repeats),
        "cut_score_write": rate(search, repeats),
        "score_rows": rate(of_rows, 3 * repeats),
        "model_alone": rate(alone, 3 * repeats),
    }


def catalogue(folder: Path, rows: int) -> dict[str, float]:
    """Seconds to merge and rank, and to write each format."""
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, rows), np.degrees(np.arcsin(rng.uniform(-0.9, 0.5, rows)))
    table = candidates(ra, dec, rng.normal(-3, 2, rows))
    seconds = {}
    begun = time.perf_counter()
    ranked = rank(merge(table, {}), None, 1e-3, 0.0, None)
    seconds["merge_and_rank"] = time.perf_counter() - begun
    begun = time.perf_counter()
    made = catalogue_of(ranked)
    seconds["catalogue_order"] = time.perf_counter() - begun
    for name, (file, write) in WRITERS.items():
        begun = time.perf_counter()
        write(made, folder / file)
        seconds[name] = time.perf_counter() - begun
    return {k: round(v, 2) for k, v in seconds.items()}


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="a million rows of catalogue, more repeats")
    full = parser.parse_args().full
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    with tempfile.TemporaryDirectory(prefix="bench-search-") as name:
        folder = Path(name)
        figures = {"stamps": stamps(folder, export_small(folder / "model"), 5 if full else 2)}
        rows = 1_000_000 if full else 100_000
        figures["catalogue"] = {"rows": rows, "seconds": catalogue(folder, rows)}
    measured = figures["stamps"]
    ratio = measured["score_rows"]["per_cpu_s"] / measured["model_alone"]["per_cpu_s"]
    figures["score_rows_over_model_alone"] = round(ratio, 3)
    seconds = figures["catalogue"]["seconds"]
    figures["parquet_fits_csv_s_per_million"] = round(
        sum(seconds[k] for k in ("catalogue_order", "parquet", "fits", "csv")) * 1e6 / rows, 1
    )
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(write_result("search", figures, packages=["pyarrow", "onnxruntime", "fitsio", "astropy"]))


if __name__ == "__main__":
    main()
