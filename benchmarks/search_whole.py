"""A whole search, killed in the middle and started again: time, memory of each process, and whether every row ends.

    python benchmarks/search_whole.py [--rows 125000 --absent 5000 --bricks 6]

Writes ``results/search_whole.json`` (``search_whole_small.json`` below 100,000 rows). Positions, and then the same
places as the targets of an area: `rows` of them in painted bricks of the mini sky (of six one lacks a band), and two
in each of `absent` bricks without coadds. The finder is a mean of pixels, so that all time is the search's own. One
core scores; memory is each process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), *(str(ROOT / "tests" / n) for n in ("search", "survey"))]

from record import write_result  # noqa: E402
from survey_testing import galaxies  # noqa: E402
from tiny_model import experiment_like, write_model  # noqa: E402

from darkhaloscope.dataset import committed_chunks, committed_files, open_part  # noqa: E402
from darkhaloscope.simulated.sky_plan import PLAN, BrickPlan, SkyConfig  # noqa: E402
from darkhaloscope.survey.bricks import brick_centre, brick_name, parse_names  # noqa: E402
from darkhaloscope.survey.wcs import TanWcs  # noqa: E402
from local_spark.mini_sky import BRICK_TABLE, paint_sky  # noqa: E402

LARGE = 100_000
TICKS, MIB = os.sysconf("SC_CLK_TCK"), 1024.0


def absent_bricks(n: int) -> np.ndarray:
    """Names of bricks that nothing is painted in: n in a row of the sky after the other, from Dec -60 on."""
    rows = np.repeat(np.arange(120, 120 + n // 500 + 1), 500)[:n]
    return brick_name(rows, np.arange(n) % 500)


def places(rows: int, plans: tuple[BrickPlan, ...], absent: np.ndarray) -> np.ndarray:
    """Positions, (n, 2) deg: evenly in the painted bricks, away from their borders, and two in each absent one."""
    rng, found = np.random.default_rng(7), []
    for plan in plans:
        ra, dec = brick_centre(*parse_names([plan.name]))
        x, y = rng.uniform(250, 3350, (2, rows // len(plans)))
        found.append(np.stack(TanWcs.of_brick(ra[0], dec[0]).pixel_to_sky(x, y), axis=1))
    ra, dec = brick_centre(*parse_names(absent))
    found += [np.stack([ra + d, dec + d], axis=1) for d in (-0.02, 0.03)]
    return np.concatenate(found)


def write_tables(
    base: Path, sky: Path, rows: int, plans: tuple[BrickPlan, ...], absent: np.ndarray
) -> int:  # fmt: skip
    """Write the brick table, the sweep, the list of positions and that of bricks; return how many positions."""
    table = fitsio.read(str(sky / BRICK_TABLE))
    more = np.repeat(table[:1], len(absent))
    more["brickname"] = absent
    more["ra"], more["dec"] = brick_centre(*parse_names(absent))
    (base / "sweep" / "10.1").mkdir(parents=True)
    fitsio.write(str(base / BRICK_TABLE), np.concatenate([table, more]), clobber=True)
    at = places(rows, plans, absent)
    ra, dec = at.T
    objid = np.arange(len(at)) % 60_000  # 16 bits of a host_id; a brick's rows follow each other
    sweep = galaxies(len(at), ra=ra, dec=dec, OBJID=objid)
    fitsio.write(str(base / "sweep/10.1/sweep-000m090-360p090.fits"), sweep)
    named = pa.array([f"galaxy {i}" for i in range(len(at))])
    pq.write_table(pa.table({"name": named, "ra": ra, "dec": dec}), base / "positions.parquet")
    (base / "bricks.txt").write_text("\n".join([*(p.name for p in plans), *absent]))
    return len(at)


class Processes:
    """The processes of a command: peak memory (MiB) of each kind, and CPU seconds of all, as last seen."""

    def __init__(self) -> None:
        self.peak: dict[str, float] = {}
        self.cpu: dict[int, float] = {}

    def look(self, group: int) -> None:
        """Look at every process of a group (and the daemons that Spark starts in groups of their own)."""
        for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
            try:
                if os.getsid(pid) != group:
                    continue
                status = Path(f"/proc/{pid}/status").read_text()
                line = Path(f"/proc/{pid}/cmdline").read_text()
                times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, ProcessLookupError):
                continue
            found = re.search(r"VmHWM:\s+(\d+)", status)
            kind = "jvm" if "java" in line.split("\0")[0] else "worker" if "pyspark" in line else "driver"
            if found:
                self.peak[kind] = max(self.peak.get(kind, 0.0), round(int(found[1]) / MIB))
            self.cpu[pid] = (int(times[11]) + int(times[12])) / TICKS


def run(flags: list[str], kill_at: Path | None) -> tuple[dict[str, float], bool]:
    """Run a search on one core; with `kill_at`, kill all its processes once this file exists: (figures, whole)."""
    submit = shutil.which("spark-submit") or "spark-submit"
    command = [submit, "--master", "local[1]", str(ROOT / "spark_jobs" / "search_pipeline.py"), *flags]
    begun, seen = time.monotonic(), Processes()
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        seen.look(process.pid)
        if kill_at and kill_at.exists():
            _kill_session(process.pid)
            process.wait()
            break
        time.sleep(0.3)
    figures = {"seconds": round(time.monotonic() - begun, 1), "cpu_s": round(sum(seen.cpu.values()), 1)}
    return figures | {f"{k}_mib": v for k, v in sorted(seen.peak.items())}, process.returncode == 0


def _kill_session(session: int) -> None:
    """Kill what the command started, and nothing else."""
    for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except (OSError, ProcessLookupError):
            continue


def search(base: Path, sky: Path, model: str, what: list[str], n: int) -> dict[str, object]:
    """Search, kill, search on; return the figures of both, and check that nothing was lost or made twice."""
    out = base / "found"
    flags = ["--model", model, "--survey-source", str(base), "--coadds", str(sky), "--out", str(out),
             "--partitions", "1", *what]  # fmt: skip
    first, _ = run(flags, out / "scored/chunk=00001/_manifest.json")
    before = committed_chunks(str(out / "scored"))
    then, whole = run([*flags, "--take-over"], None)
    if not whole:
        raise RuntimeError(f"search {what}: the second run failed")
    chunks = committed_chunks(str(out / "scored"))
    summary = json.loads((out / "summary.json").read_text())
    kept = [(chunk, facts) for chunk, facts in before.items() if chunks[chunk] == facts]
    ids, stamps = set(), 0
    for url in committed_files(str(out / "scored")):
        with open_part(url) as part:
            rows = part.read(columns=["host_id", "stamp"])
        ids |= set(rows.column("host_id").to_pylist())
        stamps += rows.num_rows - rows.column("stamp").null_count
    checks = {
        "chunks_kept": len(kept) == len(before) > 0,
        "no_row_twice": len(ids) == sum(c["rows"] for c in chunks.values()),
        "all_end": summary["scored"] + sum(summary["refused"].values()) + _merged(summary, what) == n,
    }
    if not all(checks.values()):
        raise RuntimeError(f"search {what}: {checks}, {n} rows, {summary}")
    figures = {"rows": n, "first": first, "then": then, "chunks": len(chunks), "killed_after": len(before)}
    figures |= {"stamps_kept": stamps, "parts": sum(len(c["parts"]) for c in chunks.values())}
    figures |= {k: summary[k] for k in ("scored", "refused", "merged")}
    shutil.rmtree(out)
    return figures


def _merged(summary: dict, what: list[str]) -> int:
    """Rows that another stands for; of a list they are among the refused, as duplicates."""
    return 0 if "--positions" in what else summary["merged"]


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=4000, help="in painted bricks (default: %(default)s)")
    parser.add_argument(
        "--absent", type=int, default=300, help="bricks without coadds (default: %(default)s)"
    )
    parser.add_argument("--bricks", type=int, default=2, help="painted, 1 to 6 (default: %(default)s)")
    parser.add_argument("--sky", type=Path, help="a mini sky that is painted already")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-search-whole-") as name:
        base = Path(name)
        sky = args.sky or base / "sky"
        if args.sky is None:
            paint_sky(sky, SkyConfig(bricks=args.bricks))
        n = write_tables(base, sky, args.rows, PLAN[: args.bricks], absent_bricks(args.absent))
        model = write_model(base / "finder.onnx", experiment_like())
        figures = {}
        for kind, what in (("positions", ["--positions", str(base / "positions.parquet")]),
                           ("area", ["--bricks", str(base / "bricks.txt"), "--candidates", "300"])):  # fmt: skip
            figures[kind] = search(base, sky, model, what, n)
            print(kind, json.dumps(figures[kind], indent=1))
    name = (
        "search_whole" if args.rows >= LARGE else "search_whole_small"
    )  # docs/search.md shows the large one
    print(write_result(name, figures, packages=["pyarrow", "pyspark", "onnxruntime"]))


if __name__ == "__main__":
    main()
