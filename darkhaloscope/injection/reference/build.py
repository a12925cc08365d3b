"""Rebuild the table of this folder from public spectra and filter curves.

    python -m darkhaloscope.injection.reference.build --spectra SED --filters FILTERS

SED: folder of the BPZ templates (package desc-bpz, data_files/SED). FILTERS: folder of DECam curves
(package speclite, data/filters/decamDR1-*.ecsv; Abbott et al. 2018, ApJS 239, 18).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from darkhaloscope.injection.reference import TYPES

Curve = tuple[np.ndarray, np.ndarray]

HERE = Path(__file__).parent
REDSHIFTS = np.arange(0.0, 5.01, 0.05).round(2)
# Lyman alpha to delta: rest wavelength in Angstrom, and coefficient (Madau 1995, ApJ 441, 18, eq. 15)
LYMAN_LINES = ((1215.67, 0.0036), (1025.72, 0.0017), (972.54, 0.0012), (949.74, 0.00093))
LYMAN_LIMIT = 911.75


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
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spectra", type=Path, required=True)
    parser.add_argument("--filters", type=Path, required=True)
    arguments = parser.parse_args()
    colours = galaxy_colours(arguments.spectra, arguments.filters)
    _write(HERE / "galaxy_colours.csv", ["type", "redshift", "g_r", "r_i", "r_z", "k_r"], colours)


if __name__ == "__main__":
    main()
