"""Small tables and bricks that the injection tests share."""

import dataclasses

import numpy as np
import pyarrow as pa

from darkhaloscope.experiment import Experiment
from darkhaloscope.records import TARGETS
from darkhaloscope.schema import to_batch
from darkhaloscope.sections import Injection


def experiment(seed=42, **sections) -> Experiment:
    """An experiment; each section is a dict of fields, e.g. injection={"tier": "grid"}."""
    base = Experiment(
        name="t", variant="t", experiment_id="e1", seed=seed, injection=Injection(control_frac=0.5)
    )
    return dataclasses.replace(
        base, **{k: dataclasses.replace(getattr(base, k), **v) for k, v in sections.items()}
    )


def target_table(n=40, first=1, **replace) -> pa.RecordBatch:
    rng = np.random.default_rng(1)
    columns = {
        "host_id": np.arange(first, first + n),
        "ra": np.linspace(150.0, 150.1, n),
        "dec": np.linspace(2.0, 2.1, n),
        "brickname": ["1500p020"] * n,
        "type": ["SER"] * n,
        "sky_cell": np.arange(n) % 7,
        "region_split": np.array(["train", "val", "test", "train"])[np.arange(n) % 4],
        "ebv": np.full(n, 0.05),
        "mag_w1": np.full(n, 17.0),
        "mag_dered_w1": np.full(n, 17.0),
        "shape_r": np.full(n, 1.0),
        "shape_e1": np.full(n, 0.1),
        "shape_e2": np.full(n, 0.0),
        "psf_source": ["catalogue"] * n,
        "z_host": np.linspace(0.3, 0.7, n),
        "z_host_source": ["photometric"] * n,
    }
    for i, band in enumerate("grz"):
        columns[f"mag_{band}"] = 21.0 - i + rng.uniform(0, 0.5, n)
        columns[f"mag_dered_{band}"] = columns[f"mag_{band}"] - 0.1
        columns[f"psfsize_{band}"] = np.full(n, 1.3 - 0.05 * i)
        columns[f"psfdepth_{band}"] = np.full(n, 24.5)
    return to_batch(TARGETS, columns | replace)


def rows(table) -> dict[str, np.ndarray]:
    return {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.schema.names}
