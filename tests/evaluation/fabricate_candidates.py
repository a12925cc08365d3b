"""Fabricated catalogues of candidates with the real schema: a galaxy with noise in every stamp, arcs in some."""

import numpy as np
import pyarrow as pa

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.records import BANDS, STAMP_SIZE, stamp_metadata
from darkhaloscope.results import CANDIDATES
from darkhaloscope.schema import to_batch

N_REFUSED = 2
"""Rows at the end of every catalogue that have neither score nor stamp."""


def galaxies(n, seed=0):
    """Stamps (n, band, y, x): red galaxies with noise; every fourth has a blue ring around it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:STAMP_SIZE, :STAMP_SIZE] - (STAMP_SIZE - 1) / 2
    r, e = np.hypot(x, y)[None], rng.uniform(3, 8, (n, 1, 1))
    light = np.exp(-r / e)[:, None] * np.array([0.05, 0.2, 0.4])[:, None, None]
    ring = np.exp(-(((r - 7) / 1.5) ** 2))[:, None] * np.array([0.06, 0.05, 0.05])[:, None, None] * (x > -2)
    noise = rng.normal(0, 1, light.shape) * np.array([0.003, 0.004, 0.009])[:, None, None]
    return (light + ring * (np.arange(n) % 4 == 0)[:, None, None, None] + noise).astype(np.float32)


def candidate_columns(n, seed=0, stamps=None, **given):
    """Every column of CANDIDATES, (n,) each, ranked; `given` replaces columns."""
    rng = np.random.default_rng(seed)
    columns = {}
    for column in CANDIDATES.columns:
        if pa.types.is_string(column.type):
            columns[column.name] = [""] * n
        elif pa.types.is_integer(column.type):
            columns[column.name] = np.zeros(n, np.int64)
        else:
            columns[column.name] = rng.uniform(0.5, 1.5, n)
    centre = np.full(n, (STAMP_SIZE - 1) / 2)
    logit = np.sort(rng.normal(0, 3, n))[::-1]
    stamps = galaxies(n, seed) if stamps is None else stamps
    columns |= {
        "name": [f"DHS J{seed:02d}{i:04d}.00-300000.0" for i in range(n)],
        "ra": 10 * seed + np.arange(n) * 0.01,
        "dec": np.full(n, -30.0),
        "brickname": ["0591m305"] * n,
        "type": rng.choice(["DEV", "SER", "EXP"], n).tolist(),
        "known_name": [f"known lens {i}" if i % 7 == 3 else "" for i in range(n)],
        "bands": [BANDS] * n,
        "rank": np.arange(n) + 1,
        "logit": logit,
        "probability": 1 / (1 + np.exp(5 - logit)),
        "prevalence": np.full(n, 1e-4),
        "maskbits_any": np.where(np.arange(n) % 5 == 0, 1 << 1 | 1 << 11, 0),
        "host_x": centre,
        "host_y": centre,
        **{f"mag_{b}": rng.uniform(19, 21, n) for b in BANDS},
        **{f"psfdepth_{b}": rng.uniform(23, 25, n) for b in BANDS},
        "release": ["dr10-south"] * n,
        "viewer_url": [f"https://www.legacysurvey.org/viewer?ra={i / 100}&dec=-30&zoom=16" for i in range(n)],
        "stamp": [s.astype("<f4").tobytes() for s in stamps],
        **given,
    }  # fmt: skip
    return columns


def write_candidates(root, columns):
    """Write a committed catalogue, with `N_REFUSED` refused rows after the given ones; return its URL."""
    n = len(columns["name"])
    refused = candidate_columns(N_REFUSED, seed=99)
    refused |= {
        "refused": ["a band is missing"] * N_REFUSED,
        **{c: [None] * N_REFUSED for c in ("stamp", "rank", "logit", "probability")},
    }
    metadata = stamp_metadata()
    batches = [to_batch(CANDIDATES, c, metadata) for c in ([columns, refused] if n else [refused])]
    part = write_part(str(root), 0, 0, batches, CANDIDATES.arrow(metadata))
    commit_chunk(str(root), 0, [part])
    return str(root)
