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
from typing import Any, Literal

from darkhaloscope.config import ConfigError, build
from darkhaloscope.records import BANDS, STAMP_SIZE


@dataclass(frozen=True)
class Survey:
    """Where the coadds and catalogues are, and which of them to read."""

    source: str = "smoke-out/sky"  # base URL with coadd/, sweep/ and survey-bricks below it
    sweeps: str = "sweep/10.1"
    bricks_table: str = "survey-bricks-dr10-south.fits.gz"
    bands: str = BANDS
    bad_maskbits: tuple[str, ...] = (
        "BRIGHT", "SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R", "ALLMASK_Z", "BAILOUT",
    )  # fmt: skip
    metrics_bad_maskbits: tuple[str, ...] = (
        "BRIGHT", "SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R", "ALLMASK_Z", "BAILOUT", "MEDIUM",
    )  # fmt: skip


@dataclass(frozen=True)
class Targets:
    """Stage 3: which galaxies are hosts."""

    variant: Literal[
        "v1_pure_massive", "v2_baseline_dr10", "v3_color_relaxed", "v4_mag_relaxed", "v5_very_relaxed"
    ] = "v3_color_relaxed"
    magnitudes: Literal["raw", "dereddened"] = "raw"
    max_ebv: float = 0.12
    max_psfsize_r: float = 1.6
    min_psfdepth_r: float = 23.6


@dataclass(frozen=True)
class Splits:
    """How the sky is divided; a HEALPix cell, and so a host, is in one split."""

    method: Literal["healpix", "region"] = "healpix"
    nside: int = 64
    guard_arcsec: float = 10.0
    train: float = 0.7
    val: float = 0.15
    test: float = 0.15


@dataclass(frozen=True)
class Injection:
    """Stage 4a: configurations and controls."""

    tier: Literal["debug", "grid", "train"] = "train"
    prior: Literal["grid", "natural"] = "grid"  # natural: see `Prior`; `grid` and src_n are then not used
    grid: Literal["grid_small", "grid_medium", "grid_sota"] = "grid_sota"
    n_total_per_split: int = 200_000  # rows wanted per split; fewer where the hosts run out
    replicates: int = 1  # injections per host; an unpaired control makes one row whatever this is
    control_frac: float = 0.5  # of the rows
    controls: Literal["paired", "unpaired"] = "unpaired"
    source: Literal["sersic", "image"] = "sersic"
    source_bank: str = ""
    src_n: float = 1.0
    max_offset_over_theta_e: float = 0.8


@dataclass(frozen=True)
class Prior:
    """Stage 4a with `injection.prior = "natural"`: what `injection/prior.py` draws lenses and sources from."""

    src_r_bright: float = 22.0  # unlensed, AB outside the Galaxy
    src_r_faint: float = 26.0
    weighting: Literal["lenses", "galaxies"] = "lenses"  # by theta_E^2, or not
    position: Literal["magnified", "imaged", "plane"] = "magnified"
    min_magnification: float = 3.0  # of a point at the source's centre; position "magnified"
    plane_radius_over_theta_e: float = 1.5  # position "plane": uniform in this circle, lensed or not
    q_scatter: float = 0.08  # of the deflector's axis ratio about the light's
    phi_scatter_deg: float = 10.0  # of its major axis
    # Lognormal of median 0.05 and 0.2 dex, after N-body simulations: Oguri & Marshall (2010, MNRAS 405, 2579) following
    # Holder & Schechter (2003, ApJ 589, 688); second hand.
    shear_median: float = 0.05
    max_shear: float = 0.2


@dataclass(frozen=True)
class PsfModel:
    """How the survey's PSF is modelled."""

    model: Literal["gaussian", "moffat", "kernel"] = "moffat"
    moffat_beta: float = 2.7
    size: Literal["converted", "legacy"] = "converted"  # legacy: psfsize fed as the FWHM, generations 1-4
    per_band: bool = True  # False: every band has the r-band size, generation 1
    kernel: str = ""  # URL of coadd_psf_{band}.npy for model "kernel"


@dataclass(frozen=True)
class Stamps:
    """Stage 4c: what a stamp is."""

    size: int = STAMP_SIZE
    poisson_noise: bool = True
    noise_correlation: float = 1.4  # a matched-filter SNR from invvar alone is divided by this
    codec: Literal["gzip", "zstd", "none"] = "gzip"
    bricks_per_chunk: int = 64


@dataclass(frozen=True)
class Limits:
    """What a run accepts; decides no pixel, so it is part of no hash."""

    max_failed_fraction: float = 0.02  # of the rows of 4c, or the sweep files of stage 3


@dataclass(frozen=True)
class Completeness:
    """Stage 4d: what counts as detectable."""

    snr_threshold: float = 10.0


@dataclass(frozen=True)
class Pack:
    """Pack: training shards."""

    dtype: Literal["float16", "float32"] = "float16"
    codec: Literal["gzip", "zstd", "none"] = "zstd"
    rows_per_group: int = 256
    rows_per_shard: int = 8_192


@dataclass(frozen=True)
class Training:
    """The trainer; every field is a flag of training/train.py of the same name."""

    arch: Literal[
        "resnet18", "convnext_tiny", "convnext_tiny_stride2", "efficientnetv2_s", "small_resnet"
    ] = "convnext_tiny"
    pretrained: str = ""  # local file of weights to start from
    dropout: float = 0.0  # in front of the last layer
    ema_decay: float = 0.0  # of the running mean of the weights that is validated and scored; 0: none
    epochs: int = 50
    batch_size: int = 256  # rows of a batch on each rank
    accumulate: int = 1  # batches of an optimiser step
    lr: float = 3e-4  # peak of the schedule
    weight_decay: float = 1e-2
    warmup_epochs: float = 1.0  # linear rise to lr; then a cosine to zero
    clip_grad_norm: float = 1.0  # 0: off
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    compile: bool = False  # torch.compile
    loss: Literal["bce", "focal"] = "bce"
    focal_alpha: float = 0.25  # weight of positives in the focal loss; negatives have 1 - alpha
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0  # labels 0 and 1 become s/2 and 1 - s/2
    positive_weight: float = 1.0  # of a positive's loss; a negative's is 1
    augment: bool = True  # the eight orientations of a square
    norm_method: Literal["full", "outer", "sky_asinh"] = "sky_asinh"
    norm_clip: float = 0.0  # bound on the normalised pixels; 0: none
    meta_cols: tuple[str, ...] = ()  # columns given to the network beside the pixels
    min_theta_over_psf: float = 0.0  # both classes are filtered on it; 0: no filter
    selection_metric: Literal["tpr@lowfpr", "tpr@fpr1e-4", "tpr@fpr1e-3", "tpr@fpr1e-2", "auroc", "loss"] = (
        "tpr@lowfpr"
    )
    early_stopping_patience: int = 0  # epochs without a better selection_metric; 0: never stop early
    checkpoint_every: int = 0  # steps between writings of last.pt within an epoch; 0: none there
    keep_every: int = 0  # epochs between checkpoints that are kept under their own name; 0: none
    num_workers: int = 2


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
    """Read an experiment file; `overrides` maps dotted keys ("psf.model") to values that win over the file.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the nearest is named), a value of the wrong type
            or outside its choices, or bands that are not distinct letters of g, r, z.
    """
    try:
        raw = tomllib.loads(Path(path).read_text())
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
    if injection.controls == "paired" and (
        injection.control_frac != 0.5 or injection.replicates != 1 or injection.tier != "train"
    ):
        raise ConfigError(
            f"{where}: paired controls go with injection.control_frac 0.5, replicates 1 and tier 'train' (more "
            f"injections a host would repeat its control's pixels); found {injection.control_frac}, "
            f"{injection.replicates}, {injection.tier!r}"
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
