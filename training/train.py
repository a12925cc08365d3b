"""Train a lens finder: `python training/train.py --experiment experiments/gen3.toml --data URL`.

The loop is `train`, below, in full: for every epoch take batches, turn them, step, validate, write the log
and the checkpoints. What it works on is put together by `training.setup.set_up`.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

# Threads that wait for each other should sleep: where other programs share the cores, spinning makes each
# step several times as slow. Read once, when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from tqdm import tqdm

from darkhaloscope.config import ConfigError
from darkhaloscope.dataset import DatasetError
from darkhaloscope.experiment import Experiment, Training
from darkhaloscope.schema import SchemaError
from darkhaloscope.stage import place
from darkhaloscope.storage import StorageError
from training.augment import draw_orientations, orient
from training.checkpoint import CheckpointError
from training.data import Batch, StampStream, make_loader
from training.metrics import summarise
from training.options import experiment_of, parser
from training.predict import autocast, predict
from training.preprocess import PreprocessingError
from training.runlog import Clock, LossMeter, StopRequest, epoch_line
from training.setup import Run, set_up
from training.shards import DataError

REFUSALS = (
    CheckpointError, ConfigError, DataError, DatasetError, PreprocessingError, SchemaError, StorageError,
)  # fmt: skip
"""What `train` raises when it cannot train; each message says what to do."""


def train(
    experiment: Experiment,
    data: str,
    out_dir: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
) -> dict[str, Any]:
    """Train, or go on training.

    Args:
        experiment: `experiment.training` and `experiment.seed` decide what is trained.
        data: URL of packed shards, or of stage 4c's output.
        out_dir: local folder for config.json, log.jsonl, last.pt and best.pt.
        resume: go on from last.pt in `out_dir` where there is one.
        overwrite: replace an earlier run there.
        device: torch device; None: cuda where there is one.

    Returns:
        The figures of the last validation (empty where none was reached), and `stopped`: the number of the
        signal that ended the run early, or None.

    Raises:
        One of `REFUSALS`; FloatingPointError where a loss or logit is NaN or infinite (the rows are named).
    """
    run = set_up(experiment, data, Path(out_dir), resume, overwrite, device)
    config, progress, steps = experiment.training, run.progress, run.stream.steps_per_epoch
    figures: dict[str, Any] = run.figures
    with StopRequest() as stop:
        batches = iter(make_loader(run.stream, config.num_workers, run.device.type == "cuda"))
        while not progress.finished and stop.signal is None:
            run.model.train()
            meter, clock = LossMeter(progress.loss_total, progress.loss_rows), Clock()
            label, left = f"epoch {progress.epoch}", range(progress.position, steps)
            for position in tqdm(left, label, steps, initial=progress.position, unit="step", leave=False):
                with clock.waiting():
                    batch = next(batches)
                set_learning_rate(run, learning_rate(progress.step, steps, config))
                loss, norm = take_step(run, turned(run, batch.to(run.device)))
                meter.add(loss, norm, batch.task_id)
                clock.rows += len(batch.label)
                progress.step, progress.position = progress.step + 1, position + 1
                if stop.signal is not None:
                    break
            meter.fetch()
            progress.loss_total, progress.loss_rows = meter.total, meter.rows
            if stop.signal is not None:
                run.log.write("stop", progress.step, epoch=progress.epoch, signal=int(stop.signal))
                run.save("last.pt", {})
                break

            figures = {"epoch": progress.epoch, "train_loss": meter.mean, **clock.figures(), **validate(run)}
            better = progress.end_epoch(figures, config)
            run.log.write("epoch", progress.step, **figures, best_epoch=progress.best_epoch)
            tqdm.write(epoch_line(figures, better))
            if better:
                run.save("best.pt", figures)
            run.save("last.pt", figures)
    return {**figures, "stopped": stop.signal}


def learning_rate(step: int, steps_per_epoch: int, config: Training) -> float:
    """Return the learning rate of a step: a linear rise over `warmup_epochs`, then a cosine to zero."""
    total, rise = config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if step < rise:
        return config.lr * min((step + 1) / rise, 1.0)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1)))


def set_learning_rate(run: Run, rate: float) -> None:
    """Set the rate of the next step."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate


def turned(run: Run, batch: Batch) -> Batch:
    """Return the batch with each stamp in a random orientation, where the config says so."""
    if not run.config.augment:
        return batch
    where = (run.experiment.seed, run.progress.epoch, run.progress.position)
    return batch._replace(stamps=orient(batch.stamps, draw_orientations(len(batch.label), *where)))


def take_step(run: Run, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Do one optimiser step; return the batch's mean loss and the norm of its gradient before clipping."""
    with autocast(run.device, run.config.precision):
        logit = run.model(batch.stamps, batch.sky_sigma, batch.meta)
    loss = run.loss(logit, batch.label).mean()
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), run.config.clip_grad_norm or math.inf)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    # The scaler of fp16 provokes infinite gradients now and then, and skips those steps itself.
    return loss, torch.zeros_like(norm) if run.scaler.is_enabled() else norm


def validate(run: Run) -> dict[str, Any]:
    """Return loss and figures of the validation rows, each seen once as it is."""
    shards, config = run.shards["val"], run.config
    workers = min(config.num_workers, len(shards.rows))
    stream = StampStream(shards, run.preprocessing, config.batch_size, 0, shuffle=False, workers=workers)
    run.model.eval()
    parts = [
        (predict(run.model, batch, config.precision), batch.label.numpy())
        for batch in tqdm(make_loader(stream, workers), "validate", stream.steps_per_epoch, leave=False)
    ]
    logit, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    loss = run.loss(torch.from_numpy(logit), torch.from_numpy(label)).mean()
    return {"val_loss": float(loss), **summarise(logit, label)}


def main(argv: list[str] | None = None) -> int:
    """Parse flags, train, and say what came of it; return the exit status."""
    args = parser().parse_args(argv)
    given = vars(args)
    try:
        experiment = experiment_of(args)
        data = given.get("data", place("smoke-out", "pack", experiment))
        out = Path(given.get("out_dir", f"smoke-out/training/{experiment.name}"))
        result = train(
            experiment, data, out, "resume" in given, "overwrite" in given, given.get("device")
        )  # fmt: skip
    except REFUSALS as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    except torch.OutOfMemoryError as error:
        print(f"train.py: out of memory; lower --batch_size, or use --use_bf16: {error}", file=sys.stderr)
        return 1
    if result["stopped"] is not None:
        print(f"stopped by signal {result['stopped']}; go on with the same command and --resume")
        return 128 + result["stopped"]
    print(f"done: {out / 'best.pt'} (score with it), {out / 'log.jsonl'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
