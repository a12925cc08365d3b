"""What a run leaves to read, and how it is asked to stop."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from darkhaloscope.config import ConfigError
from darkhaloscope.writing import replace_file
from training.data import World
from training.distributed import gathered

_EVERY = 16  # losses are looked at this often: each look waits for the device


class RunLog:
    """`log.jsonl`: one JSON object a line, each with `event` and the optimiser step it was written at."""

    def __init__(
        self, out: Path, keep_to_step: int | None = None, tensorboard: bool = False, writes: bool = True
    ) -> None:
        """Start a log; or continue one, without what a killed run wrote after step `keep_to_step`.

        Args:
            out: folder of the run.
            keep_to_step: None: a new log.
            tensorboard: also write numbers to `<out>/tensorboard`.
            writes: False on ranks that leave nothing.

        Raises:
            ConfigError: the package tensorboard is not installed.
        """
        self.path, self._writes, self._board = out / "log.jsonl", writes, None
        if not writes:
            return
        if tensorboard:
            self._board = _board(out / "tensorboard", keep_to_step)
        kept = [] if keep_to_step is None else [r for r in read_log(self.path) if r["step"] <= keep_to_step]
        replace_file(str(self.path), "".join(json.dumps(r) + "\n" for r in kept).encode())

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append a record; it is on disk when this returns."""
        if not self._writes:
            return
        with self.path.open("a") as stream:
            stream.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(f"{event}/{name}", value, step)
            self._board.flush()


def _board(folder: Path, keep_to_step: int | None) -> Any:
    """Open TensorBoard's writer; what it has after `keep_to_step` is hidden by a resumed run."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(f"--tensorboard: {error}; pip install tensorboard, or leave the flag out") from None
    return SummaryWriter(str(folder), purge_step=None if keep_to_step is None else keep_to_step + 1)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; a last line that was cut off is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a request to stop after the present step; a second one stops at once."""

    def __init__(self) -> None:
        self.signal = 0  # number of the signal that came; 0: none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = int(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@dataclass
class Losses:
    """What an epoch has shown so far."""

    total: float = 0.0  # sum of the losses of the rows
    rows: int = 0  # that took part
    left_out: int = 0  # that did not: live injection found no arc for them that stands out


class LossMeter:
    """Mean loss of an epoch, the count of rows left out, and the guard against NaN.

    Values are fetched from the device once in a while only, since each fetch waits for it; a batch that went
    wrong is still named.
    """

    def __init__(self, losses: Losses | None = None) -> None:
        """Begin an epoch, or go on with one."""
        self.losses = replace(losses) if losses else Losses()
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(
        self, loss: torch.Tensor, gradient_norm: torch.Tensor, left_out: torch.Tensor, task_id: torch.Tensor
    ) -> None:
        """Take a step's mean loss, the norm of its gradient, its rows left out, and all its ids (n, 16) uint8."""
        self._waiting.append((loss.detach(), gradient_norm.detach(), left_out, task_id))
        if len(self._waiting) >= _EVERY:
            self.fetch()

    def fetch(self) -> Losses:
        """Bring `losses` up to date; return them.

        Raises:
            FloatingPointError: a loss or gradient was NaN or infinite; names the first such batch's rows.
        """
        if not self._waiting:
            return self.losses
        *figures, ids = zip(*self._waiting, strict=True)
        self._waiting = []
        for loss, norm, left_out, task_id in zip(
            *(torch.stack(f).tolist() for f in figures), ids, strict=True
        ):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                names = ", ".join(bytes(row).hex() for row in task_id.tolist())
                raise FloatingPointError(
                    f"loss {loss}, gradient norm {norm}; lower --lr or use --precision fp32; if it comes "
                    f"back with the same rows, look at these stamps: task_id {names}"
                )
            rows = len(task_id) - left_out
            self.losses.total += loss * rows
            self.losses.rows += rows
            self.losses.left_out += left_out
        return self.losses

    def of_all(self, world: World) -> Losses:
        """Return the sums of all ranks, which each of them must ask for."""
        ranks = [astuple(losses) for losses in gathered(self.fetch(), world)]
        return Losses(*map(sum, zip(*ranks, strict=True)))

    def figures(self, world: World) -> dict[str, float]:
        """Return the epoch's mean loss, and its rows left out, of all ranks."""
        losses = self.of_all(world)
        return {"train_loss": losses.total / max(losses.rows, 1), "train_rows": losses.rows,
                "left_out_rows": losses.left_out}  # fmt: skip


def epoch_line(figures: dict[str, Any], better: bool) -> str:
    """Return an epoch's figures as one line for people."""
    rates = ", ".join(
        f"{name} {figures[name]:.3f} [{figures[name + '_low']:.3f}, {figures[name + '_high']:.3f}]"
        + (" unresolved" if name in figures["unresolved"] else "")
        for name in ("auroc", "tpr@lowfpr", "tpr@fpr1e-2", "tpr@fpr1e-3", "tpr@fpr1e-4")
    )
    loss = f"loss {figures['train_loss']:.4f} train {figures['val_loss']:.4f} val"
    if left_out := figures["left_out_rows"]:
        shown = figures["train_rows"] + left_out
        loss += f", {left_out:,} of {shown:,} rows left out: no arc that stands out"
    return (
        f"epoch {figures['epoch']}: {loss}, {rates}, "
        f"binary_score_frac {figures['binary_score_frac']:.3f} "
        f"(calibrated {figures['binary_score_frac_calibrated']:.3f}), "
        f"{figures['images_per_s']:.0f} images/s, {figures['data_wait_share']:.0%} waiting for data, "
        f"{figures['flops_utilisation']:.1%} of the device's peak" + (", best so far" if better else "")
    )


def memory_advice(error: RuntimeError) -> str | None:
    """Return what to reduce where an error says that memory ran out; None where it is another error."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            "out of memory; lower --batch_size (and raise --accumulate by as much, which keeps the step), or "
            "use --use_bf16, or a smaller --arch"
        )
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
        return "a process that reads shards was killed, most likely out of memory; lower --num_workers or --batch_size"
    return None
