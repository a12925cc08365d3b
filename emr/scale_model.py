"""What a run would take before it is run: python -m emr.scale_model (or `make scale-model`).

Reads the costs that benchmarks measured (benchmarks/results/stamps.json), prices (emr/prices.toml) and jobs
(emr/presets.toml, or --bricks and --stamps), and writes <out>/index.html and <out>/scale_model.json: time, cost, bytes,
S3 requests, files, memory, and where more cores stop helping. The formulas are in emr/costs.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from darkhaloscope.config import ConfigError, positive
from darkhaloscope.report.charts import BLUE, GREY, ORANGE, SOFT, draw
from darkhaloscope.report.page import Chart, Page, Section, Table, as_json, percent, render_page
from darkhaloscope.sections import Stamps
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from emr import costs
from emr.costs import GB, HOUR_S, Costs, Estimate, Job
from emr.definitions import HERE, InstanceType, Prices, instance_types, raw_toml, read_prices

RESULTS = HERE.parent / "benchmarks" / "results" / "stamps.json"
BENCHMARK = "python benchmarks/stamps.py"
BRICKS_PER_CORE = 4  # of a chunk; what emr.submit advises
EARLIER_CORES, EARLIER_S = 272, 8700.0  # 2 h 25 min
NODE_COUNTS = (1, 2, 4, 8, 17, 32, 64, 128, 256, 512)


def read_costs(path: Path = RESULTS) -> tuple[Costs, dict[str, Any]]:
    """Return the measured costs and the whole result they are from.

    Raises:
        ConfigError: it was not measured yet, or lacks a figure.
    """
    if not path.exists():
        raise ConfigError(f"{path}: not measured yet; run: {BENCHMARK}")
    result = json.loads(path.read_text())
    try:
        return costs.measured(result["figures"]), result
    except KeyError as error:
        raise ConfigError(f"{path}: no figure {error}; measure again: {BENCHMARK}") from None


def read_jobs(path: Path, bricks_per_chunk: int) -> list[Job]:
    """Return the preset jobs; bricks are those of the area that hold a host, where hosts are given.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    jobs = []
    for raw in raw_toml(path)["jobs"]:
        bricks = costs.bricks_of_area(raw["area_deg2"])
        if "hosts" in raw:
            bricks = costs.occupied_bricks(bricks, raw["hosts"])
        jobs.append(Job(raw["name"], bricks, raw["stamps"], bricks_per_chunk, raw.get("note", "")))
    return jobs


def row_of(job: Job, found: Estimate, on_demand_usd: float, serverless_usd: float) -> list[Any]:
    """Return a job's row of the main table."""
    return [
        job.name, job.bricks, job.stamps, found.wall_s / HOUR_S, found.usd, on_demand_usd, serverless_usd,
        found.bytes_read / GB, found.bytes_written / GB, found.storage_gb, found.gets, found.puts, found.files,
        found.memory_gib, percent(found.efficiency), found.limit,
    ]  # fmt: skip


HEADER = (
    "job", "bricks", "stamps", "hours", "USD, spot", "USD, on demand", "USD, Serverless", "GB read", "GB written",
    "GB stored", "GET", "PUT", "files", "GiB of memory", "cores busy", "waits for",
)  # fmt: skip


def main_table(jobs: list[Job], measured: Costs, node: InstanceType, nodes: int, prices: Prices) -> Table:
    """Return what each job takes on so many nodes."""
    rows = []
    for job in jobs:
        found, dear = (costs.estimate(job, measured, node, nodes, prices, spot) for spot in (True, False))
        gib = node.memory_gib / node.vcpus
        serverless = costs.serverless_usd(job, measured, found.cores, gib, prices)
        rows.append(row_of(job, found, dear.usd, serverless))
    caption = (
        f"on {nodes} x {node.name} ({nodes * node.vcpus} vCPUs), {jobs[0].bricks_per_chunk} bricks a chunk"
    )
    return Table(HEADER, rows, caption)


def scaling_table(job: Job, measured: Costs, node: InstanceType, prices: Prices) -> Table:
    """Return time and cost of one job over the number of nodes."""
    rows = []
    for nodes in NODE_COUNTS:
        fitted = replace(job, bricks_per_chunk=BRICKS_PER_CORE * nodes * node.vcpus)
        found, small = (
            costs.estimate(j, measured, node, nodes, prices) for j in (fitted, default_chunks(job))
        )
        rows.append([
            found.cores, found.wall_s / HOUR_S, found.usd, percent(found.efficiency), found.gets_per_s, found.limit,
            small.wall_s / HOUR_S, small.limit,
        ])  # fmt: skip
    default = Stamps().bricks_per_chunk
    header = ("vCPUs", "hours", "USD, spot", "cores busy", "GET/s", "waits for",
              f"hours, {default} bricks a chunk", "waits for (2)")  # fmt: skip
    return Table(header, rows, f"{job.name}: {job.note}")


def default_chunks(job: Job) -> Job:
    """Return the job with the experiments' default number of bricks a chunk."""
    return replace(job, bricks_per_chunk=Stamps().bricks_per_chunk)


def scaling_chart(job: Job, measured: Costs, node: InstanceType) -> Chart:
    """Return hours over vCPUs: as modelled, with the default chunks, and if it scaled linearly."""
    cores = [n * node.vcpus for n in NODE_COUNTS]
    fitted = [
        costs.wall_s(replace(job, bricks_per_chunk=BRICKS_PER_CORE * c), measured, c) / HOUR_S for c in cores
    ]
    small = [costs.wall_s(default_chunks(job), measured, c) / HOUR_S for c in cores]
    ideal = [job.bricks * costs.brick_s(job, measured) / c / HOUR_S for c in cores]

    def paint(axes: Any) -> None:
        axes.loglog(cores, ideal, color=GREY, ls="--", label="linear")
        axes.loglog(
            cores, fitted, color=BLUE, marker="o", ms=3, label=f"{BRICKS_PER_CORE} bricks a core and chunk"
        )
        axes.loglog(
            cores, small, color=ORANGE, marker="o", ms=3, label=f"{Stamps().bricks_per_chunk} bricks a chunk"
        )
        if job.name.startswith("11.75 M"):
            axes.plot([EARLIER_CORES], [EARLIER_S / HOUR_S], marker="*", ms=11, color=SOFT, ls="none",
                      label="earlier pipeline")  # fmt: skip
        axes.set_xlabel("vCPUs")
        axes.set_ylabel("hours")
        axes.legend()

    return Chart(draw(paint), f"{job.name} ({job.bricks:,} bricks, {job.stamps:,} stamps)")


def make_page(
    jobs: list[Job], measured: Costs, result: dict[str, Any], node: InstanceType, nodes: int, prices: Prices
) -> Page:
    """Return the page."""
    cores = nodes * node.vcpus
    rows = main_table(jobs, measured, node, nodes, prices)
    ways = result["figures"].get("stamps_per_s", {})
    speeds = Table(
        ("way of writing", "stamps/s"),
        [[name, costs.figure(rate)] for name, rate in ways.items()],
        f"measured on {result['machine']['cpu']}, {result['date']}",
    )
    inputs = Table(
        ("input", "value"), [[k, v] for k, v in asdict(measured).items()], "measured, and assumed (last five)"
    )
    sections = [
        Section("What it takes", f"Prices as of {prices.as_of}, {prices.region}; spot nodes at "
                f"{prices.spot_fraction:.0%} of on demand. A vCPU counts as the measured core, which a hyper-thread is "
                "not: take twice the hours where nodes have two threads a core.", tables=[rows]),
        Section("Where it stops scaling", STOPS, tables=[scaling_table(j, measured, node, prices) for j in jobs],
                charts=[scaling_chart(j, measured, node) for j in jobs]),
        Section("Inputs", "", tables=[speeds, inputs]),
    ]  # fmt: skip
    facts = {"costs measured": result["date"], "benchmark of commit": result["versions"].get("commit", ""),
             "prices as of": prices.as_of}  # fmt: skip
    return Page("What a run takes", f"Stage 4c on {cores} vCPUs, before it is run", facts, sections)


STOPS = (
    "A brick is not divided, so a chunk lasts at least as long as its largest brick, and cores beyond a chunk's bricks "
    "stand idle. The driver commits between chunks while all cores wait: many small chunks pay for that, few large "
    "ones lose more when a run is cut off. Start-up is paid once whatever the number of cores. S3 answers about "
    f"{costs.S3_GETS_PER_S:,.0f} reads a second of one prefix before it slows down; a brick is {costs.FILES_PER_BRICK} "
    "reads."
)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        "python -m emr.scale_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--bricks", type=positive, metavar="N", help="bricks of a job of your own (with --stamps)"
    )
    made.add_argument("--stamps", type=positive, metavar="M", help="stamps of that job")
    made.add_argument("--instance", default="m5.4xlarge", help="type of the nodes (default: %(default)s)")
    made.add_argument(
        "--nodes", type=positive, default=17, help="how many (default: %(default)s, 272 vCPUs of m5.4xlarge)"
    )
    made.add_argument("--bricks-per-chunk", type=positive, metavar="N", help="default: 4 for each core")
    made.add_argument("--prices", type=Path, default=HERE / "prices.toml", help="TOML (default: %(default)s)")
    made.add_argument("--results", type=Path, default=RESULTS, help="measured costs (default: %(default)s)")
    made.add_argument("--out", default="dist/scale-model", help="folder to write (default: %(default)s)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Write the page; return the exit status."""
    args = parser().parse_args(argv)
    if (args.bricks is None) != (args.stamps is None):
        parser().error("--bricks and --stamps describe one job: give both or neither")
    try:
        prices, types = read_prices(args.prices)
        (node,) = instance_types((args.instance,), types)
        measured, result = read_costs(args.results)
        per_chunk = args.bricks_per_chunk or BRICKS_PER_CORE * args.nodes * node.vcpus
        jobs = read_jobs(HERE / "presets.toml", per_chunk)
        if args.bricks is not None:
            jobs = [Job("your job", args.bricks, args.stamps, per_chunk), *jobs]
    except ConfigError as error:
        print(f"scale-model: {error}", file=sys.stderr)
        return 1
    page = make_page(jobs, measured, result, node, args.nodes, prices)
    replace_file(join(args.out, "index.html"), render_page(page).encode())
    replace_file(join(args.out, "scale_model.json"), json.dumps(as_json(page), indent=1).encode())
    for row in main_table(jobs, measured, node, args.nodes, prices).rows:
        print(
            f"{row[0]}: {row[3]:.2f} h, {row[4]:,.0f} USD spot, {row[8]:,.0f} GB written, waits for {row[-1]}"
        )
    print(f"page: {join(args.out, 'index.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
