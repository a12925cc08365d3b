"""Rebuild the small summary tables beside this file from the real catalogues.

Only quantiles, rank correlations and type shares leave the catalogues; no object does. Run

    python -m darkhaloscope.simulated.reference.summarise --catalogs DIR

where DIR holds dr10_lrg_sample.parquet and dr10_region_seeing_and_depth.csv (DESI Legacy Imaging Surveys
DR10, Dey et al. 2019, AJ 157, 168), and commit the two JSON files it writes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from darkhaloscope.survey.photometry import magnitude

LEVELS = (0.005, 0.01, 0.02, 0.05, *np.round(np.arange(0.1, 0.91, 0.05), 2), 0.95, 0.98, 0.99, 0.995)
TYPES = ("REX", "EXP", "DEV", "SER")
Z_EDGES = (17.0, 18.5, 19.0, 19.5, 20.0, 20.4)
LRG_QUANTITIES = ("z", "r-z", "g-r", "z-w1")
CONDITIONS = ("psfsize_r", "psfdepth_r", "ebv")


def quantiles(values: np.ndarray) -> list[float]:
    """Return the quantiles of `values` at LEVELS, rounded to 4 digits."""
    return [round(float(v), 4) for v in np.quantile(values, LEVELS)]


def rank_correlation(columns: list[np.ndarray]) -> list[list[float]]:
    """Return the Spearman rank correlation matrix of the columns."""
    return np.round(np.asarray(spearmanr(np.stack(columns, axis=1)).statistic), 3).tolist()


def region_table(path: Path) -> dict[str, np.ndarray]:
    """Read the table of regions as name -> array."""
    table = pacsv.read_csv(path)
    return {name: table.column(name).to_numpy() for name in table.column_names}


def summarise_lrgs(path: Path, regions: dict[str, np.ndarray]) -> dict[str, object]:
    """Summarise the LRG sample: the extended ones with flux in every band, magnitudes as observed."""
    table: pa.Table = pq.read_table(path)
    column = {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
    mags = {band: magnitude(column[f"FLUX_{band.upper()}"]) for band in ("g", "r", "z", "w1")}
    kept = (column["TYPE"] != "PSF") & np.all([np.isfinite(m) for m in mags.values()], axis=0)
    mags = {band: m[kept] for band, m in mags.items()}
    values = [mags["z"], mags["r"] - mags["z"], mags["g"] - mags["r"], mags["z"] - mags["w1"]]
    kind = column["TYPE"][kept]
    shares = []
    for low, high in zip((-np.inf, *Z_EDGES[1:-1]), Z_EDGES[1:], strict=True):
        inside = (mags["z"] >= low) & (mags["z"] < high)
        shares.append([round(float((kind[inside] == t).mean()), 3) for t in TYPES])
    return {
        "source": "dr10_lrg_sample.parquet: DR10 v3_color_relaxed selection, TYPE != PSF, observed magnitudes",
        "n_objects": int(kept.sum()),
        "density_per_deg2": round(float(np.median(regions["mean_lrg_density_v3_color_relaxed"])), 1),
        "levels": list(LEVELS),
        "quantiles": dict(zip(LRG_QUANTITIES, map(quantiles, values), strict=True)),
        "rank_correlation": rank_correlation(values),
        "type_z_edges": list(Z_EDGES),
        "types": list(TYPES),
        "type_shares": shares,
    }


def summarise_conditions(regions: dict[str, np.ndarray]) -> dict[str, object]:
    """Summarise seeing (survey psfsize), depth (5-sigma AB) and reddening over the regions."""
    names = ("median_psf_r_arcsec", "median_psfdepth_r", "median_ebv")
    values = [regions[n] for n in names]
    return {
        "source": "dr10_region_seeing_and_depth.csv: medians over 2,693 DR10 regions",
        "levels": list(LEVELS),
        "quantiles": dict(zip(CONDITIONS, map(quantiles, values), strict=True)),
        "rank_correlation": rank_correlation(values),
    }


def main() -> None:
    """Read the catalogues, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogs", type=Path, required=True, help="folder with the two catalogue files")
    folder = parser.parse_args().catalogs
    regions = region_table(folder / "dr10_region_seeing_and_depth.csv")
    here = Path(__file__).parent
    tables = {
        "lrg_sample.json": summarise_lrgs(folder / "dr10_lrg_sample.parquet", regions),
        "conditions.json": summarise_conditions(regions),
    }
    for name, table in tables.items():
        (here / name).write_text(json.dumps(table, indent=1) + "\n")
        print(f"wrote {here / name}")


if __name__ == "__main__":
    main()
