"""Rebuild the tables of this folder from public spectra, filter curves and catalogues.

    python -m darkhaloscope.injection.reference.build --spectra SED --filters FILTERS --lenses LENSES.tsv ...

SED: folder of the BPZ templates (package desc-bpz, data_files/SED). FILTERS: folder of DECam curves
(package speclite, data/filters/decamDR1-*.ecsv; Abbott et al. 2018, ApJS 239, 18). LENSES: tables of Stein et
al. (2022, ApJ 932, 107) with z_spec, mag_g, mag_r, mag_z, ebv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np

from darkhaloscope.injection.reference import TYPES
from darkhaloscope.survey.extinction import extinction

Curve = tuple[np.ndarray, np.ndarray]

HERE = Path(__file__).parent
REDSHIFTS = np.arange(0.0, 5.01, 0.05).round(2)
# Lyman alpha to delta: rest wavelength in Angstrom, and coefficient (Madau 1995, ApJ 441, 18, eq. 15)
LYMAN_LINES = ((1215.67, 0.0036), (1025.72, 0.0017), (972.54, 0.0012), (949.74, 0.00093))
LYMAN_LIMIT = 911.75
LRG_EDGES = np.arange(0.10, 0.951, 0.10)
LRG_R_Z = (0.5, 2.1)
LRG_MIN_G_R = 0.9


def transmission_of_space(wavelength: np.ndarray, redshift: float) -> np.ndarray:
    """Return the mean share of light that intergalactic hydrogen lets pass (Madau 1995, eq. 15 and footnote 3).

    Args:
        wavelength: observed, Angstrom.
        redshift: of the source.
    """
    tau = np.zeros_like(wavelength)
    for line, strength in LYMAN_LINES:
        tau += np.where(wavelength < line * (1 + redshift), strength * (wavelength / line) ** 3.46, 0.0)
    c, e = wavelength / LYMAN_LIMIT, 1 + redshift
    continuum = (
        0.25 * c**3 * (e**0.46 - c**0.46)
        + 9.4 * c**1.5 * (e**0.18 - c**0.18)
        - 0.7 * c**3 * (c**-1.32 - e**-1.32)
        - 0.023 * (e**1.68 - c**1.68)
    )
    return np.exp(-tau - np.where(c < e, np.maximum(continuum, 0.0), 0.0))


def magnitude(spectrum: Curve, filter_curve: Curve, redshift: float) -> float:
    """Return the AB magnitude, less distance modulus and a constant, of a photon-counting filter.

    Args:
        spectrum: rest wavelength in Angstrom, flux density per wavelength.
        filter_curve: wavelength in Angstrom, throughput.
        redshift: of the source.
    """
    at = np.linspace(filter_curve[0][0], filter_curve[0][-1], 1_500)
    response = np.interp(at, *filter_curve)
    density = np.interp(at / (1 + redshift), *spectrum) / (1 + redshift) * transmission_of_space(at, redshift)
    return float(-2.5 * np.log10(np.trapezoid(density * response * at, at) / np.trapezoid(response / at, at)))


def galaxy_colours(spectra: Path, filters: Path) -> list[list[object]]:
    """Return rows of galaxy_colours.csv; colours stop where no light of a template reaches g (NaN)."""
    curves = {b: _filter_curve(filters / f"decamDR1-{b}.ecsv") for b in "griz"}
    rows: list[list[object]] = []
    for name in TYPES:
        spectrum = tuple(np.loadtxt(spectra / f"{name}.sed").T)
        at_rest = magnitude(spectrum, curves["r"], 0.0)
        for z in REDSHIFTS:
            m = {b: magnitude(spectrum, curve, float(z)) for b, curve in curves.items()}
            found = (m["g"] - m["r"], m["r"] - m["i"], m["r"] - m["z"], m["r"] - at_rest)
            rows.append([name, f"{z:.2f}", *(f"{value:.3f}" for value in found)])
    return rows


def lrg_colours(tables: list[Path]) -> list[list[object]]:
    """Return rows of lrg_colours.csv: median dereddened colours, and their scatter, in bins of redshift."""
    found: list[dict[str, str]] = []
    for table in tables:
        with table.open() as file:
            found += csv.DictReader(file, delimiter="\t")
    z, ebv, g, r, zmag = (
        np.array([float(row[n]) for row in found]) for n in ("z_spec", "ebv", "mag_g", "mag_r", "mag_z")
    )
    g, r, zmag = (m - extinction(ebv, b) for m, b in ((g, "g"), (r, "r"), (zmag, "z")))
    colours = np.stack([g - r, r - zmag])
    good = np.isfinite(colours).all(axis=0) & (z > LRG_EDGES[0])
    good &= (colours[1] > LRG_R_Z[0]) & (colours[1] < LRG_R_Z[1]) & (colours[0] > LRG_MIN_G_R)
    rows: list[list[object]] = []
    for low, high in itertools.pairwise(LRG_EDGES):
        inside = good & (z >= low) & (z < high)
        # detrended inside the bin: the sequence's slope is not scatter
        line = [np.polynomial.Polynomial.fit(z[inside], c[inside], 1) for c in colours]
        width = [_robust(c[inside] - f(z[inside])) for c, f in zip(colours, line, strict=True)]
        middle = np.median(colours[:, inside], axis=1)
        values = (np.median(z[inside]), *middle, *width)
        rows.append([int(inside.sum()), *(f"{v:.3f}" for v in values)])
    return rows


def _robust(residual: np.ndarray) -> float:
    return 1.4826 * float(np.median(np.abs(residual - np.median(residual))))


def _filter_curve(path: Path) -> Curve:
    lines = [line.split() for line in path.read_text().splitlines() if not line.startswith("#")][1:]
    table = np.array(lines, float).T
    return table[0], table[1]


def _write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spectra", type=Path, required=True)
    parser.add_argument("--filters", type=Path, required=True)
    parser.add_argument("--lenses", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    colours = galaxy_colours(arguments.spectra, arguments.filters)
    _write(HERE / "galaxy_colours.csv", ["type", "redshift", "g_r", "r_i", "r_z", "k_r"], colours)
    header = ["galaxies", "redshift", "g_r", "r_z", "g_r_scatter", "r_z_scatter"]
    _write(HERE / "lrg_colours.csv", header, lrg_colours(arguments.lenses))


if __name__ == "__main__":
    main()
