"""One small simulated field and experiments for it: what live injection and shards made on a host are tested with."""

import dataclasses
from functools import cache

import numpy as np

from darkhaloscope.experiment import Experiment, load
from darkhaloscope.simulated.field import Field, FieldPlan, field_names, paint_field
from training.options import REPOSITORY

PLAN = FieldPlan(seed=42, cells=4, mimics=0.25)
SPLIT = "train"


def experiment(file: str = "gen2", **sections) -> Experiment:
    """A generation, with all of the sky in the split of the field and the fields of sections replaced."""
    base = load(REPOSITORY / "experiments" / f"{file}.toml")
    sections = {"splits": {"train": 1.0, "val": 0.0, "test": 0.0}, **sections}
    return dataclasses.replace(
        base, **{k: dataclasses.replace(getattr(base, k), **v) for k, v in sections.items()}
    )


@cache
def field() -> Field:
    """The field, painted once."""
    return paint_field(PLAN, str(field_names(np.array([0]), PLAN.seed)[0]))
