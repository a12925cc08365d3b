"""The selection function of the smoke run's finder: python -m local_spark.selection (or `make selection-function`).

Injects lenses over the whole source plane into the finder's own hosts of the test split, cuts and scores them with the
pipeline's own commands, and measures what the finder finds. Before it starts it says how many injections each cell can
expect and how long they take; with --plan it says no more. Started again it goes on where it stopped. The experiment is
the finder's, with a grid of Einstein radii and source magnitudes in the place of its injections and without controls;
it is written to <out>/selection, so that the same commands run on a cluster. Run `make smoke-local` first.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from darkhaloscope.dataset import DatasetError, commit_chunk, committed_chunks, read_table, write_part
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment, load
from darkhaloscope.stage import StageRun, input_hash, place, read_record
from darkhaloscope.stats.intervals import cluster_sums, wilson
from darkhaloscope.storage import join
from darkhaloscope.writing import replace_file
from evaluation.completeness import CELLS, ENOUGH, Edges, cell_of, shape_of
from local_spark.generations import as_toml
from local_spark.smoke import EXPERIMENT
from local_spark.steps import Step, python, run_steps, spark

RADIUS_OVER_THETA_E = (
    1.5  # of the circle that sources are in: beyond the tangential caustic of any lens of the grid
)
SOURCE_R = (
    20.5,
    21.5,
    22.5,
    23.5,
    24.5,
    25.5,
)  # behind the median host; behind others as much brighter or fainter
GRID = {
    "theta_e_arcsec": (0.45, 0.55, 0.7, 0.95, 1.25, 1.55, 2.0, 2.6),  # two in each of the coarse cells
    "src_reff_arcsec": (0.1, 0.2, 0.35),
    "src_e": (0.0, 0.3),
    "shear": (0.0, 0.05),
}


def hosts_of(out: str, finder: Experiment) -> pa.Table:
    """Return the finder's targets of the test split.

    Raises:
        DatasetError: there are none.
    """
    root = place(out, "phase3", finder)
    targets = read_table(root)
    hosts = targets.filter(pc.equal(targets.column("region_split"), "test"))
    if not hosts.num_rows:
        raise DatasetError(f"{root}: none of {targets.num_rows} targets is in the split test")
    return hosts


def source_dmag(hosts: pa.Table) -> tuple[float, ...]:
    """Return source minus host magnitudes in r, outside the Galaxy, that spread sources over the cells."""
    median = np.median(hosts.column("mag_dered_r").to_numpy())
    return tuple(round(float(r - median), 2) for r in SOURCE_R)


def expected(hosts: pa.Table, edges: Edges) -> tuple[np.ndarray, np.ndarray]:
    """Return what each cell can expect of injections into hosts: its share of them, and on how many hosts; (cells,)."""
    column = {n: hosts.column(n).to_numpy() for n in ("mag_dered_r", "psfsize_r", "psfdepth_r", "mag_r")}
    cells, n_cells = [], int(np.prod(shape_of(edges)))
    for theta_e, dmag in itertools.product(GRID["theta_e_arcsec"], source_dmag(hosts)):
        drawn = {
            "theta_e_arcsec": np.full(hosts.num_rows, theta_e),
            "src_mag_r": column["mag_dered_r"] + dmag,
        }
        cells.append(cell_of(column | drawn, edges))
    sums = cluster_sums(
        np.concatenate(cells),
        np.tile(np.arange(hosts.num_rows), len(cells)),
        np.zeros(len(cells) * hosts.num_rows, bool),
        n_cells,
    )
    return sums[:, 0] / sums[:, 0].sum(), sums[:, 2]


def prospect(
    shares: np.ndarray, on_hosts: np.ndarray, rows: int, hosts: int, seconds_per_row: float | None
) -> str:
    """Return what `rows` injections would give, and how many more it takes, as lines for a terminal.

    Args:
        shares, on_hosts: (cells,) of `expected`.
        rows: injections.
        hosts: that share them.
        seconds_per_row: what one takes; None: not known.
    """
    reached, few = np.sort(shares[shares > 0])[::-1], on_hosts[shares > 0]
    enough = {
        share: int(np.ceil(ENOUGH / reached[int(np.ceil(share * len(reached))) - 1]))
        for share in (0.5, 0.9, 1)
    }

    def takes(n: int) -> str:
        return f"{n:,}" + (f" (at most about {n * seconds_per_row / 60:.0f} min)" if seconds_per_row else "")

    lines = [
        f"{len(reached)} of {len(shares):,} cells can be reached: hosts or grid have nothing in the others",
        f"{takes(rows)} injections on {hosts:,} hosts: {ENOUGH} or more expected in "
        f"{int((rows * reached >= ENOUGH).sum())} cells, fewest {rows * reached[-1]:,.0f}",
        *(
            f"{ENOUGH} in {share:.0%} of the cells that can be reached: N = {takes(n)}"
            for share, n in enough.items()
        ),
        f"{few.min():,} to {few.max():,} hosts in a cell: at a completeness of 0.5, {ENOUGH} injections give "
        f"+-{_half(ENOUGH):.2f} where a host's are independent, +-{_half(few.max()):.2f} to +-{_half(few.min()):.2f} "
        "where they all fare alike",
    ]
    if seconds_per_row:
        lines.append(
            "Times are a row's in the finder's own run: with the start of commands, which a longer run divides by more."
        )
    return "\n".join(lines)


def _half(n: int) -> float:
    """Return half the width of the interval of a share of 0.5 of n independent injections."""
    low, high = wilson(n / 2, n)
    return float(high - low) / 2


def seconds_per_row(out: str, finder: Experiment) -> float | None:
    """Return what cutting and scoring took in the finder's own run, a row; None where it left no record."""
    records = [
        (read_record(place(out, "phase4c", finder)), "rows"),
        (read_record(join(out, "scores", finder.name)), "scored"),
    ]
    if any(record is None or not record.get("counts", {}).get(rows) for record, rows in records):
        return None
    return sum(record["seconds"] / record["counts"][rows] for record, rows in records if record)


def take_hosts(out: str, finder: Experiment, experiment: Experiment, hosts: pa.Table) -> None:
    """Write hosts as the targets of an experiment, in the place of its stage 3."""
    inputs = {"targets": input_hash(place(out, "phase3", finder))}
    root = place(out, "phase3", experiment)
    with StageRun(root, "3", experiment, ("survey", "splits"), inputs, {"split": "test"}) as run:
        if not committed_chunks(root):
            commit_chunk(root, 0, [write_part(root, 0, 0, hosts.to_batches(), hosts.schema)])
        run.finish(rows=hosts.num_rows)


def over_the_plane(file: str, sky: str, rows: int, hosts: pa.Table) -> Experiment:
    """Return a finder's experiment with injections over the whole source plane.

    Args:
        file: the finder's experiment file.
        sky: root of the survey.
        rows: injections, shared by all hosts.
        hosts: targets to inject into.
    """
    per_host = -(-rows // hosts.num_rows)
    grid = GRID | {"src_dmag": source_dmag(hosts)}
    grid = {f"injection.custom_grid.{axis}": list(values) for axis, values in grid.items()}
    return load(file, grid | {
        "survey.source": sky, "experiment_id": f"selection_{rows}", "injection.tier": "train",
        "injection.prior": "grid", "injection.grid": "custom", "injection.controls": "unpaired",
        "injection.control_frac": 0.0, "injection.match_total_magnitude": False,
        "injection.max_offset_over_theta_e": RADIUS_OVER_THETA_E, "injection.n_total_per_split": rows,
        "injection.replicates": per_host,
    })  # fmt: skip


def steps(
    out: str, experiment: Experiment, file: str, checkpoint: str, metrics: str, cells: str
) -> list[Step]:
    """Return the commands from the hosts to the selection function."""
    names = {
        "4a": "lay out injections over the source plane",
        "4b": "cache the coadds",
        "4c": "cut stamps and inject arcs",
    }
    shared = ("--experiment", file, "--output-s3", out)
    made = [
        Step(f"phase{s}", what, spark("phase4_pipeline.py", "--stage", s, *shared))
        for s, what in names.items()
    ]
    scores = join(out, "selection", experiment.experiment_id, "scores")
    score = (
        "-m",
        "evaluation.score",
        "--checkpoint",
        checkpoint,
        "--data",
        place(out, "phase4c", experiment),
    )
    measure = (
        "-m",
        "evaluation.selection_function",
        "--scores",
        scores,
        "--metrics",
        metrics,
        "--cells",
        cells,
    )
    return [
        *made,
        Step("score", "score them", python(*score, "--out", scores, "--overwrite")),
        Step("measure", "what was found", python(*measure, "--out", join(out, "evaluation"))),
    ]


def speed(rows: int, seconds: Mapping[str, float]) -> str:
    """Return how fast it went, for a terminal."""
    parts = {"cutting": "phase4c", "scoring": "score"}
    each = ", ".join(f"{name} {rows / seconds[step]:,.0f}" for name, step in parts.items())
    total = sum(seconds.values())
    return f"{rows:,} injections in {total / 60:.1f} min: {rows / total:,.0f} a second; {each}"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(
        "python -m local_spark.selection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--out", default="smoke-out", help="workspace of the smoke run (default: %(default)s)")
    p.add_argument("--experiment", default=str(EXPERIMENT), help="the finder's (default: %(default)s)")
    p.add_argument("--sky", default="", help="root of the survey (default: <out>/sky)")
    p.add_argument("--checkpoint", default="", help="finder (default: <out>/training/<name>/best.pt)")
    p.add_argument("--metrics", default="", help="thresholds (default: <out>/evaluation/metrics.json)")
    p.add_argument(
        "--n", type=int, default=4000, help="injections, shared by all hosts (default: %(default)s)"
    )
    p.add_argument(
        "--cells", choices=CELLS, default="coarse", help="see evaluation.completeness (default: %(default)s)"
    )
    p.add_argument("--plan", action="store_true", help="only say what N injections would give, and take")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run everything; return the exit status."""
    a = parser().parse_args(argv)
    try:
        finder = load(a.experiment)
        hosts = hosts_of(a.out, finder)
        cells = expected(hosts, CELLS[a.cells])
        print(prospect(*cells, a.n, hosts.num_rows, seconds_per_row(a.out, finder)))
        if not a.plan:
            run(a, finder, hosts)
    except Explained as error:
        print(f"selection: {error}", file=sys.stderr)
        return 1
    return 0


def run(a: argparse.Namespace, finder: Experiment, hosts: pa.Table) -> None:
    """Inject, score and measure.

    Raises:
        Explained: see what it calls.
    """
    experiment = over_the_plane(a.experiment, a.sky or join(a.out, "sky"), a.n, hosts)
    file = join(a.out, "selection", f"{experiment.experiment_id}.toml")
    replace_file(file, as_toml(experiment.as_dict()).encode())
    take_hosts(a.out, finder, experiment, hosts)
    checkpoint = a.checkpoint or join(a.out, "training", experiment.name, "best.pt")
    metrics = a.metrics or join(a.out, "evaluation", "metrics.json")
    print(speed(a.n, run_steps(steps(a.out, experiment, file, checkpoint, metrics, a.cells))))


if __name__ == "__main__":
    sys.exit(main())
