"""Stamp sets that stages 4a and 4c make, of galaxies in a brick in memory: what the gates see of the real pipeline."""

import dataclasses

import numpy as np
from fabricate import write_record
from fake_brick import SIGMA, FakeBrick, at
from gate_cases import SPLITS
from injection_cases import experiment, target_table

from darkhaloscope.dataset import commit_chunk, write_part
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import make_stamps
from darkhaloscope.lensing.psf import psf_profile
from darkhaloscope.records import BANDS, PIXEL_SCALE_ARCSEC, STAMPS, stamp_metadata
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Grid, Training
from darkhaloscope.survey.photometry import magnitude

SIZE, SPACING, SIDE = 64, 45, 1305  # pixels: of a stamp, between hosts, of the brick
ARCS = Grid((0.7, 1.0, 1.3), (3.0, 4.0), (0.1, 0.2), (0.0, 0.3), (0.0, 0.04))


def an_experiment(source="sersic", controls="unpaired", psf="moffat", kernel="", grid=ARCS, **training):
    """An experiment on small stamps; a kind of source, of controls and of PSF."""
    made = experiment(
        injection={"source": source, "controls": controls, "grid": "custom", "custom_grid": grid},
        psf={"model": psf, "kernel": kernel}, stamps={"size": SIZE},
    )  # fmt: skip
    return dataclasses.replace(made, training=Training(arch="small_resnet", precision="fp32", **training))


class GalaxyBrick(FakeBrick):
    """A brick with a round red galaxy every few pixels, each of its own brightness and size, on sky noise."""

    def __init__(self, seed=0, sizes=(1.4, 1.25, 1.2)):
        super().__init__(SIDE, SIDE, sizes, seed=seed)
        rng = np.random.default_rng(seed)
        x, y = (
            c.ravel() + SPACING / 2 for c in np.mgrid[: SIDE - SPACING : SPACING, : SIDE - SPACING : SPACING]
        )
        self.x, self.y = (c + rng.uniform(-2, 2, len(x)) for c in (x, y))
        self.flux = rng.uniform(8, 40, len(x))[:, None] * np.array([0.25, 0.7, 1.3])  # nmgy
        light = np.zeros((3, SIDE, SIDE))
        reach = np.arange(-20, 21)
        for i, width in enumerate(rng.uniform(1.2, 1.8, len(x))):
            column, row = int(self.x[i]) + reach, int(self.y[i]) + reach
            part = np.ix_(row[(row >= 0) & (row < SIDE)], column[(column >= 0) & (column < SIDE)])
            radius = PIXEL_SCALE_ARCSEC * np.hypot(part[1] - self.x[i], part[0] - self.y[i])
            profile = psf_profile(radius, width, "moffat", 2.7) * PIXEL_SCALE_ARCSEC**2
            light[(slice(None), *part)] += self.flux[i][:, None, None] * profile
        noise = SIGMA[:, None, None] * rng.standard_normal(light.shape)
        self.image = (light + noise).astype(np.float32)
        self.invvar = np.broadcast_to(SIGMA[:, None, None] ** -2, light.shape).astype(np.float32)

    def targets(self, seed=0):
        """TARGETS rows of its galaxies; hosts differ from seed to seed."""
        n, split = len(self.x), np.random.default_rng(seed).integers(0, 4, len(self.x))
        found = {f"mag_{b}": magnitude(self.flux[:, i]) for i, b in enumerate(BANDS)}
        found |= {f"mag_dered_{b}": found[f"mag_{b}"] for b in BANDS}
        found["region_split"] = np.array(["train", "train", "val", "test"], object)[split]
        return target_table(n, first=1 + 10_000 * seed, **found, **at(self.x, self.y))


def stage_stamps(config, seed=0, **brick):
    """Columns of the STAMPS that stages 4a and 4c make, and their pixels (n, band, y, x)."""
    brick = GalaxyBrick(seed, **brick)
    made = make_stamps(brick, lay_out_injections(brick.targets(seed), config), config)
    assert np.mean(made.column("cutout_ok")) > 0.99
    made = made.filter(np.asarray(made.column("cutout_ok")) == 1)
    columns = {n: made.column(n) for n in made.schema.names}
    pixels = np.stack([np.frombuffer(c, "f4").reshape(3, SIZE, SIZE) for c in columns["stamp"].to_pylist()])
    return {n: c.to_numpy(zero_copy_only=False) for n, c in columns.items()}, pixels


def write_stamps(root, columns, pixels, config):
    """Write them as packed shards of float16, with their record; return the place."""
    columns = columns | {"stamp": np.array([p.astype("f2").tobytes() for p in pixels], object)}
    metadata = stamp_metadata("float16", SIZE)
    for split in SPLITS:
        inside = columns["region_split"] == split
        batch = to_batch(STAMPS, {n: v[inside] for n, v in columns.items()}, metadata)
        place = str(root / f"split={split}")
        commit_chunk(place, 0, [write_part(place, 0, 0, [batch], STAMPS.arrow(metadata), rows_per_group=256)])
    write_record(root, "pack", {}, {}, config)
    return str(root)
