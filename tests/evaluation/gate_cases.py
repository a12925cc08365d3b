"""Small stamp sets for the gates: hosts on correlated conditions, arcs by the house renderer, and planted shortcuts."""

from dataclasses import replace

import numpy as np
import torch
from fabricate import EXPERIMENT, fabricated_columns, write_record

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.injection.arcs import arc_of
from darkhaloscope.records import BANDS, STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Stamps, Training
from darkhaloscope.survey.photometry import flux
from training import checkpoint
from training.models import Finder
from training.preprocess import Preprocessing

SIZE = 24
GATED = replace(
    EXPERIMENT,
    stamps=Stamps(size=SIZE, dtype="float32"),
    training=Training(arch="small_resnet", precision="fp32"),
)
SPLITS = ("train", "val", "test")


def make_rows(n, seed=0):
    """Columns of `n` rows in three splits; nothing but the arc depends on the class."""
    rng = np.random.default_rng(seed)
    columns = fabricated_columns(n, seed)
    split = rng.permutation(np.arange(n) % 4)
    columns |= {
        "region_split": np.array(["train", "train", "val", "test"], object)[split],
        "ra": rng.uniform(0, 360, n),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
        "theta_e_arcsec": rng.uniform(0.4, 0.7, n),
        "src_reff_arcsec": rng.uniform(0.05, 0.1, n),
        **{f"src_mag_{b}": rng.uniform(22.5, 24, n) for b in BANDS},
        "source_id": np.full(n, -1),
        "host_x": SIZE / 2 - 0.5 + rng.uniform(-0.5, 0.5, n),
        "host_y": SIZE / 2 - 0.5 + rng.uniform(-0.5, 0.5, n),
        "maskbits_any": rng.choice([0, 2, 2048], n),
    }
    depth = rng.normal(0, 0.2, n)  # of the exposure: all bands share it
    columns |= {
        f"sky_sigma_{b}": s * 10 ** (0.4 * depth) for b, s in zip(BANDS, (0.002, 0.003, 0.008), strict=True)
    }
    columns |= {f"psfdepth_{b}": m - depth for b, m in zip(BANDS, (24.7, 24.2, 23.2), strict=True)}
    columns |= {f"fwhm_{b}": 0.745 * columns[f"psfsize_{b}"] for b in BANDS}
    return columns


def make_pixels(columns, seed=0, core=1.0, noise=1.0, pedestal=0.0):
    """Round hosts on sky noise, (n, band, y, x).

    `core` and `noise` multiply what positives have of it; `pedestal`, in sky sigmas, lifts all of a positive's pixels.
    """
    rng = np.random.default_rng(seed)
    positive = columns["label"] == 1
    y, x = np.mgrid[:SIZE, :SIZE]
    radius = 0.262 * np.hypot(x - columns["host_x"][:, None, None], y - columns["host_y"][:, None, None])
    own = rng.uniform(0.5, 1.0, len(positive))[:, None]
    widths = np.hypot(np.stack([columns[f"fwhm_{b}"] for b in BANDS], axis=1), own)[:, :, None, None]
    light = np.exp(-1.7 * radius[:, None] / widths)
    light /= light.sum(axis=(2, 3), keepdims=True)
    total = np.stack([flux(columns[f"mag_{b}"]) for b in BANDS], axis=1)[:, :, None, None]
    sky = np.stack([columns[f"sky_sigma_{b}"] for b in BANDS], axis=1)[:, :, None, None]
    brighter = np.where(positive[:, None, None] & (radius < 0.6), core, 1.0)[:, None]
    lifted = pedestal * positive[:, None, None, None]
    noisy = np.where(positive, noise, 1.0)[:, None, None, None] * rng.normal(size=light.shape)
    return (total * light * brighter + sky * (noisy + lifted)).astype(np.float32)


def write_pack(root, columns, pixels, change=lambda columns: columns):
    """Add each positive's arc, note its flux, let `change` spoil the columns, and write shards and their record."""
    blank = [b"\0" * 4] * len(pixels)
    metadata = stamp_metadata("float32", SIZE)
    arcs = arc_of(to_batch(STAMPS, {**columns, "stamp": blank}, metadata), GATED)
    stamps = pixels + arcs * (columns["label"] == 1)[:, None, None, None]
    columns = columns | {f"arc_flux_{b}": arcs[:, i].sum(axis=(1, 2)) for i, b in enumerate(BANDS)}
    columns = change(columns | {"stamp": np.array([s.tobytes() for s in stamps], object)})
    for split in SPLITS:
        inside = columns["region_split"] == split
        place = str(root / f"split={split}")
        batch = to_batch(STAMPS, {k: np.asarray(v)[inside] for k, v in columns.items()}, metadata)
        commit_chunk(place, 0, [write_part(place, 0, 0, [batch], STAMPS.arrow(metadata), rows_per_group=256)])
    write_record(root, "pack", {}, {}, GATED)
    return str(root)


def write_checkpoint(path, norm_method="sky_asinh", model=None, size=SIZE):
    """Write a checkpoint of an untrained (or the given) network."""
    torch.manual_seed(0)
    preprocessing = Preprocessing(norm_method=norm_method, size=size)
    model = model or Finder("small_resnet", preprocessing)
    content = {
        "model": model.state_dict(),
        "config": GATED.as_dict(),
        "preprocessing": preprocessing.as_dict(),
    }
    rest = {"data": {}, "progress": {}, "metrics": {}, "training_state": {}}
    checkpoint.save(path, content | rest)
    return str(path)
