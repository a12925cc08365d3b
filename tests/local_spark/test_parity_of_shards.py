"""What a GPU host makes of a brick in memory is what the pipeline makes of the same brick's FITS files."""

import numpy as np

from darkhaloscope.experiment import load
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.stamps import make_stamps
from darkhaloscope.records import BANDS, TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Splits, Targets
from darkhaloscope.simulated.brick import observe
from darkhaloscope.simulated.field import MemoryBrick
from darkhaloscope.survey.bricks import read_brick_table
from darkhaloscope.survey.catalogue import read_catalogue
from darkhaloscope.survey.coadds import BrickReader
from darkhaloscope.survey.targets import select_targets
from local_spark.fits_layout import STEPS_PER_SIGMA
from local_spark.mini_sky import BRICK_TABLE
from local_spark.steps import REPOSITORY


def test_stamps_from_memory_are_those_of_stage_4c(small_sky, small_config):
    plan = small_config.plan[0]
    image, invvar, observed, _ = observe(small_config, plan)
    memory = MemoryBrick(plan.name, observed.wcs, image, invvar, observed.maskbits, observed.psfsize)
    experiment = load(REPOSITORY / "experiments" / "gen3.toml", {"injection.controls": "paired"})
    found = []
    for sweep in sorted((small_sky / "sweep" / "10.1").glob("*.fits")):
        columns = select_targets(
            read_catalogue(str(sweep)),
            Targets(),
            Splits(),
            42,
            read_brick_table(str(small_sky / BRICK_TABLE)),
        ).columns
        found.append(to_batch(TARGETS, {k: v[columns["brickname"] == plan.name] for k, v in columns.items()}))
    targets = next(t for t in found if t.num_rows)
    x, y = memory.sky_to_pixel(*(targets.column(n).to_numpy() for n in ("ra", "dec")))
    inside = (np.minimum(x, y) > 33) & (np.maximum(x, y) < small_config.pixels - 34)
    rows = lay_out_injections(targets.take(np.flatnonzero(inside)), experiment)
    gains = np.full(len(BANDS), 4e4)
    ours = make_stamps(memory, rows, experiment, gains=gains)
    with BrickReader(str(small_sky), plan.name) as brick:
        theirs = make_stamps(brick, rows, experiment, gains=gains)
    assert ours.num_rows > 2
    assert ours.column("task_id").equals(theirs.column("task_id"))
    step = np.array([observed.conditions.sky_sigma(b) for b in BANDS]) / STEPS_PER_SIGMA  # FITS compression's
    pixels = [
        np.array([np.frombuffer(c, "<f4") for c in t.column("stamp").to_pylist()]) for t in (ours, theirs)
    ]
    apart = np.abs(pixels[0] - pixels[1]).reshape(len(rows), len(BANDS), -1).max(axis=(0, 2))
    assert (apart < 1.01 * step).all()
    for name in ("arc_snr", "sky_sigma_r", "fwhm_g", "host_x", "magnification", "bad_fraction"):
        np.testing.assert_allclose(
            *(t.column(name).to_numpy() for t in (ours, theirs)), rtol=2e-3, err_msg=name
        )
