"""Train a lens finder: `python training/train.py --experiment experiments/gen3.toml --data URL`.

The loop is `train`, below, in full: for every epoch take batches, turn them, step, validate, write the log
and the checkpoints. What it works on is put together by `training.setup.set_up`. Several GPUs: `torchrun
--nproc_per_node 4 training/train.py ...`; every rank runs the same loop on its own rows.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

# Threads that wait for each other should sleep: where other programs share the cores, spinning makes each
# step several times as slow. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from tqdm import tqdm

from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.sections import Training
from darkhaloscope.stage import place
from training.batch import LEFT_OUT
from training.data import Batch, StampStream, make_loader
from training.distributed import gathered, joined, largest, quietly
from training.live import LiveBatch
from training.losses import mean_loss
from training.metrics import summarise
from training.options import experiment_of, parser
from training.predict import autocast, predict
from training.run import Run
from training.runlog import LossMeter, StopRequest, epoch_line, memory_advice
from training.setup import set_up
from training.speed import Clock


def train(
    experiment: Experiment,
    data: str,
    out_dir: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train, or go on training; where torchrun started this process, as one of its ranks.

    Args:
        experiment: `experiment.training` and `experiment.seed` decide what is trained.
        data: URL of packed shards, or of stage 4c's output.
        out_dir: local folder for config.json, log.jsonl, last.pt and best.pt.
        resume: go on from last.pt in `out_dir` where there is one.
        overwrite: replace an earlier run there.
        device: torch device; None: cuda where there is one.
        tensorboard: also write TensorBoard's files.

    Returns:
        The figures of the last validation (empty where none was reached), and `stopped`: the number of the
        signal that ended the run early, or 0.

    Raises:
        Explained: it cannot train; says what to do.
        FloatingPointError: a loss or logit is NaN or infinite (the rows are named).
    """
    with joined() as world, StopRequest() as stop:
        run = set_up(experiment, data, Path(out_dir), resume, overwrite, device, tensorboard, world)
        config, progress = run.config, run.progress
        batches = iter(make_loader(run.stream, config.num_workers, run.device.type == "cuda"))
        while not progress.finished and not stop.signal:
            run.network.train()
            meter, clock = LossMeter(progress.losses), Clock()
            for count in tqdm(
                batches_of_steps(run), f"epoch {progress.epoch}", leave=False, disable=world.rank > 0
            ):
                set_learning_rate(run)
                with clock.waiting():
                    step = [next(batches) for _ in range(count)]
                outcome = take_step(run, [delivered(run, batch, i) for i, batch in enumerate(step)])
                progress.step, progress.position = progress.step + 1, progress.position + count
                meter.add(*outcome, torch.cat([batch.task_id for batch in step]))
                clock.rows += sum(len(batch.label) for batch in step)
                stop.signal = largest(stop.signal, world)  # so that every rank stops after the same step
                if stop.signal or (config.checkpoint_every and progress.step % config.checkpoint_every == 0):
                    progress.losses = meter.of_all(world)
                    run.save({}, "last.pt")
                if stop.signal:
                    run.log.write("stop", progress.step, epoch=progress.epoch, signal=stop.signal)
                    break
            else:
                shown = meter.figures(world)
                speed = clock.figures(run.cost.flops, run.peak_flops, world.ranks)
                end_epoch(run, {**shown, **speed, **validate(run)})
    return {**run.figures, "stopped": stop.signal}


def batches_of_steps(run: Run) -> list[int]:
    """Return how many batches each of the epoch's remaining optimiser steps takes."""
    left, each = run.stream.steps_per_epoch - run.progress.position, run.config.accumulate
    return [min(each, left - done) for done in range(0, left, each)]


def learning_rate(step: int, steps_per_epoch: int, config: Training) -> float:
    """Return the learning rate of a step: a linear rise over `warmup_epochs`, then a cosine to zero."""
    total, rise = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if step < rise:
        return config.lr * min((step + 1) / rise, 1.0)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1)))


def set_learning_rate(run: Run) -> None:
    """Set the rate of the next step."""
    steps_per_epoch = -(-run.stream.steps_per_epoch // run.config.accumulate)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(run.progress.step, steps_per_epoch, run.config)


def delivered(run: Run, batch: Batch | LiveBatch, number: int) -> Batch:
    """Return batch `number` of a step on the device, with its arcs drawn and each stamp in its orientation."""
    progress = run.progress
    return run.deliver(batch, run.experiment.seed, progress.epoch, run.world.rank, progress.position + number)


def take_step(run: Run, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do one optimiser step on the mean gradient of some batches (of all ranks).

    Returns:
        The mean loss, the norm of the gradient before clipping, and how many rows were left out.
    """
    run.optimizer.zero_grad(set_to_none=True)
    losses = []
    for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
        with quietly(run.network, left > 0):
            with autocast(run.device, run.config.precision):
                logit = run.network(batch.stamps, batch.sky_sigma, batch.meta)
            losses.append(mean_loss(run.loss(logit, batch.label), batch.label))
            run.scaler.scale(losses[-1] / len(batches)).backward()
    run.scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip_grad_norm or math.inf)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.average is not None:
        run.average.update(run.model, run.progress.step + 1)
    left_out = torch.stack([(batch.label == LEFT_OUT).sum() for batch in batches]).sum()
    # The scaler of fp16 provokes infinite gradients now and then, and skips those steps itself.
    return torch.stack(losses).mean(), torch.zeros_like(norm) if run.scaler.is_enabled() else norm, left_out


def validate(run: Run) -> dict[str, Any]:
    """Return loss and figures of the validation rows, each seen once, as it is, by one of the ranks."""
    shards, config, world = run.shards["val"], run.config, run.world
    workers = min(config.num_workers, len(shards.rows) // world.ranks)
    stream = StampStream(
        shards, run.preprocessing, config.batch_size, 0, shuffle=False, workers=workers, world=world
    )
    batches = tqdm(make_loader(stream, workers), "validate", stream.steps_per_epoch, leave=False,
                   disable=world.rank > 0)  # fmt: skip
    model = run.judged.eval()
    own = [(predict(model, batch, config.precision), batch.label.numpy()) for batch in batches]
    parts = [part for rank in gathered(own, world) for part in rank]
    logit, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    loss = run.loss(torch.from_numpy(logit), torch.from_numpy(label))
    return {"val_loss": float(loss.mean()), **summarise(logit, label)}


def end_epoch(run: Run, figures: dict[str, Any]) -> None:
    """Count the epoch, write its figures, and save the checkpoints it earned."""
    run.figures = {"epoch": run.progress.epoch, **figures}
    better = run.progress.end_epoch(figures, run.config)
    run.log.write("epoch", run.progress.step, **run.figures, best_epoch=run.progress.best_epoch)
    if run.world.rank == 0:
        tqdm.write(epoch_line(run.figures, better))
    keep = run.config.keep_every and run.progress.epoch % run.config.keep_every == 0
    kept = [f"epoch-{run.progress.epoch:04d}.pt"] if keep else []
    run.save(run.figures, *kept, *(["best.pt"] if better else []), "last.pt")


def main(argv: list[str] | None = None) -> int:
    """Parse flags, train, and say what came of it; return the exit status."""
    args = parser().parse_args(argv)
    given = vars(args)
    try:
        experiment = experiment_of(args)
        data = given.get("data", place("smoke-out", "pack", experiment))
        out = Path(given.get("out_dir", f"smoke-out/training/{experiment.name}"))
        result = train(
            experiment, data, out, "resume" in given, "overwrite" in given, given.get("device"),
            "tensorboard" in given,
        )  # fmt: skip
    except Explained as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train.py: stopped at once; --resume goes on from the last checkpoint", file=sys.stderr)
        return 128 + signal.SIGINT
    except RuntimeError as error:
        advice = memory_advice(error)
        if advice is None:
            raise
        print(f"train.py: {advice}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    if result["stopped"]:
        print(f"stopped by signal {result['stopped']}; go on with the same command and --resume")
        return 128 + result["stopped"]
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"done: {out / 'best.pt'} (score with it), {out / 'log.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
