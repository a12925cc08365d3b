"""Rebuild lrg_colours.csv from public catalogues.

    python -m darkhaloscope.survey.reference.build --lenses LENSES.tsv ...

LENSES: tables of Stein et al. (2022, ApJ 932, 107) with z_spec, mag_g, mag_r, mag_z, ebv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np

from darkhaloscope.stats.robust import mad_sigma
from darkhaloscope.survey.extinction import extinction

LRG_EDGES = np.arange(0.10, 0.951, 0.10)
LRG_R_Z = (0.5, 2.1)
LRG_MIN_G_R = 0.9
HEADER = ["galaxies", "redshift", "g_r", "r_z", "g_r_scatter", "r_z_scatter"]


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
        width = [mad_sigma(c[inside] - f(z[inside])) for c, f in zip(colours, line, strict=True)]
        middle = np.median(colours[:, inside], axis=1)
        values = (np.median(z[inside]), *middle, *width)
        rows.append([int(inside.sum()), *(f"{v:.3f}" for v in values)])
    return rows


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lenses", type=Path, nargs="+", required=True, help="tab-separated tables")
    rows = lrg_colours(parser.parse_args().lenses)
    with Path(__file__).with_name("lrg_colours.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)


if __name__ == "__main__":
    main()
