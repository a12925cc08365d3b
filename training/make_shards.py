"""Make training shards where they are used: python -m training.make_shards --out shards --train 400000.

A machine with this source tree and nothing else (numpy, scipy, numba, pyarrow) paints fields of simulated sky and
makes stamps of their target galaxies with the pipeline's own functions, field by field: the catalogue's cuts
(`select_targets`), the manifest (`lay_out_injections`), stage 4c (`make_stamps`), the packed type (`repack`). Below
--out lies what stage `pack` would have written.

The training rows are bare: every host without an arc, for train.py --live_injection; with --rendered they hold the
experiment's injections and controls. Validation and test rows always do, and are the same for both. A share of the
hosts is peculiar (rings, companions, edge-on, mergers): rows of the sample "mimic", never injected.

Rows are shuffled within a part, which holds some 4,000 rows of 64 fields; the loader mixes parts. Started again with
the same settings it makes what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One process a core does the work: threads of matrix products within each would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from darkhaloscope.config import ConfigError
from darkhaloscope.dataset import Part, commit_chunk, committed_chunks, write_part
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment, load
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import make_stamps
from darkhaloscope.pack.packing import Layout, packed_schema, repack
from darkhaloscope.pack.shuffle import shuffled_order
from darkhaloscope.records import SPLITS, STAMPS, TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.simulated.field import Field, FieldPlan, field_names, mimic_of, paint_field
from darkhaloscope.stage import StageRun
from darkhaloscope.storage import join
from darkhaloscope.survey.bricks import brick_centre, parse_names
from darkhaloscope.survey.splits import cell_split, sky_cell
from darkhaloscope.survey.targets import select_targets

REPOSITORY = Path(__file__).resolve().parents[1]

FIELDS_PER_PART = 64
SECTIONS = (
    "seed",
    "variant",
    "experiment_id",
    "targets",
    "splits",
    "injection",
    "prior",
    "psf",
    "stamps",
    "pack",
)


@dataclass(frozen=True)
class Job:
    """One part to make: fields of one split, and whether all their hosts stay bare."""

    root: str
    chunk: int
    fields: tuple[str, ...]
    split: str
    bare: bool
    experiment: Experiment
    plan: FieldPlan


def fields_of(split: str, count: int, experiment: Experiment, seed: int) -> list[str]:
    """Return the first `count` fields whose brick's centre is in a cell of the split."""
    names: list[str] = []
    start, block = 0, 1024
    while len(names) < count:
        some = field_names(np.arange(start, start + block), seed)
        cell = sky_cell(*brick_centre(*parse_names(some)), nside=experiment.splits.nside)
        names += some[cell_split(cell, experiment.splits, experiment.seed) == split].tolist()
        start += block
        if start > 100_000:
            raise ConfigError(f"splits.{split} leaves no room for {count} fields of the sky; give it more")
    return names[:count]


def stamps_of(field: Field, experiment: Experiment, split: str, bare: bool) -> pa.RecordBatch:
    """Make the stamps of a field's targets, as the pipeline would, with the mimics among them marked.

    Args:
        field: its pixels and catalogue.
        experiment: cuts, injections, stamps.
        split: of its hosts; those beyond the border of its cell are left out.
        bare: nothing is added to any host: its rows are controls, with the injection each would have had.

    Returns:
        STAMPS rows that have a stamp, in the layout of `experiment.stamps`.
    """
    found = select_targets(field.catalogue, experiment.targets, experiment.splits, experiment.seed).columns
    targets = to_batch(TARGETS, found)
    kind = mimic_of(field, *field.brick.sky_to_pixel(found["ra"], found["dec"]))
    here = found["region_split"] == split
    batches = []
    for rows, controls in ((here & (kind == ""), bare), (here & (kind != ""), True)):
        if rows.any():
            one = _all_controls(experiment) if controls else experiment
            manifest = lay_out_injections(targets.filter(pa.array(rows)), one)
            batches.append(make_stamps(field.brick, manifest, one, gains=field.gains))
    if not batches:
        return pa.RecordBatch.from_pylist([], STAMPS.arrow())
    made = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    of_host = dict(zip(found["host_id"].tolist(), kind.tolist(), strict=True))
    return _marked(made.filter(pc.equal(made.column("cutout_ok"), 1)), of_host)


def _all_controls(experiment: Experiment) -> Experiment:
    injection = dataclasses.replace(
        experiment.injection, controls="unpaired", control_frac=1.0, match_total_magnitude=False
    )
    return dataclasses.replace(experiment, injection=injection)


def _marked(rows: pa.RecordBatch, kind_of: dict[int, str]) -> pa.RecordBatch:
    """Return the rows with those of peculiar hosts as mimics."""
    kind = np.array([kind_of[h] for h in rows.column("host_id").to_pylist()], object)
    columns: dict[str, Any] = {n: rows.column(n) for n in STAMPS.names}
    sample = np.where(kind == "", columns["sample"].to_numpy(zero_copy_only=False), "mimic")
    return to_batch(STAMPS, columns | {"sample": sample, "object_type": kind}, _metadata(rows.schema))


def _metadata(schema: pa.Schema) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if k != b"table"}


def make_part(job: Job) -> tuple[int, str, Part, dict[str, int]]:
    """Paint the fields of a part and write it; return its chunk, root, what was written, and rows by sample."""
    experiment = job.experiment
    source, target = (
        Layout(d, experiment.stamps.size) for d in (experiment.stamps.dtype, experiment.pack.dtype)
    )
    made = [
        repack(rows, source, target)[0]
        for name in job.fields
        if (rows := stamps_of(paint_field(job.plan, name), experiment, job.split, job.bare)).num_rows
    ]
    table = pa.Table.from_batches(made, packed_schema(target))
    table = table.take(pa.array(shuffled_order(table.column("task_id").to_pylist(), experiment.seed)))
    counted = pc.value_counts(table.column("sample")).to_pylist()
    part = write_part(
        job.root, job.chunk, 0, table.to_batches(), packed_schema(target), codec=experiment.pack.codec,
        rows_per_group=experiment.pack.rows_per_group,
    )  # fmt: skip
    return job.chunk, job.root, part, {c["values"]: c["counts"] for c in counted}


def plan_jobs(
    out: str, hosts: dict[str, int], experiment: Experiment, plan: FieldPlan, rendered: bool
) -> list[Job]:
    """Return the parts of all splits, committed or not."""
    jobs = []
    for split, wanted in hosts.items():
        fields = fields_of(split, -(-wanted // plan.cells**2), experiment, plan.seed)
        root = join(out, f"split={split}")
        for chunk, start in enumerate(range(0, len(fields), FIELDS_PER_PART)):
            some = tuple(fields[start : start + FIELDS_PER_PART])
            jobs.append(Job(root, chunk, some, split, split == "train" and not rendered, experiment, plan))
    return jobs


def make_shards(
    out: str, hosts: dict[str, int], experiment: Experiment, plan: FieldPlan, rendered: bool = False,
    processes: int | None = None, overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Make what is missing of the shards.

    Args:
        out: URL that takes split=train, split=val and split=test.
        hosts: split -> hosts wanted, about.
        experiment: of the injections.
        plan: of the fields.
        rendered: training rows hold injections, as validation and test rows do.
        processes: at a time; None: one a core.
        overwrite: replace shards of other settings.

    Returns:
        The record: rows by split and sample, seconds.

    Raises:
        OutputRefused: shards of other settings are there, or another process writes there.
    """
    options = {"hosts": sorted(hosts.items()), "plan": dataclasses.asdict(plan), "rendered": rendered}
    with StageRun(out, "make_shards", experiment, SECTIONS, {}, options, overwrite) as stage:
        jobs = plan_jobs(out, hosts, experiment, plan, rendered)
        done = {root: committed_chunks(root) for root in {j.root for j in jobs}}
        missing = [j for j in jobs if j.chunk not in done[j.root]]
        for chunk, root, part, samples in tqdm(_made(missing, processes), "make shards", len(missing)):
            stage.owner.check()
            commit_chunk(root, chunk, [part], {"samples": samples})
        return stage.finish(rows={s: _counted(join(out, f"split={s}")) for s in hosts})


def _made(jobs: list[Job], processes: int | None) -> Iterable[tuple[int, str, Part, dict[str, int]]]:
    workers = min(processes or os.cpu_count() or 1, max(len(jobs), 1))
    if workers == 1:
        yield from map(make_part, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make_part, jobs)


def _counted(root: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for facts in committed_chunks(root).values():
        for sample, rows in facts["samples"].items():
            total[sample] = total.get(sample, 0) + rows
    return total


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(
        "python -m training.make_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", required=True, metavar="URL", help="takes split=train, split=val, split=test")
    p.add_argument(
        "--experiment",
        default=str(REPOSITORY / "experiments" / "gen2.toml"),
        metavar="TOML",
        help="experiment file (default: gen2.toml)",
    )
    for split, hosts in zip(SPLITS, (400_000, 20_000, 20_000), strict=True):
        p.add_argument(
            f"--{split}", type=int, default=hosts, metavar="N", help="hosts, about (default: %(default)s)"
        )
    p.add_argument("--rendered", action="store_true", help="training rows hold injections, not bare hosts")
    p.add_argument("--mimics", type=float, default=0.1, help="share of peculiar hosts (default: %(default)s)")
    p.add_argument("--processes", type=int, help="at a time (default: one a core); changes no pixel")
    p.add_argument("--overwrite", action="store_true", help="replace shards of other settings")
    return p


def main(argv: list[str] | None = None) -> int:
    """Parse flags, make shards, say what was made; return the exit status."""
    a = parser().parse_args(argv)
    try:
        experiment = load(a.experiment)
        hosts = {s: getattr(a, s) for s in SPLITS if getattr(a, s) > 0}
        plan = FieldPlan(experiment.seed, mimics=a.mimics)
        record = make_shards(a.out, hosts, experiment, plan, a.rendered, a.processes, a.overwrite)
    except Explained as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return 2
    for split, rows in record["counts"]["rows"].items():
        print(f"{split}: {sum(rows.values()):,} rows, {rows}")
    print(f"{a.out}: {record['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
