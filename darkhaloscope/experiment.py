"""An experiment (a generation) as typed, frozen config read from TOML.

`load(path, overrides)` is the only way in: unknown keys are refused with the nearest known one named, values
are checked against their types, and `Experiment.digest()` is the hash that every stage writes beside its
output.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkhaloscope.config import ConfigError, build
from darkhaloscope.records import BANDS
from darkhaloscope.sections import (
    Completeness,
    Fetch,
    Injection,
    Limits,
    Pack,
    Prior,
    PsfModel,
    Splits,
    Stamps,
    Survey,
    Targets,
    Training,
)
from darkhaloscope.storage import read_bytes

STAMPS_DECIDED_BY = (
    "seed", "survey", "targets", "splits", "injection", "prior", "psf", "stamps", "completeness",
)  # fmt: skip
"""Fields of `Experiment` that decide the stamps of stages 3 to 4c and what 4d says of them."""

MAX_FILE_BYTES = 1 << 20  # of an experiment file


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a run."""

    name: str
    variant: str
    experiment_id: str
    description: str = ""
    seed: int = 42
    survey: Survey = field(default_factory=Survey)
    targets: Targets = field(default_factory=Targets)
    splits: Splits = field(default_factory=Splits)
    injection: Injection = field(default_factory=Injection)
    prior: Prior = field(default_factory=Prior)
    psf: PsfModel = field(default_factory=PsfModel)
    stamps: Stamps = field(default_factory=Stamps)
    limits: Limits = field(default_factory=Limits)
    fetch: Fetch = field(default_factory=Fetch)
    completeness: Completeness = field(default_factory=Completeness)
    pack: Pack = field(default_factory=Pack)
    training: Training = field(default_factory=Training)

    def as_dict(self) -> dict[str, Any]:
        """Return the effective config as nested plain dicts (tuples as lists)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def digest(self, *sections: str) -> str:
        """Return 16 hex digits over the named sections (all by default), name and description left out."""
        config = self.as_dict()
        chosen = {k: config[k] for k in (sections or config) if k not in {"name", "description"}}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment file (path or URL); `overrides`: dotted keys ("psf.model") to values that win over the file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the nearest is named), a value of the wrong type
            or outside its choices, or bands that are not distinct letters of g, r, z.
    """
    try:
        raw = tomllib.loads(read_bytes(path, MAX_FILE_BYTES).decode())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file; see experiments/ for those there are") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    for dotted, value in (overrides or {}).items():
        *sections, key = dotted.split(".")
        table = raw
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = value
    experiment = from_dict(raw, str(path))
    _check(experiment, str(path))
    return experiment


def from_dict(raw: Mapping[str, Any], where: str) -> Experiment:
    """Build an experiment from nested dicts, as `load` does from a file and a checkpoint from its config."""
    return build(Experiment, raw, where)


def _check(experiment: Experiment, where: str) -> None:
    fractions = (experiment.splits.train, experiment.splits.val, experiment.splits.test)
    if abs(sum(fractions) - 1) > 1e-9 or min(fractions) < 0:
        raise ConfigError(f"{where}: splits train+val+test = {fractions}; expected fractions that add to 1")
    if not 0 <= experiment.injection.control_frac <= 1:
        raise ConfigError(f"{where}: injection.control_frac = {experiment.injection.control_frac}; 0 to 1")
    if experiment.injection.prior == "natural" and experiment.injection.tier != "train":
        raise ConfigError(
            f"{where}: injection.prior = 'natural' draws every lens and goes with tier 'train' only; "
            f"tier is {experiment.injection.tier!r}"
        )
    injection = experiment.injection
    given = {axis: bool(values) for axis, values in dataclasses.asdict(injection.custom_grid).items()}
    if not all(given.values()) if injection.grid == "custom" else any(given.values()):
        raise ConfigError(
            f"{where}: injection.grid = 'custom' needs every axis of [injection.custom_grid] with at least one value, "
            f"and another grid none; grid is {injection.grid!r}, axes given: {[a for a, g in given.items() if g]}"
        )
    if injection.controls == "paired" and (
        injection.control_frac != 0.5 or injection.replicates != 1 or injection.tier != "train"
    ):
        raise ConfigError(
            f"{where}: paired controls go with injection.control_frac 0.5, replicates 1 and tier 'train' (more "
            f"injections a host would repeat its control's pixels); found {injection.control_frac}, "
            f"{injection.replicates}, {injection.tier!r}"
        )
    if injection.match_total_magnitude and (
        injection.controls == "paired" or injection.control_frac in (0, 1)
    ):
        raise ConfigError(
            f"{where}: injection.match_total_magnitude needs unpaired controls beside positives; found controls "
            f"{injection.controls!r}, control_frac {injection.control_frac}"
        )
    if experiment.psf.model == "kernel" and not experiment.psf.kernel:
        raise ConfigError(
            f"{where}: psf.model = 'kernel' needs psf.kernel, the URL of coadd_psf_{{band}}.npy"
        )
    parse_bands(experiment.survey.bands)


def parse_bands(text: str) -> str:
    """Return "grz" from "grz", "g,r,z" or "g, r, z", in the survey's order.

    Raises:
        ConfigError: a letter that is no band, a band twice, or none.
    """
    letters = text.replace(",", " ").split()
    joined = "".join(letters)
    if not joined or set(joined) - set(BANDS) or len(set(joined)) != len(joined):
        raise ConfigError(f"bands {text!r}: expected distinct letters of {BANDS!r}, as grz or g,r,z")
    if joined != BANDS:
        raise ConfigError(f"bands {text!r}: stamps have the bands g, r and z, in this order; write g,r,z")
    return joined
