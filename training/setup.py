"""Put a training run together from a config, new or from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from darkhaloscope.experiment import Experiment
from darkhaloscope.records import BANDS
from darkhaloscope.sections import Training
from darkhaloscope.stage import code_version
from darkhaloscope.storage import replace_file
from training import checkpoint
from training.checkpoint import CheckpointError
from training.data import StampStream, World
from training.distributed import own_device, shared
from training.hard_negatives import read_hard_negatives
from training.live import LiveInjection, Painter
from training.losses import make_loss
from training.mixture import mixture_of
from training.models import Average, Finder, size
from training.preprocess import Preprocessing
from training.pretrained import start_from
from training.run import Progress, Run
from training.runlog import RunLog
from training.selection import bounds_of
from training.shards import Shards, open_split
from training.speed import peak_flops


def set_up(
    experiment: Experiment,
    data: str,
    out: Path,
    resume: bool,
    overwrite: bool,
    device: str | None,
    tensorboard: bool,
    world: World,
) -> Run:
    """Open the data, build finder and optimiser, load the checkpoint to go on from; see `train.train`."""
    config = experiment.training
    content = _earlier_run(out, resume, overwrite)
    target = own_device(device)
    shards = _open(data, experiment)
    if content:
        _check_same(content, experiment, shards, world, out)
    preprocessing = _preprocessing(config, shards["train"])
    progress = Progress(**content["progress"]) if content else Progress()
    live = LiveInjection(experiment, preprocessing.size) if config.live_injection else None
    stream = StampStream(
        shards["train"], preprocessing, config.batch_size, experiment.seed,
        epochs=(progress.epoch, config.epochs), position=progress.position, workers=config.num_workers,
        world=world, mixture=mixture_of(config), live=live,
    )  # fmt: skip
    model, started_from = _finder(experiment, preprocessing, target, world, new=content is None)
    cost, (peak, peak_from) = size(model), peak_flops(target, config.precision)
    if world.rank == 0:
        facts = {
            "device": str(target), "ranks": world.ranks, **stream.facts(),
            "parameters": cost.parameters, "flops_per_stamp": cost.flops,
            "peak_flops_per_s": peak, "peak_flops_from": peak_from, "pretrained": started_from,
        }  # fmt: skip
        if not content:
            _remove_checkpoints(out)
        _announce(experiment, shards, preprocessing, facts, out)
    log = RunLog(out, progress.step if content else None, tensorboard, writes=world.rank == 0)
    log.write("resume" if content else "start", progress.step, data=_facts(shards), device=str(target))
    network = shared(model, target, world)
    run = Run(
        experiment, out, target, world, shards, preprocessing, model,
        torch.compile(network) if config.compile else network,  # type: ignore[arg-type]
        Average(model, config.ema_decay) if config.ema_decay else None,
        make_loss(config), _optimizer(model, config, target),
        torch.amp.GradScaler(target.type, enabled=config.precision == "fp16"),
        progress, stream, Painter(live, target) if live else None, log, cost, peak,
        content["metrics"] if content else {},
    )  # fmt: skip
    if content:
        run.restore(content, out / "last.pt")
    return run


def _open(data: str, experiment: Experiment) -> dict[str, Shards]:
    """Return the rows of each split; mined negatives and live injection are for the training rows only."""
    config = experiment.training
    hard = read_hard_negatives(config.hard_neg_path) if config.hard_neg_path else None
    return {
        split: open_split(data, split, bounds_of(config), config.meta_cols, config.metrics_ok, listed, live)
        for split, listed, live in (
            ("train", hard, experiment if config.live_injection else None),
            ("val", None, None),
        )
    }


def _remove_checkpoints(out: Path) -> None:
    """Remove those of the run that a new one replaces."""
    for old in (out / "last.pt", out / "best.pt", *out.glob("epoch-*.pt")):
        old.unlink(missing_ok=True)


def _finder(
    experiment: Experiment, preprocessing: Preprocessing, device: torch.device, world: World, new: bool
) -> tuple[Finder, dict[str, Any] | None]:
    """Return the finder with the same first weights on every rank, and what was loaded of `pretrained`."""
    config = experiment.training
    torch.manual_seed(experiment.seed)
    model = Finder(config.arch, preprocessing, config.dropout)
    started_from = start_from(model, config.pretrained) if config.pretrained and new else None
    if world.ranks > 1 and device.type == "cuda":
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    torch.manual_seed(experiment.seed + 1 + world.rank)  # from here on each rank drops out other features
    return model.to(device), started_from


def _earlier_run(out: Path, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, or None for a new run."""
    last = out / "last.pt"
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file; --out_dir is the folder of a run")
    if not last.exists():
        return None
    if resume:
        return checkpoint.load(last)
    if overwrite:
        return None
    raise CheckpointError(
        f"{last}: a run is here already; --resume goes on with it, --overwrite replaces it, another "
        "--out_dir leaves it alone"
    )


def _check_same(
    content: dict[str, Any], experiment: Experiment, shards: dict[str, Shards], world: World, out: Path
) -> None:
    """Refuse to go on with other settings or data: the result would be neither run's."""
    before, now = content["config"], experiment.as_dict()
    ranks = len(content["training_state"]["random"])
    known = {"ranks": ranks, "seed": before["seed"], **before["training"]}
    differing = [
        f"{k} was {known.get(k)!r}, is {v!r}"
        for k, v in {"ranks": world.ranks, "seed": now["seed"], **now["training"]}.items()
        if known.get(k) != v
    ]
    for split, facts in _facts(shards).items():
        before_facts = content["data"][split]
        for key in ("content_hash", "selection", "samples", "hard_negatives"):
            if facts.get(key) != before_facts.get(key):
                differing.append(f"{split} data: {key} was {before_facts.get(key)}, is {facts.get(key)}")
    if differing:
        raise CheckpointError(
            f"{out / 'last.pt'}: made with other settings or data: {'; '.join(differing)}; go on with the "
            "old ones, or start anew in another --out_dir"
        )


def _facts(shards: dict[str, Shards]) -> dict[str, Any]:
    return {split: one.facts() for split, one in shards.items()}


def _preprocessing(config: Training, shards: Shards) -> Preprocessing:
    return Preprocessing(
        norm_method=config.norm_method,
        clip=config.norm_clip,
        bands=BANDS,
        size=shards.layout.size,
        meta_cols=config.meta_cols,
        meta_mean=shards.meta_mean,
        meta_std=shards.meta_std,
    )


def _optimizer(model: Finder, config: Training, device: torch.device) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) that leaves biases and norms out of the weight decay."""
    weights = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=device.type in ("cuda", "cpu"))


def _announce(
    experiment: Experiment,
    shards: dict[str, Shards],
    preprocessing: Preprocessing,
    facts: dict[str, Any],
    out: Path,
) -> None:
    """Write config.json, and say what is about to happen."""
    config = experiment.training
    data = _facts(shards)
    written = {
        "experiment": experiment.as_dict(),
        "digest": experiment.digest(),
        "code_version": code_version(),
        "torch": torch.__version__,
        "data": data,
        "preprocessing": preprocessing.as_dict(),
        **facts,
    }
    replace_file(str(out / "config.json"), json.dumps(written, indent=1).encode())
    print(
        f"{config.arch}: {facts['parameters']:,} parameters, {facts['flops_per_stamp'] / 1e9:.2f} GFLOP a stamp; "
        f"{config.precision} on {facts['ranks']} x {facts['device']}"
    )
    if facts["pretrained"]:
        print(f"starts from {facts['pretrained']['file']}: {facts['pretrained']['summary']}")
    for split, one in data.items():
        print(
            f"{split}: {one['positives']:,} positives and {one['negatives']:,} negatives where "
            f"{one['selection']} (of {one['positives_before_bounds']:,} and "
            f"{one['negatives_before_bounds']:,})"
        )
        if listed := one.get("hard_negatives"):
            print("{matched:,} of {entries:,} hard negatives found, in {rows:,} rows".format(**listed))
    print(f"an epoch shows {facts['shown']}: {facts['negatives_per_positive']:.3g} negatives a positive")
    print(f"{facts['steps_per_epoch']} batches an epoch and rank; writing to {out}")
