"""The small kernels of stage 4c, each beside the library or the numpy that it stands in for, on one core.

    python benchmarks/kernels.py [--rounds 15]

Writes ``results/kernels.json``: microseconds of each and their ratio, the median of rounds in which they take turns.
Every pair is first seen to give the same result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fitsio
import numpy as np
from scipy.stats import theilslopes

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from record import write_result  # noqa: E402

from darkhaloscope.injection.measure import measure_arc, median  # noqa: E402
from darkhaloscope.injection.noise import _theil_sen, with_photon_noise  # noqa: E402
from darkhaloscope.stored import stored  # noqa: E402
from darkhaloscope.survey.fits_headers import read_units  # noqa: E402
from darkhaloscope.survey.tiles import Tiles  # noqa: E402

SIDE, SIZE, STAMPS = 3600, 64, 50
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def of_files(folder: Path, rng: np.random.Generator) -> dict[str, Pair]:
    """Fifty stamps and the headers of an image as the survey compresses it, by us and by fitsio."""
    path = str(folder / "plane.fits.fz")
    plane = rng.normal(0, 0.003, (SIDE, SIDE)).astype(np.float32)
    rice = {"compress": "RICE_1", "qlevel": 4.0, "qmethod": "SUBTRACTIVE_DITHER_2", "dither_seed": 77}
    fitsio.write(path, plane, tile_dims=[100, 100], **rice)
    fits, corners = fitsio.FITS(path), rng.integers(0, SIDE - SIZE, (STAMPS, 2))
    unit = read_units(path)[1]

    def refuse(*window: int) -> np.ndarray:
        raise AssertionError(f"left to fitsio: {window}")

    tiles = Tiles.of(path, unit.cards, unit.data_start, refuse)
    assert tiles is not None

    def ours() -> np.ndarray:
        out = np.zeros((STAMPS, SIZE, SIZE), np.float32)
        assert tiles.windows(corners, out).all()
        return out

    def theirs() -> np.ndarray:
        return np.stack([fits[1][y : y + SIZE, x : x + SIZE] for x, y in corners.tolist()])

    def header() -> dict[str, Any]:
        with fitsio.FITS(path) as opened:
            cards = opened[1].read_header_list()
        return {c["name"]: c["value"] for c in cards if c["name"] not in ("COMMENT", "HISTORY", "")}

    return {"stamps of a plane": (ours, theirs), "header": (lambda: read_units(path)[1].cards, header)}


def of_pixels(rng: np.random.Generator) -> dict[str, Pair]:
    """What is done to the pixels of one stamp."""
    image = rng.normal(0, 0.003, (3, SIZE, SIZE)).astype(np.float32)
    arc = rng.uniform(0, 0.01, image.shape).astype(np.float32)
    bad, invvar, gain = rng.random((SIZE, SIZE)) < 0.1, np.full(image.shape, 1e5), np.array([3e4, 4e4, 5e4])
    x = np.sort(rng.random(10))
    y = x + rng.normal(0, 0.1, 10)

    def snr() -> np.ndarray:
        light = arc.astype(np.float64)
        squared = light**2 * np.where((invvar > 0) & ~bad, invvar, 0.0)
        return np.append(np.sqrt(squared.sum((1, 2))), light.sum((1, 2)))

    def ours() -> np.ndarray:
        found = measure_arc(arc, invvar, bad, 1.0)
        return np.append(found.snr, found.flux)

    return {
        "float16": (lambda: stored(image, "float16"), lambda: image.astype(np.float16)),
        "SNR and flux of an arc": (ours, snr),
        "inverse variance with an arc": (
            lambda: with_photon_noise(invvar, arc, gain),
            lambda: invvar / (1.0 + invvar * np.maximum(arc, 0.0) / gain[:, None, None]),
        ),
        "median": (lambda: median(image[0].ravel()), lambda: np.median(image[0])),
        "slope of Theil and Sen": (lambda: _theil_sen(x, y), lambda: theilslopes(y, x)[0]),
    }


def seconds(run: Callable[[], Any]) -> float:
    """Time of one call, on average over some."""
    begun, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begun < 0.01:
        run()
        calls += 1
    return (time.perf_counter() - begun) / calls


def same(ours: Any, theirs: Any) -> bool:
    """Whether both give the same."""
    return ours == theirs if isinstance(ours, dict) else np.allclose(ours, theirs, rtol=1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="times that each pair takes turns")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng, figures = np.random.default_rng(1), {}
    with tempfile.TemporaryDirectory(prefix="bench-kernels-") as folder:
        for name, pair in {**of_files(Path(folder), rng), **of_pixels(rng)}.items():
            assert same(*(run() for run in pair)), f"{name}: not the same result"
            times = np.array([[seconds(run) for run in pair] for _ in range(options.rounds)])
            ours, peer = (float(1e6 * t) for t in np.median(times, axis=0))
            ratio = float(np.median(times[:, 1] / times[:, 0]))
            figures[name] = {"ours_us": ours, "peer_us": peer, "ours_over_peer": ratio}
    print(json.dumps(figures, indent=1))
    target = write_result("kernels", {"rounds": options.rounds, **figures}, ["fitsio"])
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
