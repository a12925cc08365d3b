"""The trainer's command line: every field of `experiment.Training` is a flag of the same name."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable
from pathlib import Path

from darkhaloscope.config import ConfigError
from darkhaloscope.experiment import Experiment, load
from darkhaloscope.sections import Training
from training.models import ARCHITECTURES
from training.preprocess import NormMethod, check_metadata_columns

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_EXPERIMENT = REPOSITORY / "experiments" / "smoke.toml"

_DESCRIPTION = """\
Train a lens finder on packed shards.

An experiment file gives every setting; a flag that is given wins over it. Without any flag this trains on the
shards that `make smoke-local` made. Ctrl-C or SIGTERM stops after the present step with a checkpoint, and
--resume goes on from there; on a CPU to the same bits as if nothing had happened.
"""
_EPILOG = """\
what appears in --out_dir:
  config.json   the effective settings, and what the data was
  log.jsonl     one line an epoch: losses, AUROC, tpr at low fpr with intervals, rows left out, images a second
  last.pt       the newest checkpoint: --resume starts from it
  best.pt       the checkpoint with the best --selection_metric: score with it

Several GPUs: torchrun --nproc_per_node 4 training/train.py ..., each with its own share of the rows.
"""


def parser() -> argparse.ArgumentParser:
    """Return the argument parser of training/train.py."""
    main = argparse.ArgumentParser(
        prog="train.py",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that a flag not given does not overrule the experiment file
    )
    _add_run(main.add_argument_group("run: what is read and written"))
    _add_model(main.add_argument_group("model: the network, and what it sees"))
    _add_data(main.add_argument_group("data: which rows, and how they are shown"))
    _add_loss(main.add_argument_group("loss and optimiser"))
    return main


def _choices(field: str) -> list[str]:
    return list(typing.get_args(typing.get_type_hints(Training)[field]))


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--experiment", metavar="TOML", help="experiment file (default: smoke.toml)")
    group.add_argument(
        "--data", metavar="URL",
        help="packed shards: the folder with split=train and split=val below it, or stage 4c's output; a "
        "path or s3:// (default: smoke-out/pack/<variant>/<experiment_id>)",
    )  # fmt: skip
    group.add_argument("--out_dir", metavar="DIR", help="(default: smoke-out/training/<name>)")
    group.add_argument(
        "--resume", action="store_true",
        help="go on from last.pt in --out_dir, same settings and data; starts anew where there is none",
    )  # fmt: skip
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out_dir")
    group.add_argument(
        "--checkpoint_every", type=int, metavar="N",
        help="also write last.pt every N optimiser steps; 0: after each epoch only",
    )  # fmt: skip
    group.add_argument(
        "--keep_every",
        type=int,
        metavar="N",
        help="keep every Nth epoch's checkpoint, epoch-0005.pt; 0: none",
    )
    group.add_argument(
        "--tensorboard", action="store_true", help="also write --out_dir/tensorboard (package tensorboard)"
    )
    group.add_argument("--seed", type=int, help="of weights, order and orientations")
    group.add_argument("--device", help="torch device (default: cuda where there is one, else cpu)")
    group.add_argument(
        "--num_workers", type=int,
        help="processes that read shards; each needs a row group of its own. 0 reads in the main process",
    )  # fmt: skip


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--arch", choices=_choices("arch"),
        help="resnet18: 11 M parameters, generation 1's stem, slow; convnext_tiny: 28 M, stock stem of stride 4; "
        "convnext_tiny_stride2: the same, first pixels half as wide, four times the work; efficientnetv2_s: "
        "20 M; small_resnet: 0.2 M, enough for this imaging",
    )  # fmt: skip
    group.add_argument(
        "--pretrained", metavar="FILE",
        help="start from these weights: safetensors, a state dict, or a checkpoint of this trainer; what does "
        "not fit is listed",
    )  # fmt: skip
    group.add_argument(
        "--ema_decay", type=float, metavar="D",
        help="validate and score a running mean of the weights with this decay, as 0.999; 0: the weights themselves",
    )  # fmt: skip
    group.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the network (torch.compile), once for batches of any size: a minute at the start",
    )
    group.add_argument("--dropout", type=float, help="in front of the last layer, 0 to 1")
    group.add_argument(
        "--norm_method", choices=_choices("norm_method"),
        help="sky_asinh: over the sky noise, asinh stretch, colour kept; outer: over median and MAD of an "
        "outer annulus; full: the same of the whole stamp, which lets the arc set its own scale",
    )  # fmt: skip
    group.add_argument("--norm_clip", type=float, help="bound on normalised pixels; 0: none")
    group.add_argument(
        "--meta_cols", type=_names, metavar="A,B",
        help="columns given to the network beside the pixels, as psfsize_r,psfdepth_r; those that know the "
        "injection are refused",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch_size", type=int, help="rows of a batch on each rank, at most: batches are equal"
    )
    group.add_argument(
        "--augment", action=argparse.BooleanOptionalAction,
        help="show stamps in a random one of the eight orientations of a square",
    )  # fmt: skip
    group.add_argument(
        "--min_theta_over_psf", type=float, metavar="X",
        help="leave out rows with theta_E / psfsize_r below X; controls by the injection they would have had, "
        "so that the filter does not tell the classes apart",
    )  # fmt: skip
    group.add_argument("--min_arc_snr", type=float, metavar="X", help="the same for the arc's SNR")
    group.add_argument(
        "--metrics_ok", action=argparse.BooleanOptionalAction,
        help="leave out rows whose arc's measurements cannot be trusted, the same way",
    )  # fmt: skip
    for kind in ("synthetic_positive", "real_positive", "random_negative", "mimic"):
        group.add_argument(
            f"--{kind}_weight", type=float, metavar="W",
            help=f"how often an epoch shows a {kind.replace('_', ' ')}: 5 five times, 0.25 in one of four, 0 never",
        )  # fmt: skip
    group.add_argument(
        "--hard_neg_path", metavar="URL", help="list of mined negatives: python -m evaluation.mine writes one"
    )
    group.add_argument("--hard_neg_weight", type=float, metavar="W", help="how often an epoch shows those")
    group.add_argument(
        "--live_injection", "--live-injection", action=argparse.BooleanOptionalAction,
        help="draw arcs on the device, others in every epoch, onto the bare stamps among the training rows; "
        "validation rows stay as they are (python -m training.make_shards makes bare stamps of all hosts)",
    )  # fmt: skip
    group.add_argument(
        "--negatives_per_positive", type=float, metavar="X",
        help="thin the class in surplus until an epoch has this ratio, by turns over the epochs (0: do not)",
    )  # fmt: skip


def _add_loss(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--loss", choices=_choices("loss"), help="bce: cross-entropy; focal: Lin et al. 2017")
    group.add_argument("--focal_alpha", type=float, help="focal: weight of positives")
    group.add_argument("--focal_gamma", type=float, help="focal: how much sure rows are played down")
    group.add_argument("--label_smoothing", type=float, metavar="S", help="labels are S/2 and 1 - S/2")
    group.add_argument("--positive_weight", type=float, metavar="W", help="a positive counts W times")
    group.add_argument(
        "--accumulate", type=int, metavar="N", help="batches of an optimiser step, where one does not fit"
    )
    group.add_argument("--epochs", type=int, help="passes over the training rows, at most")
    group.add_argument("--lr", type=float, help="peak learning rate of AdamW")
    group.add_argument("--warmup_epochs", type=float, help="linear rise to --lr; a cosine to zero follows")
    group.add_argument("--weight_decay", type=float, help="of matrices and kernels, not of biases and norms")
    group.add_argument("--clip_grad_norm", type=float, help="largest norm of a gradient; 0: no bound")
    group.add_argument("--precision", choices=_choices("precision"), help="of inner layers; losses are fp32")
    group.add_argument(
        "--use_bf16",
        dest="precision",
        action="store_const",
        const="bf16",
        help="the same as --precision bf16",
    )
    group.add_argument(
        "--selection_metric", choices=_choices("selection_metric"),
        help="decides on best.pt. tpr@lowfpr: mean tpr over log fpr from 1e-4 to 1e-2, which is steadier than "
        "tpr at one rate",
    )  # fmt: skip
    group.add_argument(
        "--early_stopping_patience", type=int, metavar="N",
        help="stop after N epochs without a better --selection_metric; 0: never",
    )  # fmt: skip


def experiment_of(args: argparse.Namespace) -> Experiment:
    """Return the effective experiment: the file's settings with the flags that were given.

    Raises:
        ConfigError: the file is missing or wrong, or a value is out of range.
        PreprocessingError: a metadata column that is not allowed.
    """
    given = vars(args)
    fields = typing.get_type_hints(Training)
    overrides = {f"training.{name}": value for name, value in given.items() if name in fields}
    if "seed" in given:
        overrides["seed"] = given["seed"]
    path = Path(given.get("experiment", DEFAULT_EXPERIMENT))
    beside_code = REPOSITORY / path
    experiment = load(beside_code if not path.exists() and beside_code.exists() else path, overrides)
    check(experiment.training)
    return experiment


_BOUNDS: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    ("at least 1", lambda v: v >= 1, ("epochs", "accumulate")),
    ("at least 2", lambda v: v >= 2, ("batch_size",)),
    ("more than 0", lambda v: v > 0, ("positive_weight", "lr")),
    ("between 0 and 1", lambda v: 0 < v < 1, ("focal_alpha",)),
    ("0 to below 1", lambda v: 0 <= v < 1, ("ema_decay", "label_smoothing", "dropout")),
    (
        "0 or more",
        lambda v: v >= 0,
        (
            "checkpoint_every", "keep_every", "weight_decay", "warmup_epochs", "clip_grad_norm", "focal_gamma",
            "norm_clip", "early_stopping_patience", "num_workers", "min_arc_snr", "negatives_per_positive",
            "hard_neg_weight", "random_negative_weight", "synthetic_positive_weight", "real_positive_weight",
            "mimic_weight",
        ),
    ),
)  # fmt: skip
"""What is expected of a setting, whether a value is that, and the settings it holds for."""


def check(config: Training) -> None:
    """Refuse settings out of range, and metadata columns that know the label.

    Raises:
        ConfigError: names each setting, its value and what is expected.
        PreprocessingError: a metadata column that is not allowed; the message lists those that are.
    """
    faults = [
        f"{name} = {getattr(config, name)}; expected {expected}"
        for expected, fine, names in _BOUNDS
        for name in names
        if not fine(getattr(config, name))
    ]
    if faults:
        raise ConfigError("training: " + "; ".join(faults))
    check_metadata_columns(config.meta_cols)


# The config says what is known without importing torch; the registries must say the same.
assert set(_choices("arch")) == set(ARCHITECTURES)
assert set(_choices("norm_method")) == set(typing.get_args(NormMethod))
