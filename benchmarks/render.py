"""Speed and accuracy of the renderer beside other codes: same run, same rows, same truth, interleaved.

    python benchmarks/render.py [--rounds 15] [--truth 60] [--peers DIRECTORY]

Writes ``results/render.json`` and ``results/render.png`` (stamps per second against relative rms). One core,
one thread, glibc's malloc kept from giving memory back (which helps every code here). A stamp is 64 x 64 pixels
in three bands; the rows are the random lenses of the accuracy promise (`tests/lensing/draws.py`), a fifth of
them with the source on a caustic. lenstronomy is measured as its tutorials use it (each band on its own, 4 x 4
sub-pixels) and at its best (sub-pixels only where the light is, one tracing for all bands, the pixel taken out
of the kernel); JAXtronomy and caustics, where installed, at 4 x 4 with one tracing and compiled once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
if (
    __name__ == "__main__"
    and os.environ.get("MALLOC_TRIM_THRESHOLD_") != ENVIRONMENT["MALLOC_TRIM_THRESHOLD_"]
):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})

import numpy as np  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "lensing")]

import peers  # noqa: E402
from draws import draw, relative_rms, scene_of, truth_of  # noqa: E402
from record import RESULTS, summary, write_result  # noqa: E402
from test_pixelised import bank_of  # noqa: E402
from test_pixelised import truth as image_truth  # noqa: E402

from darkhaloscope.lensing.pixelised import SourceImages  # noqa: E402
from darkhaloscope.lensing.psf import Psf  # noqa: E402
from darkhaloscope.lensing.render import render  # noqa: E402

BATCH = 512
Rows = dict[str, np.ndarray]
Stamps = list[tuple[np.ndarray, np.ndarray]]  # (places among the rows, their images (n, band, y, x))
Code = Callable[[Rows], Stamps]


def ours(rows: Rows, bank: SourceImages | None = None) -> Stamps:
    """All rows, the Gaussian PSFs in one call and the Moffats in another."""
    stamps, scene = [], scene_of(rows, n_band=peers.N_BAND)
    for gaussian in (True, False):
        at = np.flatnonzero(rows["gaussian"] == gaussian)
        fwhm = np.repeat(rows["fwhm"][at, None], peers.N_BAND, 1)
        psf = Psf.gaussian(fwhm) if gaussian else Psf.moffat(fwhm, rows["beta"][at])
        stamps.append(
            (at, render(scene.take(at), psf, sources=None if bank is None else bank.take(at)).image)
        )
    return stamps


def one_by_one(draw_row: peers.Draw) -> Code:
    """A peer that draws a row at a time, as a function of all rows."""

    def code(rows: Rows) -> Stamps:
        n = len(rows["fwhm"])
        return [(np.arange(n), np.stack([draw_row(rows, i) for i in range(n)]))]

    return code


def sersic_codes() -> dict[str, tuple[Code, int]]:
    """Name -> (renderer, rows per timed batch)."""
    lenstronomy = peers.Lenstronomy()
    codes: dict[str, tuple[Code, int]] = {
        "darkhaloscope": (ours, BATCH),
        "lenstronomy, tutorial 4x": (one_by_one(lenstronomy.tutorial), 8),
        "lenstronomy, adaptive": (one_by_one(lenstronomy.adaptive), 32),
    }
    for name, make in (("JAXtronomy 4x", peers.Jaxtronomy), ("caustics 4x", peers.Caustics)):
        try:
            codes[name] = (one_by_one(make().draw), 32)
        except ImportError as missing:
            print(f"{name}: left out, {missing}")
    return codes


def image_codes(n: int) -> dict[str, tuple[Code, int]]:
    """As :func:`sersic_codes`, for rows with the images of a bank of n stamps."""
    bank = bank_of(n, seed=21)
    lenstronomy = peers.Lenstronomy(bank)

    def ours_with_images(rows: Rows) -> Stamps:
        return ours(rows, bank.take(np.arange(len(rows["fwhm"]))))

    return {
        "darkhaloscope": (ours_with_images, n),
        "lenstronomy, tutorial 4x": (one_by_one(lenstronomy.tutorial), 4),
        "lenstronomy, adaptive": (one_by_one(lenstronomy.adaptive), 16),
    }


def head(rows: Rows, n: int, start: int = 0) -> Rows:
    """N rows from ``start``."""
    return {k: v[start : start + n] for k, v in rows.items()}


def measure(codes: dict, rows: Rows, truth: np.ndarray, rounds: int) -> dict:
    """Accuracy of each code on the truth's rows, and its rate in ``rounds`` interleaved rounds."""
    n = len(truth)
    found: dict = {}
    for name, (code, _) in codes.items():
        image = np.empty(truth.shape)
        for at, stamps in code(head(rows, n)):
            image[at] = stamps[:, 0]
        rms = relative_rms(image, truth)
        p50, p95, worst = np.percentile(rms, [50, 95, 100])
        caustic = rows["caustic"][:n]
        tail = float(np.percentile(rms[caustic], 95)) if caustic.any() else None
        found[name] = {
            "rms_p50": p50,
            "rms_p95": p95,
            "rms_max": worst,
            "rms_p95_on_a_caustic": tail,
            "rates": [],
        }
    for _ in range(rounds):
        for name, (code, batch) in codes.items():
            part = head(rows, batch)
            started = time.perf_counter()
            code(part)
            found[name]["rates"].append(len(part["fwhm"]) / (time.perf_counter() - started))
    for one in found.values():
        one["stamps_per_second"] = summary(one.pop("rates"))
    best = found["darkhaloscope"]["stamps_per_second"]["median"]
    for one in found.values():
        one["ours_is_faster_by"] = best / one["stamps_per_second"]["median"]
    return found


def plot(figures: dict, target: Path) -> None:
    """Stamps per second against relative rms (median to 95th percentile), both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for axis, (kind, codes) in zip(axes, figures.items(), strict=True):
        for name, one in codes.items():
            rate = one["stamps_per_second"]["median"]
            axis.plot([one["rms_p50"], one["rms_p95"]], [rate, rate], lw=1.5)
            axis.plot(
                one["rms_p95"], rate, "o", color=axis.lines[-1].get_color(), label=f"{name}: {rate:,.0f}/s"
            )
        axis.set(
            xscale="log",
            yscale="log",
            title=f"{kind} sources",
            xlabel="relative rms, median to 95th percentile",
        )
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("three-band 64 x 64 stamps per second, one core")
    figure.savefig(target, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="interleaved timing rounds")
    parser.add_argument("--truth", type=int, default=60, help="rows compared with adaptive quadrature")
    parser.add_argument("--peers", help="a folder with further peers installed (pip install --target)")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(options.peers)
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = draw(BATCH, seed=21)
    truth = np.array([truth_of(rows, i)[0] for i in range(options.truth)])
    bank, n_image = bank_of(128, seed=21), max(8, options.truth // 3)
    images = np.array([image_truth(rows, bank, i)[0] for i in range(n_image)])
    figures = {
        "Sersic": measure(sersic_codes(), rows, truth, options.rounds),
        "image": measure(image_codes(128), rows, images, options.rounds),
    }
    for kind, codes in figures.items():
        for name, one in codes.items():
            rate = one["stamps_per_second"]
            print(
                f"{kind:7s} {name:26s} {rate['median']:9,.0f}/s ({rate['p10']:,.0f} to {rate['p90']:,.0f})"
                f"  rms p50 {one['rms_p50']:.1e} p95 {one['rms_p95']:.1e}  ours is {one['ours_is_faster_by']:.0f}x"
            )
    settings = {
        "rounds": options.rounds,
        "truth_rows": options.truth,
        "image_truth_rows": n_image,
        "batch": BATCH,
    }
    target = write_result(
        "render",
        {"settings": settings, **figures},
        packages=["lenstronomy", "jaxtronomy", "jax", "caustics", "torch"],
    )
    plot(figures, RESULTS / "render.png")
    print(f"wrote {target} and {RESULTS / 'render.png'}")


if __name__ == "__main__":
    main()
