"""Everything a training run works on, put together from a config, new or from a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from darkhaloscope.experiment import Experiment, Training
from darkhaloscope.stage import code_version
from darkhaloscope.storage import replace_file
from training import checkpoint
from training.checkpoint import CheckpointError
from training.data import StampStream
from training.hard_negatives import read_hard_negatives
from training.losses import Loss, make_loss
from training.mixture import mixture_of
from training.models import Finder, size
from training.preprocess import Preprocessing
from training.runlog import RunLog
from training.selection import bounds_of
from training.shards import Shards, open_split


@dataclass
class Progress:
    """Where a run is: all that changes besides tensors."""

    epoch: int = 0  # the epoch that `position` is in
    position: int = 0  # batches of it that are done
    step: int = 0  # optimiser steps since the beginning
    loss_total: float = 0.0  # sum of the losses of the epoch's rows so far
    loss_rows: int = 0
    best: float | None = None  # best selection metric so far
    best_epoch: int | None = None
    finished: bool = False

    def end_epoch(self, figures: dict[str, Any], config: Training) -> bool:
        """Count the epoch; return whether its figures are the best so far."""
        lower_is_better = config.selection_metric == "loss"
        value = -figures["val_loss"] if lower_is_better else figures[config.selection_metric]
        better = self.best is None or value > self.best
        if better:
            self.best, self.best_epoch = value, self.epoch
        assert self.best_epoch is not None
        waited, patience = self.epoch - self.best_epoch, config.early_stopping_patience
        self.epoch, self.position, self.loss_total, self.loss_rows = self.epoch + 1, 0, 0.0, 0
        self.finished = self.epoch >= config.epochs or (patience > 0 and waited >= patience)
        return better


@dataclass
class Run:
    """A training run."""

    experiment: Experiment
    out: Path
    device: torch.device
    shards: dict[str, Shards]
    preprocessing: Preprocessing
    model: Finder
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    stream: StampStream
    log: RunLog
    figures: dict[str, Any]  # of the last validation pass; empty before the first

    @property
    def config(self) -> Training:
        """The trainer's settings."""
        return self.experiment.training

    def save(self, name: str, figures: dict[str, Any]) -> None:
        """Write a checkpoint."""
        cuda = self.device.type == "cuda"
        checkpoint.save(
            self.out / name,
            {
                "model": self.model.state_dict(),
                "preprocessing": self.preprocessing.as_dict(),
                "config": self.experiment.as_dict(),
                "data": _facts(self.shards),
                "progress": dataclasses.asdict(self.progress),
                "metrics": figures,
                "training_state": {
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "random": torch.get_rng_state(),  # dropout's; order and orientations have no state
                    "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
                },
            },
        )


def set_up(
    experiment: Experiment, data: str, out: Path, resume: bool, overwrite: bool, device: str | None
) -> Run:
    """Open the data, build finder and optimiser, load the checkpoint to go on from; see `train.train`."""
    config = experiment.training
    content = _earlier_run(out, resume, overwrite)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    hard = read_hard_negatives(config.hard_neg_path) if config.hard_neg_path else None
    shards = {
        split: open_split(data, split, bounds_of(config), config.meta_cols, config.metrics_ok, listed)
        for split, listed in (("train", hard), ("val", None))
    }
    if content:
        _check_same(content, experiment, shards, out)
    preprocessing = _preprocessing(config, shards["train"])
    torch.manual_seed(experiment.seed)
    model = Finder(config.arch, preprocessing, config.dropout).to(target)
    optimizer = _optimizer(model, config, target)
    scaler = torch.amp.GradScaler(target.type, enabled=config.precision == "fp16")
    progress = Progress(**content["progress"]) if content else Progress()
    stream = StampStream(
        shards["train"], preprocessing, config.batch_size, experiment.seed,
        epochs=(progress.epoch, config.epochs), position=progress.position, workers=config.num_workers,
        mixture=mixture_of(config),
    )  # fmt: skip
    if content:
        checkpoint.restore_weights(model, content, out / "last.pt")
        state = content["training_state"]
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and target.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], target)
    else:
        for name in ("last.pt", "best.pt"):
            (out / name).unlink(missing_ok=True)
    _announce(experiment, shards, model, stream, target, out)
    log = RunLog(out / "log.jsonl", progress.step if content else None)
    log.write("resume" if content else "start", progress.step, data=_facts(shards), device=str(target))
    figures = content["metrics"] if content else {}
    return Run(
        experiment, out, target, shards, preprocessing, model, make_loss(config), optimizer, scaler,
        progress, stream, log, figures,
    )  # fmt: skip


def _earlier_run(out: Path, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, or None for a new run."""
    last = out / "last.pt"
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
    content: dict[str, Any], experiment: Experiment, shards: dict[str, Shards], out: Path
) -> None:
    """Refuse to go on with other settings or data: the result would be neither run's."""
    before, now = content["config"], experiment.as_dict()
    known = {"seed": before["seed"], **before["training"]}
    differing = [
        f"{k} was {known.get(k)!r}, is {v!r}"
        for k, v in {"seed": now["seed"], **now["training"]}.items()
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
        bands=shards.layout.bands,
        size=shards.layout.shape[-1],
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
    return torch.optim.AdamW(groups, lr=config.lr, fused=device.type == "cuda")


def _announce(
    experiment: Experiment,
    shards: dict[str, Shards],
    model: Finder,
    stream: StampStream,
    device: torch.device,
    out: Path,
) -> None:
    """Write config.json, and say what is about to happen."""
    cost = size(model)
    written = {
        "experiment": experiment.as_dict(),
        "digest": experiment.digest(),
        "code_version": code_version(),
        "torch": torch.__version__,
        "device": str(device),
        "data": _facts(shards),
        "preprocessing": model.preprocessing.as_dict(),
        "parameters": cost.parameters,
        "flops_per_stamp": cost.flops,
        **stream.facts(),
    }
    replace_file(str(out / "config.json"), json.dumps(written, indent=1).encode())
    print(f"{model.arch}: {cost}; {experiment.training.precision} on {device}")
    for split, one in shards.items():
        facts = one.facts()
        print(
            f"{split}: {facts['positives']:,} positives and {facts['negatives']:,} negatives where "
            f"{facts['selection']} (of {facts['positives_before_bounds']:,} and "
            f"{facts['negatives_before_bounds']:,})"
        )
        if listed := facts.get("hard_negatives"):
            print("{matched:,} of {entries:,} hard negatives found, in {rows:,} rows".format(**listed))
    shown = stream.facts()
    print(f"an epoch shows {shown['shown']}: {shown['negatives_per_positive']:.3g} negatives a positive")
    print(f"{stream.steps_per_epoch} steps an epoch; writing to {out}")
