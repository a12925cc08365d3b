"""The seed document's systems as it describes them: every value of its tables, and its commands as they stand there."""

import shlex
import tomllib

import pytest

from darkhaloscope.experiment import load
from darkhaloscope.injection.grids import GRIDS
from darkhaloscope.survey.targets import VARIANTS
from local_spark.generations import CLAIMS
from local_spark.steps import REPOSITORY
from spark_jobs import arguments, phase4_pipeline
from training import options

TRAIN_GRID = "train_stamp64_bandsgrz_gridgrid_sota"
SEEN = {"norm_method": "outer", "min_theta_over_psf": 0.5, "meta_cols": ("psfsize_r", "psfdepth_r")}
CONVNEXT = {
    "arch": "convnext_tiny",
    "weight_decay": 1e-2,
    "precision": "bf16",
    "epochs": 50,
    "early_stopping_patience": 5,
}
FOCAL = {"loss": "focal", "focal_alpha": 0.25, "focal_gamma": 2.0, "batch_size": 256}
TRAINING = {
    "gen1": {"arch": "resnet18", "weight_decay": 1e-4, "batch_size": 32, "precision": "fp16", "epochs": 10},
    "gen2": CONVNEXT | {"batch_size": 512},
    "gen3": CONVNEXT | FOCAL | SEEN,
    "gen4": CONVNEXT | FOCAL | SEEN | {"dropout": 0.1, "hard_neg_weight": 5.0},
    "gen5": CONVNEXT | FOCAL | SEEN,
}
PLAIN = {  # where a generation says nothing else
    "lr": 3e-4, "loss": "bce", "norm_method": "full", "min_theta_over_psf": 0.0, "meta_cols": (), "dropout": 0.0,
    "hard_neg_weight": 1.0, "augment": True, "early_stopping_patience": 0, "selection_metric": "tpr@fpr1e-4",
    "min_arc_snr": 0.0, "metrics_ok": False, "ema_decay": 0.0, "label_smoothing": 0.0, "positive_weight": 1.0,
    "negatives_per_positive": 0.0, "pretrained": "", "accumulate": 1,
}  # fmt: skip
MOFFAT = {"model": "moffat", "moffat_beta": 3.5, "per_band": True}
INJECTED = {
    "gen1": ("v3_color_relaxed", "grid_small", "paired", {"model": "gaussian", "per_band": False}, "sersic"),
    "gen2": ("v4_sota", "grid_sota", "unpaired", {"model": "gaussian", "per_band": True}, "sersic"),
    "gen3": ("v4_sota_moffat", "grid_sota", "unpaired", MOFFAT, "sersic"),
    "gen4": ("v4_sota_moffat", "grid_sota", "unpaired", MOFFAT, "sersic"),
    "gen5": ("v5_cosmos_source", "grid_sota", "unpaired", MOFFAT, "image"),
}


def generation(name: str):
    return load(REPOSITORY / "experiments" / f"{name}.toml")


@pytest.mark.parametrize("name", TRAINING)
def test_a_generation_trains_with_the_settings_of_the_document(name):
    training, expected = generation(name).training, PLAIN | TRAINING[name]
    assert {key: getattr(training, key) for key in expected} == expected


@pytest.mark.parametrize("name", INJECTED)
def test_a_generation_injects_what_the_document_says(name):
    e = generation(name)
    variant, grid, controls, psf, source = INJECTED[name]
    assert (e.variant, e.injection.grid, e.injection.controls, e.injection.source) == (
        variant, grid, controls, source)  # fmt: skip
    assert {key: getattr(e.psf, key) for key in psf} == psf
    assert e.psf.size == ("converted" if name == "gen5" else "legacy"), (
        "generations 1 to 4 took psfsize for the FWHM"
    )
    injection = e.injection
    assert (injection.tier, injection.prior, injection.n_total_per_split, injection.control_frac) == (
        "train", "grid", 200_000, 0.5)  # fmt: skip
    assert (injection.src_n, injection.max_offset_over_theta_e, e.stamps.size) == (1.0, 0.8, 64)
    assert (e.targets.variant, e.targets.magnitudes) == ("v3_color_relaxed", "raw")
    assert (e.targets.max_ebv, e.targets.max_psfsize_r, e.targets.min_psfdepth_r) == (0.12, 1.6, 23.6)


def test_the_grids_are_those_of_the_document():
    assert GRIDS == {
        "grid_small": ((0.3, 0.6, 1.0), (1.0, 2.0), (0.08, 0.15), (0.0, 0.3), (0.0, 0.03)),
        "grid_medium": ((0.25, 0.35, 0.5, 0.8, 1.2), (0.5, 1.0, 1.5, 2.0), (0.05, 0.1, 0.2), (0.0, 0.2, 0.4),
                        (0.0, 0.03)),
        "grid_sota": ((0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5), (0.5, 1.0, 1.5, 2.0), (0.06, 0.10, 0.15, 0.20),
                      (0.0, 0.2, 0.4), (0.0, 0.02, 0.04)),
    }  # fmt: skip


def test_the_target_variants_are_those_of_the_document():
    assert {name: (v.z_max, v.rz_min, v.zw1_min) for name, v in VARIANTS.items()} == {
        "v1_pure_massive": (20.0, 0.5, 1.6),
        "v2_baseline_dr10": (20.4, 0.4, 1.6),
        "v3_color_relaxed": (20.4, 0.4, 0.8),
        "v4_mag_relaxed": (21.0, 0.4, 0.8),
        "v5_very_relaxed": (21.5, 0.3, 0.8),
    }


TRAINING_COMMANDS = {
    "gen2": "--arch convnext_tiny --epochs 50 --batch_size 512 --lr 3e-4 --use_bf16 --augment "
    "--early_stopping_patience 5",
    "gen3": "--arch convnext_tiny --epochs 50 --batch_size 256 --lr 3e-4 --use_bf16 --augment --loss focal "
    "--focal_alpha 0.25 --focal_gamma 2.0 --min_theta_over_psf 0.5 --norm_method outer "
    "--meta_cols psfsize_r,psfdepth_r --early_stopping_patience 5",
    "gen4": "--hard_neg_weight 5 --arch convnext_tiny --epochs 50 --batch_size 256 --lr 3e-4 --weight_decay 1e-2 "
    "--dropout 0.1 --use_bf16 --augment --loss focal --focal_alpha 0.25 --focal_gamma 2.0 --min_theta_over_psf 0.5 "
    "--norm_method outer --meta_cols psfsize_r,psfdepth_r --early_stopping_patience 5",
}


@pytest.mark.parametrize("name", TRAINING_COMMANDS)
def test_the_documents_training_command_changes_nothing_of_its_generations_file(name):
    file = str(REPOSITORY / "experiments" / f"{name}.toml")
    args = options.parser().parse_args(["--experiment", file, *shlex.split(TRAINING_COMMANDS[name])])
    assert options.experiment_of(args) == generation(name)


def test_the_documents_training_command_takes_its_paths():
    paths = "--data DATA --out_dir OUT --hard_neg_path hard_neg_lookup.parquet"
    args = options.parser().parse_args(paths.split())
    assert (args.data, args.out_dir, args.hard_neg_path) == ("DATA", "OUT", "hard_neg_lookup.parquet")


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("gen2", "--variant v4_sota"),
        ("gen3", "--variant v4_sota_moffat --psf-model moffat --moffat-beta 3.5"),
    ],
)
def test_the_documents_spark_command_is_its_generations_file(name, flags):
    command = (
        f"--stage 4c --output-s3 s3://darkhaloscope/phase4_pipeline {flags} --experiment-id {TRAIN_GRID}"
    )
    args = phase4_pipeline.parser().parse_args(command.split())
    assert args.output_s3 == "s3://darkhaloscope/phase4_pipeline"
    asked = arguments.experiment_of(args, psf__model=args.psf_model, psf__moffat_beta=args.moffat_beta)
    assert asked == generation(name)


def test_the_documents_results_are_quoted_as_claims():
    claims = {c["generation"]: c for c in tomllib.loads(CLAIMS.read_text())["claim"]}
    assert {name: (c["tpr_at_fpr_1e-4"], c["tpr_at_fpr_1e-3"], c["auroc"]) for name, c in claims.items()} == {
        "gen1": (0.004, 0.352, 0.9963),
        "gen2": (0.751, 0.861, 0.9906),
        "gen3": (0.668, 0.781, 0.9829),
        "gen4": (0.745, 0.801, 0.9904),
    }
    assert all(c["status"].split(":")[0] in {"Unproven", "Unresolved"} for c in claims.values())


def test_our_own_recipe_inherits_none_of_the_choices_that_do_not_hold_up():
    e = load(REPOSITORY / "experiments" / "modern.toml")
    assert (e.injection.prior, e.injection.source, e.injection.controls) == ("natural", "image", "unpaired")
    assert e.injection.match_total_magnitude and e.prior.min_magnification >= 3
    assert (e.psf.size, e.psf.per_band, e.targets.magnitudes) == ("converted", True, "dereddened")
    t = e.training
    assert (t.loss, t.norm_method, t.norm_clip, t.meta_cols) == ("bce", "sky_asinh", 0.0, ())
    assert t.min_theta_over_psf >= 0.8 and t.min_arc_snr > 0 and t.metrics_ok
    assert t.negatives_per_positive >= 30 and e.injection.control_frac >= 0.9
