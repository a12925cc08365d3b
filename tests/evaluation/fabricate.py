"""Fabricated tables with the real schemas: stamps of made-up galaxies, and scores drawn from two normals."""

import json

import numpy as np
import pyarrow as pa

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.draws import digest
from darkhaloscope.records import BANDS, SCORES, STAMP_SIZE, STAMPS, stamp_metadata, to_batch


def fabricated_columns(n, seed=0, split="test", n_cells=30):
    """Every column of STAMPS but the pixels, (n,) each; every second row is an injection."""
    rng = np.random.default_rng(seed)
    columns = {}
    for column in STAMPS.columns:
        if pa.types.is_string(column.type):
            columns[column.name] = np.full(n, "", object)
        elif pa.types.is_integer(column.type):
            columns[column.name] = np.zeros(n, np.int64)
        else:
            columns[column.name] = rng.uniform(0.5, 1.5, n)
    control = np.arange(n) % 2
    columns |= {
        "task_id": np.array([digest("fabricated", seed, i) for i in range(n)], object),
        "host_id": np.arange(n) + 1_000_000 * seed,
        "sky_cell": rng.integers(0, n_cells, n),
        "is_control": control,
        "control_kind": np.where(control == 1, "unpaired", "none").astype(object),
        "experiment_id": np.full(n, "fabricated", object),
        "region_split": np.full(n, split, object),
        "brickname": np.full(n, "0591m305", object),
        "type": rng.choice(["DEV", "SER", "EXP"], n).astype(object),
        "source_kind": np.full(n, "sersic", object),
        "psf_source": np.full(n, "map", object),
        "cutout_ok": np.ones(n, np.int8),
        "metrics_ok": np.ones(n, np.int8),
        "theta_e_arcsec": rng.uniform(0.5, 2.5, n),
        "theta_over_fwhm": rng.uniform(0.3, 2.5, n),
        "arc_snr": rng.lognormal(3, 1, n),
        "host_x": np.full(n, 32.0),
        "host_y": np.full(n, 32.0),
        "sky_sigma_g": np.full(n, 0.002),
        "sky_sigma_r": np.full(n, 0.003),
        "sky_sigma_z": np.full(n, 0.008),
        **{f"mag_{b}": rng.uniform(18, 21, n) for b in BANDS},
        **{f"psfsize_{b}": rng.uniform(1.0, 1.6, n) for b in BANDS},
        **{f"psfdepth_{b}": rng.uniform(23.8, 25.2, n) for b in BANDS},
    }
    return columns


def fabricated_pixels(columns, seed=0):
    """Pixels of a round galaxy on sky noise, a blue ring around it in injections; (n, band, y, x) float32."""
    rng = np.random.default_rng(seed)
    n = len(columns["task_id"])
    y, x = np.mgrid[:STAMP_SIZE, :STAMP_SIZE] - 32.0
    radius = np.hypot(x, y) * 0.262
    colour = np.array([0.25, 0.7, 1.3])[:, None, None]
    sky = np.stack([columns[f"sky_sigma_{b}"] for b in BANDS], axis=1)[:, :, None, None]
    image = rng.normal(size=(n, 3, STAMP_SIZE, STAMP_SIZE)) * sky + 0.5 * colour * np.exp(-radius / 0.6)
    ring = np.exp(-0.5 * ((radius - np.asarray(columns["theta_e_arcsec"])[:, None, None]) / 0.5) ** 2)
    arc = 0.03 * ring[:, None] * np.array([1.0, 0.8, 0.7])[:, None, None]
    return (image + arc * (np.asarray(columns["is_control"]) == 0)[:, None, None, None]).astype(np.float32)


def write_stamps(root, columns, pixels, dtype="float16", rows_per_group=64, parts=1):
    """Write a committed STAMPS dataset of `parts` files."""
    schema = STAMPS.arrow(stamp_metadata(dtype))
    cells = np.array([p.astype(dtype).tobytes() for p in pixels], object)
    cells[np.asarray(columns["cutout_ok"]) == 0] = None
    batch = to_batch(STAMPS, {**columns, "stamp": cells}, stamp_metadata(dtype))
    pieces = np.array_split(np.arange(batch.num_rows), parts)
    written = [
        write_part(str(root), 0, i, [batch.slice(p[0], len(p))], schema, rows_per_group=rows_per_group)
        for i, p in enumerate(pieces)
    ]
    commit_chunk(str(root), 0, written)


def write_scores(root, columns, logit, chunk=0, provenance=None):
    """Write one committed file of a SCORES dataset."""
    provenance = {"checkpoint": "c" * 16, "data": "d" * 16} if provenance is None else provenance
    schema = SCORES.arrow({"scored_with": json.dumps(provenance, sort_keys=True)})
    names = [n for n in SCORES.names if n != "logit"]
    batch = to_batch(SCORES, {**{n: columns[n] for n in names}, "logit": np.asarray(logit, np.float32)})
    commit_chunk(str(root), chunk, [write_part(str(root), chunk, 0, [batch], schema)])


def drawn_logits(columns, seed=0, separation=2.5):
    """Logits from two normals of unit width, by class."""
    rng = np.random.default_rng(seed)
    positive = np.asarray(columns["is_control"]) == 0
    return (rng.normal(size=len(positive)) + separation * positive).astype(np.float32)
