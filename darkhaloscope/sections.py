"""The sections of an experiment file: every setting with its type, its default and what it means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from darkhaloscope.records import BANDS, STAMP_SIZE

MaskBit = Literal[
    "NPRIMARY", "BRIGHT", "SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R", "ALLMASK_Z", "WISEM1", "WISEM2",
    "BAILOUT", "MEDIUM", "GALAXY", "CLUSTER", "SATUR_I", "ALLMASK_I", "SUB_BLOB",
]  # fmt: skip
"""Names of the maskbits of DR9 and DR10 coadds, bit 0 first: legacysurvey.org/dr10/bitmasks."""


@dataclass(frozen=True)
class Survey:
    """Where the coadds and catalogues are, and which of them to read."""

    source: str = "smoke-out/sky"  # base URL with coadd/, sweep/ and survey-bricks below it
    sweeps: str = "sweep/10.1"  # a folder of sweep-*.fits, or a text file that lists them
    redshifts: str = (
        ""  # a folder of the sweeps' *-pz.fits, or a Parquet table of host_id, z_host; "": colours only
    )
    bricks_table: str = "survey-bricks-dr10-south.fits.gz"
    bands: str = BANDS
    bad_maskbits: tuple[MaskBit, ...] = (  # pixels that are not used
        "BRIGHT", "SATUR_G", "SATUR_R", "SATUR_Z", "ALLMASK_G", "ALLMASK_R", "ALLMASK_Z", "BAILOUT",
    )  # fmt: skip
    metrics_bad_maskbits: tuple[MaskBit, ...] = (  # nor measured on
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
    sweeps_per_chunk: int = 32


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
class Grid:
    """A grid of one's own: the values of each axis; every combination is a configuration."""

    theta_e_arcsec: tuple[float, ...] = ()
    src_dmag: tuple[float, ...] = ()  # unlensed source r minus host r
    src_reff_arcsec: tuple[float, ...] = ()
    src_e: tuple[float, ...] = ()
    shear: tuple[float, ...] = ()


@dataclass(frozen=True)
class Injection:
    """Stage 4a: configurations and controls."""

    tier: Literal["debug", "grid", "train"] = "train"
    prior: Literal["grid", "natural"] = "grid"  # natural: see `Prior`; `grid` and src_n are then not used
    grid: Literal["grid_small", "grid_medium", "grid_sota", "custom"] = "grid_sota"
    custom_grid: Grid = field(default_factory=Grid)  # with grid "custom"
    n_total_per_split: int = 200_000  # rows wanted per split; fewer where the hosts run out
    replicates: int = 1  # injections per host; an unpaired control makes one row whatever this is
    control_frac: float = 0.5  # of the rows
    controls: Literal["paired", "unpaired"] = "unpaired"
    match_total_magnitude: bool = False  # unpaired controls as bright as host and arc of positives together
    balance: Literal["none", "seeing_depth"] = "none"  # equal numbers of hosts from cells of seeing and depth
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
    # A matched-filter SNR from invvar alone is divided by this: what rings and arcs scatter by on blank DR9 sky.
    noise_correlation: float = 1.1
    codec: Literal["gzip", "zstd", "none"] = "gzip"
    dtype: Literal["float32", "float16"] = "float32"  # of the pixels as written
    bricks_per_chunk: int = 2048  # committed together: minutes of two cores, seven bricks each of 272


@dataclass(frozen=True)
class Limits:
    """What a run accepts; decides no pixel, so it is part of no hash."""

    max_failed_fraction: float = 0.02  # of the rows of 4c, or the sweep files of stage 3
    brick_seconds: float = 600.0  # 4c: for copying and opening a brick, and for each 500 of its stamps


@dataclass(frozen=True)
class Fetch:
    """How files are copied from the survey's server (stage 4b); decides no byte, so it is part of no hash."""

    connections: int = 8  # to the source, over the whole run and all its tasks
    attempts: int = 6  # tries a file
    timeout_s: float = 60.0  # without a byte, or for a connection
    min_bytes_per_s: float = 10_000.0  # a transfer that is slower on average is begun again
    max_retry_after_s: float = 300.0  # longest wait that a server's Retry-After is granted
    ask_again_days: float = 30.0  # after which a brick that was missing is asked for again; 0: in every run
    bricks_per_chunk: int = 64


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
    shard_mb: float = 256.0  # of a shard, 10^6 bytes before compression, about


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
    min_arc_snr: float = 0.0  # the same
    metrics_ok: bool = False  # True: only rows whose arc's measurements can be trusted, the same
    # How often an epoch shows a row of each sample: 5 five times, 0.25 in one epoch of four
    synthetic_positive_weight: float = 1.0
    real_positive_weight: float = 1.0
    random_negative_weight: float = 1.0
    mimic_weight: float = 1.0
    hard_neg_path: str = ""  # list of mined negatives (python -m evaluation.mine)
    hard_neg_weight: float = 1.0
    live_injection: bool = False  # arcs are drawn onto bare stamps in training, others in every epoch
    negatives_per_positive: float = 0.0  # 0: as the weights give it; else the class in surplus is thinned
    selection_metric: Literal["tpr@lowfpr", "tpr@fpr1e-4", "tpr@fpr1e-3", "tpr@fpr1e-2", "auroc", "loss"] = (
        "tpr@lowfpr"
    )
    early_stopping_patience: int = 0  # epochs without a better selection_metric; 0: never stop early
    checkpoint_every: int = 0  # steps between writings of last.pt within an epoch; 0: none there
    keep_every: int = 0  # epochs between checkpoints that are kept under their own name; 0: none
    num_workers: int = 2
