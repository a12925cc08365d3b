"""Speed and memory of stage 3 beside the same cuts as a notebook has them: same run, same rows, interleaved.

    python benchmarks/stage3.py [--rows 500000] [--rounds 7]

Writes ``results/stage3.json``: sweep rows per second on one core for the cuts (rows in memory: `select_targets` with
splits and redshifts, the production call), for reading (`read_chunks`, against astropy's and fitsio's readers, all
warm in the page cache), for both together, and the highest memory of a process that does both. The peer, pandas and
astropy, applies the same cuts to whole columns; that both select the same galaxies is checked first. The sweep is
made (`tests/survey/dr10_sweep.py`): DR10's columns, one row in a hundred a target.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import astropy.units as u  # noqa: E402
import fitsio  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from astropy.table import Table  # noqa: E402
from astropy_healpix import HEALPix  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "survey")]

from dr10_sweep import brick_table, memory_of_selecting, sweep_rows, write_sweep  # noqa: E402
from record import summary, write_result  # noqa: E402

from darkhaloscope.sections import Splits, Targets  # noqa: E402
from darkhaloscope.survey.bricks import BrickTable  # noqa: E402
from darkhaloscope.survey.catalogue import OPTIONAL, REQUIRED, host_id, read_chunks  # noqa: E402
from darkhaloscope.survey.duplicates import keep_unique  # noqa: E402
from darkhaloscope.survey.targets import VARIANTS, select_targets  # noqa: E402

TARGETS, SPLITS = Targets(variant="v4_mag_relaxed"), Splits()
NO_GUARD = Splits(guard_arcsec=0.0)


def peer(frame: pd.DataFrame, bricks: BrickTable) -> pd.DataFrame:
    """The same cuts as a notebook has them: whole columns, names joined as text, a mask at the end."""
    frame = frame.copy(deep=False)
    frame["TYPE"] = frame["TYPE"].str.decode("ascii").str.strip()
    frame["BRICKNAME"] = frame["BRICKNAME"].str.decode("ascii").str.strip()
    with np.errstate(invalid="ignore", divide="ignore"):
        for band in ("G", "R", "Z", "W1"):
            frame[f"MAG_{band}"] = 22.5 - 2.5 * np.log10(frame[f"FLUX_{band}"])
    table = pd.DataFrame({k: bricks.columns[k] for k in ("brickname", "ebv", "psfsize_r", "psfdepth_r")})
    frame = frame.merge(table, left_on="BRICKNAME", right_on="brickname", how="inner")
    cuts = VARIANTS[TARGETS.variant]
    keep = ~frame["TYPE"].isin(["PSF", "DUP"])
    for band in ("R", "Z", "W1"):
        keep &= (frame[f"FLUX_{band}"] > 0) & (frame[f"FLUX_IVAR_{band}"] > 0)
    for band in "GRZ":
        keep &= (frame[f"PSFSIZE_{band}"] > 0) & (frame[f"PSFDEPTH_{band}"] > 0) & (frame[f"NOBS_{band}"] > 0)
    keep &= (frame["ebv"] <= TARGETS.max_ebv) & (frame["psfdepth_r"] >= TARGETS.min_psfdepth_r)
    keep &= frame["psfsize_r"] <= TARGETS.max_psfsize_r
    keep &= (frame["MAG_Z"] < cuts.z_max) & (frame["MAG_R"] - frame["MAG_Z"] > cuts.rz_min)
    keep &= frame["MAG_Z"] - frame["MAG_W1"] > cuts.zw1_min
    grid = HEALPix(nside=64, order="nested")
    frame["CELL"] = grid.lonlat_to_healpix(frame["RA"].to_numpy() * u.deg, frame["DEC"].to_numpy() * u.deg)
    return frame[keep]


def rate(rows: int, action: Callable[[], object]) -> float:
    """Rows per second of CPU time of this process: neighbours on the machine do not count."""
    start = time.process_time()
    action()
    return rows / (time.process_time() - start)


def selected(pieces: list, bricks: BrickTable, splits: Splits = SPLITS) -> list:
    return [select_targets(piece, TARGETS, splits, 42, bricks) for piece in pieces]


def whole(path: str, bricks: BrickTable) -> int:
    """Read and cut a sweep as stage 3's task does; returns the number of targets."""
    return sum(select_targets(p, TARGETS, SPLITS, 42, bricks).counts["targets"] for p in read_chunks(path))


def measure(path: Path, n: int, rounds: int) -> dict[str, object]:
    bricks = brick_table(sweep_rows(100_000))
    pieces = list(read_chunks(str(path)))
    frame = Table.read(path, hdu=1)
    frame = frame[[c for c in frame.colnames if frame[c].ndim == 1]].to_pandas()
    ours = np.concatenate([s.columns["host_id"] for s in selected(pieces, bricks, NO_GUARD)])
    found = peer(frame, bricks)
    assert np.array_equal(np.sort(ours), np.sort(host_id(found["RELEASE"], found["BRICKID"], found["OBJID"])))
    wanted = [name.upper() for name in (*REQUIRED, *OPTIONAL) if name.upper() in frame.columns]
    last = selected(pieces, bricks)
    rows = {k: np.concatenate([s.columns[k] for s in last]) for k in ("host_id", "ra", "dec")}
    actions: dict[str, Callable[[], object]] = {
        "cuts": lambda: selected(pieces, bricks),
        "cuts_peer_pandas": lambda: peer(frame, bricks),
        "reading": lambda: list(read_chunks(str(path))),
        "reading_peer_astropy": lambda: Table.read(path, hdu=1),
        "reading_peer_fitsio_columns": lambda: fitsio.read(str(path), columns=wanted),
        "reading_and_cuts": lambda: whole(str(path), bricks),
        "duplicates": lambda: keep_unique(rows["host_id"], rows["ra"], rows["dec"]),
    }
    rates: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            rates[name].append(rate(len(rows["ra"]) if name == "duplicates" else n, action))
    return {
        "rows": n,
        "targets": len(rows["ra"]),
        "rows_per_second": {k: summary(v) for k, v in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_sweep(Path(folder) / "sweep-150p000-160p005.fits", options.rows)
        figures = measure(path, options.rows, options.rounds)
        figures["memory"] = memory_of_selecting(path)
    for name, values in figures["rows_per_second"].items():
        print(f"{name:30s} {values['median']:12,.0f} rows/s")
    print(
        figures["memory"], write_result("stage3", figures, ["astropy", "fitsio", "pandas", "astropy-healpix"])
    )


if __name__ == "__main__":
    main()
