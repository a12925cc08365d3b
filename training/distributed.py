"""Several processes that train one network: `torchrun --nproc_per_node 4 training/train.py ...`.

Each rank reads its own share of the rows and has the same weights; gradients are averaged over the ranks.
Without torchrun everything here is that of one process alone. What is exchanged besides gradients is small and
goes over gloo, so that no GPU waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from darkhaloscope.config import ConfigError
from training.data import World

# Groups that were left, kept as long as the process: a group's end waits for gloo's threads with the interpreter's lock
# held. It came when the network was dropped, which holds the group too; a thread that was late to free a tensor then
# waited for that lock, and the rank for the thread, for ever.
_LEFT: list[Any] = []


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
        distributed.barrier()  # all leave together
    finally:
        _LEFT.append(distributed.group.WORLD)
        distributed.destroy_process_group()


def own_device(asked: str | None) -> torch.device:
    """Return the device of this rank: what was asked for, else its GPU where there is one.

    Raises:
        ConfigError: a GPU was asked for and there is none.
    """
    device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"--device {device}: this torch sees no GPU; leave the flag out, or look at nvidia-smi"
        )
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = (
            True  # shapes are few, and the best kernel of each is twice the default
        )
    return device


def shared(model: nn.Module, device: torch.device, world: World, compiled: bool) -> nn.Module:
    """Return what a training step calls: the model, its gradients averaged over the ranks, compiled where asked."""
    network = model
    if world.ranks > 1:
        network = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    return cast(nn.Module, torch.compile(network)) if compiled else network


def quietly(network: nn.Module, when: bool) -> AbstractContextManager[None]:
    """Return the context of a backward pass that is not exchanged yet, where more of the step follow."""
    network = getattr(network, "_orig_mod", network)  # of a compiled network
    if when and isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return nullcontext()


def gathered(value: Any, world: World) -> list[Any]:
    """Return every rank's `value`, in the order of ranks."""
    if world.ranks == 1:
        return [value]
    values: list[Any] = [None] * world.ranks
    distributed.all_gather_object(values, value)
    return values


def largest(number: int, world: World) -> int:
    """Return the largest of the ranks' numbers."""
    if world.ranks == 1:
        return number
    held = torch.tensor(number)
    distributed.all_reduce(held, distributed.ReduceOp.MAX)
    return int(held)
