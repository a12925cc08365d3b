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
from darkhaloscope.writing import replace_file
from training import checkpoint
from training.checkpoint import CheckpointError
from training.data import StampStream, World
from training.delivery import Delivery
from training.distributed import own_device, shared
from training.hard_negatives import read_hard_negatives
from training.live import LiveInjection
from training.losses import make_loss
from training.mixture import mixture_of
from training.models import Average, Finder, size
from training.painter import Painter
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
    progress = Progress.of(content, world.rank)
    live = LiveInjection(experiment, preprocessing.size) if config.live_injection else None
    stream = _stream(experiment, shards["train"], preprocessing, progress, world, live)
    model, started_from = _finder(experiment, preprocessing, target, world, new=content is None)
    run = Run(
        experiment, out, target, world, shards, preprocessing, model, shared(model, target, world, config.compile),
        Average(model, config.ema_decay) if config.ema_decay else None,
        make_loss(config), _optimizer(model, config, target),
        torch.amp.GradScaler(target.type, enabled=config.precision == "fp16"), progress, stream,
        Delivery(target, _painter(live, target, config), config.augment, config.compile),
        _log(out, content, tensorboard, world), size(model), *peak_flops(target, config.precision),
        content["metrics"] if content else {},
    )  # fmt: skip
    if world.rank == 0:
        if not content:
            _remove_checkpoints(out)
        _announce(run, started_from)
    run.log.write("resume" if content else "start", progress.step, data=run.facts(), device=str(target))
    if content:
        run.restore(content, out / "last.pt")
    return run


def _stream(
    experiment: Experiment, shards: Shards, preprocessing: Preprocessing, progress: Progress, world: World,
    live: LiveInjection | None,
) -> StampStream:  # fmt: skip
    """Return the training rows from where the run is."""
    config = experiment.training
    return StampStream(
        shards, preprocessing, config.batch_size, experiment.seed, epochs=(progress.epoch, config.epochs),
        position=progress.position, workers=config.num_workers, world=world, mixture=mixture_of(config), live=live,
    )  # fmt: skip


def _painter(live: LiveInjection | None, device: torch.device, config: Training) -> Painter | None:
    """Return what draws arcs, compiled where the network is and launching kernels is what costs."""
    return Painter(live, device, fused=config.compile and device.type == "cuda") if live else None


def _log(out: Path, content: dict[str, Any] | None, tensorboard: bool, world: World) -> RunLog:
    """Begin the log, or go on with it from the checkpoint's step."""
    kept = content["progress"]["step"] if content else None
    return RunLog(out, kept, tensorboard, writes=world.rank == 0)


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
    for split, facts in {name: one.facts() for name, one in shards.items()}.items():
        before_facts = content["data"][split]
        for key in ("content_hash", "selection", "samples", "hard_negatives"):
            if facts.get(key) != before_facts.get(key):
                differing.append(f"{split} data: {key} was {before_facts.get(key)}, is {facts.get(key)}")
    if differing:
        raise CheckpointError(
            f"{out / 'last.pt'}: made with other settings or data: {'; '.join(differing)}; go on with the "
            "old ones, or start anew in another --out_dir"
        )


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


def _announce(run: Run, started_from: dict[str, Any] | None) -> None:
    """Write config.json, and say what is about to happen."""
    data, stream = run.facts(), run.stream.facts()
    written = {
        "experiment": run.experiment.as_dict(),
        "digest": run.experiment.digest(),
        "code_version": code_version(),
        "torch": torch.__version__,
        "data": data,
        "preprocessing": run.preprocessing.as_dict(),
        "device": str(run.device),
        "ranks": run.world.ranks,
        **stream,
        "parameters": run.cost.parameters,
        "flops_per_stamp": run.cost.flops,
        "peak_flops_per_s": run.peak_flops,
        "peak_flops_from": run.peak_flops_from,
        "pretrained": started_from,
    }
    replace_file(str(run.out / "config.json"), json.dumps(written, indent=1).encode())
    print(f"{run.config.arch}: {run.cost}; {run.config.precision} on {run.world.ranks} x {run.device}")
    if started_from:
        print(f"starts from {started_from['file']}: {started_from['summary']}")
    for split, one in data.items():
        print(
            f"{split}: {one['positives']:,} positives and {one['negatives']:,} negatives where "
            f"{one['selection']} (of {one['positives_before_bounds']:,} and "
            f"{one['negatives_before_bounds']:,})"
        )
        if listed := one.get("hard_negatives"):
            print("{matched:,} of {entries:,} hard negatives found, in {rows:,} rows".format(**listed))
    print(f"an epoch shows {stream['shown']}: {stream['negatives_per_positive']:.3g} negatives a positive")
    print(f"{stream['steps_per_epoch']} batches an epoch and rank; writing to {run.out}")
