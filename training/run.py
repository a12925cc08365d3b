"""A training run: everything it works on, and all of it that a checkpoint keeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darkhaloscope.experiment import Experiment
from darkhaloscope.sections import Training
from training import checkpoint
from training.data import StampStream, World
from training.delivery import Delivery
from training.distributed import gathered
from training.losses import Loss
from training.models import Average, Finder, Size
from training.preprocess import Preprocessing
from training.runlog import Losses, RunLog
from training.shards import Shards


@dataclass
class Progress:
    """Where a run is: all that changes besides tensors."""

    epoch: int = 0  # the epoch that `position` is in
    position: int = 0  # batches of it that are done
    step: int = 0  # optimiser steps since the beginning
    losses: Losses = field(default_factory=Losses)  # of the epoch, all ranks, where it was left
    best: float | None = None  # best selection metric so far
    best_epoch: int | None = None
    finished: bool = False

    @staticmethod
    def of(content: dict[str, Any] | None, rank: int) -> Progress:
        """Return that of a checkpoint, or of a new run where there is none; the first rank takes over the sums."""
        if content is None:
            return Progress()
        saved = content["progress"]
        return Progress(**{**saved, "losses": Losses() if rank else Losses(**saved["losses"])})

    def end_epoch(self, figures: dict[str, Any], config: Training) -> bool:
        """Count the epoch; return whether its figures are the best so far."""
        lower_is_better = config.selection_metric == "loss"
        value = -figures["val_loss"] if lower_is_better else figures[config.selection_metric]
        better = self.best is None or value > self.best
        if better:
            self.best, self.best_epoch = value, self.epoch
        assert self.best_epoch is not None
        waited, patience = self.epoch - self.best_epoch, config.early_stopping_patience
        self.epoch, self.position, self.losses = self.epoch + 1, 0, Losses()
        self.finished = self.epoch >= config.epochs or (patience > 0 and waited >= patience)
        return better


@dataclass
class Run:
    """A training run."""

    experiment: Experiment
    out: Path
    device: torch.device
    world: World
    shards: dict[str, Shards]
    preprocessing: Preprocessing
    model: Finder  # whose weights are trained
    network: nn.Module  # what a step calls: the model, compiled and shared among the ranks where asked for
    average: Average | None  # running mean of the weights
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress
    stream: StampStream
    deliver: Delivery  # brings batches onto the device
    log: RunLog
    cost: Size
    peak_flops: float  # FLOP/s of one rank's device
    peak_flops_from: str
    figures: dict[str, Any]  # of the last validation pass; empty before the first

    @property
    def config(self) -> Training:
        """The trainer's settings."""
        return self.experiment.training

    @property
    def judged(self) -> Finder:
        """The finder that is validated and scored: the running mean of the weights where there is one."""
        return self.model if self.average is None else self.average.module

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what a log or checkpoint says of the data, by split."""
        return {split: one.facts() for split, one in self.shards.items()}

    def save(self, figures: dict[str, Any], *names: str) -> None:
        """Write the same checkpoint under each name; every rank must call it, the first one writes."""
        cuda = self.device.type == "cuda"
        # Dropout's; the order of rows and their orientations have no state.
        random = gathered(torch.get_rng_state(), self.world)
        random_cuda = gathered(torch.cuda.get_rng_state(self.device), self.world) if cuda else None
        if self.world.rank:
            return
        content = {
            "model": self.judged.state_dict(),
            "preprocessing": self.preprocessing.as_dict(),
            "config": self.experiment.as_dict(),
            "data": self.facts(),
            "progress": dataclasses.asdict(self.progress),
            "metrics": figures,
            "training_state": {
                "weights": None if self.average is None else self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random,
                "random_cuda": random_cuda,
            },
        }
        for name in names:
            checkpoint.save(self.out / name, content)

    def restore(self, content: dict[str, Any], where: Path) -> None:
        """Take over the tensors and random states of a checkpoint that `save` wrote."""
        state = content["training_state"]
        checkpoint.restore_weights(self.judged, content, where)
        if self.average is not None:
            self.model.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"][self.world.rank])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"][self.world.rank], self.device)
