"""Speed and memory of stage 4a: a manifest of fabricated targets, laid out by the stage itself on two cores.

    python benchmarks/manifest.py [--rows 10_000_000] [--keep FOLDER]

Writes ``results/manifest.json``. The targets have fluxes, PSF sizes, depths and reddening like the survey's: those of
the sample beside the repository where it is, else drawn. Rows of the `grid_sota` train tier, one injection a host;
beside them smaller manifests of the natural prior and of paired controls. Memory is the sum of the proportional set
sizes of this process, the JVM and every Python worker, sampled each half second; seconds are those of the whole
stage, from looking through the targets to the committed record, the session's start apart.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from record import write_result

from darkhaloscope.dataset import commit_chunk, committed_chunks, write_part
from darkhaloscope.experiment import Experiment, from_dict
from darkhaloscope.records import BANDS, TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.stage import StageRun, place
from darkhaloscope.survey.bricks import brick_centre, brick_id, brick_name
from darkhaloscope.survey.extinction import extinction
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.splits import cell_split, sky_cell
from spark_jobs import manifest
from spark_jobs.arguments import add_common
from spark_jobs.session import spark_session

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "data" / "catalogs"
PER_BRICK = 60  # target galaxies of a brick of the survey
BRICKS_PER_FILE = 230  # as in a sweep file


def conditions(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return PSF size in r, depth in r and E(B-V) of n bricks."""
    file = SAMPLES / "dr10_region_seeing_and_depth.csv"
    if file.exists():
        regions = np.genfromtxt(file, delimiter=",", names=True, dtype=None, encoding="utf8")
        regions = regions[np.isfinite(regions["median_psf_r_arcsec"]) & (regions["median_psf_r_arcsec"] > 0)]
        row = rng.choice(len(regions), n, p=regions["n_bricks"] / regions["n_bricks"].sum())
        names = ("median_psf_r_arcsec", "median_psfdepth_r", "median_ebv")
        return {k: regions[v][row] for k, v in zip(("psfsize", "depth", "ebv"), names, strict=True)}
    return {
        "psfsize": np.clip(rng.normal(1.3, 0.15, n), 0.8, 1.6),
        "depth": np.clip(rng.normal(24.5, 0.4, n), 23.6, 26.8),
        "ebv": np.clip(rng.gamma(2.0, 0.02, n), 0.005, 0.12),
    }


def galaxies() -> dict[str, np.ndarray]:
    """Return fluxes (nmgy) and types of a sample of luminous red galaxies."""
    file = SAMPLES / "dr10_lrg_sample.parquet"
    if file.exists():
        table = pq.read_table(file)
        found = {
            f"flux_{b}": table.column(f"FLUX_{b.upper()}").to_numpy().astype(float) for b in (*BANDS, "w1")
        }
        good = np.all([v > 0 for v in found.values()], axis=0)
        return {k: v[good] for k, v in found.items()} | {
            "type": np.array(table.column("TYPE").to_pylist())[good]
        }
    rng = np.random.default_rng(0)
    z, r_z, g_r = rng.normal(19.3, 0.7, 5_000), rng.normal(0.9, 0.2, 5_000), rng.normal(1.6, 0.2, 5_000)
    mags = {"g": z + r_z + g_r, "r": z + r_z, "z": z, "w1": z - 1.3}
    return {f"flux_{b}": 10 ** (0.4 * (22.5 - m)) for b, m in mags.items()} | {"type": np.full(5_000, "DEV")}


def batches(n: int, experiment: Experiment, sample: dict[str, np.ndarray]) -> Iterator[pa.RecordBatch]:
    """Yield target rows, a file's worth of bricks at a time, until there are n."""
    rng = np.random.default_rng(1)
    columns = 1_300  # of the first brick row
    for start in range(0, -(-n // PER_BRICK), BRICKS_PER_FILE):
        number = np.arange(start, min(start + BRICKS_PER_FILE, -(-n // PER_BRICK)))
        brick = np.repeat(np.arange(len(number)), PER_BRICK)
        row, column = 300 + number // columns, number % columns
        at = conditions(len(number), rng)
        ra, dec = (v[brick] for v in brick_centre(row, column))
        galaxy = rng.integers(0, len(sample["type"]), len(brick))
        ra, dec = (v + rng.uniform(-0.12, 0.12, len(brick)) for v in (ra, dec))
        cell, ebv = sky_cell(ra, dec), at["ebv"][brick]
        table: dict[str, Any] = {
            "host_id": 10_000 << 40
            | brick_id(row, column)[brick] << 16
            | np.tile(np.arange(PER_BRICK), len(number)),
            "ra": ra,
            "dec": dec,
            "brickname": brick_name(row, column)[brick].astype(object),
            "type": sample["type"][galaxy].astype(object),
            "sky_cell": cell,
            "region_split": cell_split(cell, experiment.splits, experiment.seed).astype(object),
            "ebv": ebv,
            "shape_r": rng.lognormal(0, 0.3, len(brick)),
            "shape_e1": rng.normal(0, 0.15, len(brick)),
            "shape_e2": rng.normal(0, 0.15, len(brick)),
            "psf_source": np.full(len(brick), "catalogue", object),
            "z_host": rng.uniform(0.3, 0.8, len(brick)),
            "z_host_source": np.full(len(brick), "lrg_colours", object),
        }
        for band in (*BANDS, "w1"):
            mag = magnitude(sample[f"flux_{band}"])[galaxy] + rng.normal(0, 0.05, len(brick))
            table |= {f"mag_{band}": mag, f"mag_dered_{band}": mag - extinction(ebv, band)}
        for band, factor in zip(BANDS, (1.08, 1.0, 0.95), strict=True):
            table[f"psfsize_{band}"] = at["psfsize"][brick] * factor * rng.normal(1, 0.02, len(brick))
            table[f"psfdepth_{band}"] = at["depth"][brick] + rng.normal(0, 0.05, len(brick))
        batch = to_batch(TARGETS, table)
        yield batch.slice(0, min(batch.num_rows, n - start * PER_BRICK))


def write_targets(root: str, n: int, experiment: Experiment, sample: dict[str, np.ndarray]) -> None:
    output = place(root, "phase3", experiment)
    if committed_chunks(output):  # kept by an earlier run
        return
    with StageRun(output, "3", experiment, ("seed",), {}) as stage:
        parts = [
            write_part(output, 0, i, [batch], TARGETS.arrow())
            for i, batch in enumerate(batches(n, experiment, sample))
        ]
        commit_chunk(output, 0, parts)
        stage.finish(targets=n)


class Memory(threading.Thread):
    """Samples the memory of this process and all below it: `peak`, and each part of it at the peak, in GiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.parts, self.over = 0.0, {}, threading.Event()

    def run(self) -> None:
        """Sample until told that it is over."""
        while not self.over.wait(0.5):
            parts: dict[str, float] = {}
            for pid in family():
                try:
                    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                except (OSError, ProcessLookupError):
                    continue
                pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
                parts[name] = parts.get(name, 0.0) + pss / 2**20
            if sum(parts.values()) > self.peak:
                self.peak, self.parts = sum(parts.values()), {k: round(v, 2) for k, v in parts.items()}


def family() -> list[int]:
    """Return this process and its descendants."""
    parent = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parent[int(stat.parent.name)] = int(fields[1])
    found = [int(Path("/proc/self").resolve().name)]
    for pid in found:
        found += [child for child, its in parent.items() if its == pid]
    return found


def experiment_of(name: str, rows: int, **injection: Any) -> Experiment:
    """Return an experiment whose three splits have about `rows` rows together, as many as there are targets for."""
    options = {"grid": "grid_sota", "n_total_per_split": rows, **injection}
    config = {"name": name, "variant": "benchmark", "experiment_id": name, "injection": options}
    return from_dict(config, "benchmark")


def measure(spark: Any, root: str, experiment: Experiment) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_common(parser)
    options = parser.parse_args(["--output-s3", root])
    memory = Memory()
    memory.start()
    started = time.perf_counter()
    record = manifest.run(spark, experiment, options)
    seconds = time.perf_counter() - started
    memory.over.set()
    memory.join()
    output = Path(place(root, "phase4a", experiment))
    rows = record["counts"]["rows"]
    found = {
        "rows": rows,
        "hosts": record["counts"]["hosts"],
        "targets": record["counts"]["targets"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "peak_memory_gib": round(memory.peak, 2),
        "peak_memory_parts_gib": memory.parts,
        "bytes_per_row": round(sum(f.stat().st_size for f in output.glob("chunk=*/*.parquet")) / rows, 1),
        "files": len(list(output.glob("chunk=*/*.parquet"))),
    }
    print(f"{experiment.name:10s} {rows:11,} rows in {seconds:6.1f} s, {found['rows_per_second']:,}/s, "
          f"peak {memory.peak:.2f} GiB {memory.parts}")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=300_000, help="rows of the grid's manifest")
    parser.add_argument("--small", type=int, default=20_000, help="targets of the other two manifests")
    parser.add_argument("--keep", help="folder in which the tables stay")
    options = parser.parse_args()
    root = options.keep or tempfile.mkdtemp(prefix="bench-manifest-")
    sample, spark = galaxies(), spark_session("benchmark of stage 4a")
    runs = {
        "grid": (options.rows, {}),
        "natural": (options.small, {"prior": "natural"}),
        "paired": (options.small, {"controls": "paired"}),
    }
    figures: dict[str, Any] = {"cores": 2, "real_conditions": SAMPLES.exists()}
    try:
        for name, (n, injection) in runs.items():
            experiment = experiment_of(name, 2 * n, **injection)
            write_targets(root, n, experiment, sample)
            figures[name] = measure(spark, root, experiment)
    finally:
        spark.stop()
        if not options.keep:
            shutil.rmtree(root)
    print(f"wrote {write_result('manifest', figures, ('pyspark', 'pyarrow'))}")


if __name__ == "__main__":
    main()
