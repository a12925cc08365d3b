"""What a GPU needs of the hot loop, as far as a CPU can tell: no waiting, one compilation, no files left open."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from field_cases import experiment, field
from torch.utils._python_dispatch import TorchDispatchMode

import training.train
from darkhaloscope.records import SAMPLES
from darkhaloscope.sections import Training
from training.batch import LEFT_OUT, Batch, make_batch
from training.data import World
from training.delivery import Delivery
from training.distributed import shared
from training.live import HOST_COLUMNS, LiveInjection
from training.losses import make_loss
from training.make_shards import stamps_of
from training.models import ARCHITECTURES, Finder
from training.preprocess import Preprocessing
from training.train import take_step

CPU, SIDE = torch.device("cpu"), 16
METHODS = ("full", "outer", "sky_asinh")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """A network that compiles in no time."""

    def made(channels):
        layers = (torch.nn.Conv2d(channels, 8, 3, 2), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(2))
        return torch.nn.Sequential(*layers, torch.nn.Flatten()), 32

    monkeypatch.setitem(ARCHITECTURES, "small_resnet", made)


def finder(method):
    columns = {"meta_cols": ("psfsize_r",), "meta_mean": (1.0,), "meta_std": (0.3,)}
    return Finder("small_resnet", Preprocessing(method, size=SIDE, **columns))


def batch_of(rows, device=CPU):
    made = Batch(
        torch.rand(rows, 3, SIDE, SIDE, dtype=torch.float16),
        torch.ones(rows), torch.ones(rows, 3), torch.ones(rows, 1),
        torch.zeros(rows, 16, dtype=torch.uint8), torch.zeros(rows, 0),
    )  # fmt: skip
    return made.to(device)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_is_compiled_once_in_one_graph_for_batches_of_any_size(method):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    deliver = Delivery(CPU, None, augment=True, compiled=True)
    network = torch.compile(finder(method), fullgraph=True, backend=backend)
    for rows in (8, 7, 9):
        batch = deliver(batch_of(rows), "where", rows)
        with torch.autocast("cpu", torch.bfloat16):
            network(batch.stamps, batch.sky_sigma, batch.meta).sum().backward()
    torch.compiler.reset()
    assert len(graphs) == 1


class NoBlockingCopy(TorchDispatchMode):
    """Refuses a copy from the host to the device that the host would wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device != made.device:
            assert (kwargs or {}).get("non_blocking"), f"{func} to {made.device} waits"
        return made


@pytest.mark.parametrize("method", METHODS)
def test_a_step_never_asks_the_device_for_a_value(method, monkeypatch):
    """On the device "meta", whose tensors have no values: to look at one is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: contextlib.nullcontext())
    config = Training(loss="focal", label_smoothing=0.1, clip_grad_norm=1.0)
    model = finder(method).to("meta")
    run = SimpleNamespace(
        config=config, network=model, model=model, loss=make_loss(config), device=torch.device("meta"),
        optimizer=torch.optim.AdamW(model.parameters(), foreach=True), average=None,
        scaler=torch.amp.GradScaler("cpu", enabled=False), progress=SimpleNamespace(step=0),
    )  # fmt: skip
    batches = [batch_of(rows, "meta") for rows in (4, 3)]
    with NoBlockingCopy():
        loss, norm, left_out = take_step(run, batches)
        batch_of(2).to(torch.device("meta"))
    assert all(v.device.type == "meta" and not v.shape for v in (loss, norm, left_out))


def test_a_live_batch_is_page_locked_to_its_last_tensor(monkeypatch):
    """What stays as the worker sent it holds an open file for as long as the batch waits."""
    live = LiveInjection(experiment(), 64)
    bare = make_batch(
        stamps_of(field(), experiment(), "train", bare=True), Preprocessing(), "test", HOST_COLUMNS
    )
    planned = live.plan(
        live.classed(bare, np.full(len(bare.label), SAMPLES.index("synthetic_positive")), 0), 0
    )
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    pinned = planned.pin_memory()
    before, after = (set(storages(one)) for one in (planned, pinned))
    assert len(before) > 10
    assert not before & after


def storages(thing):
    """Addresses of all that a batch holds."""
    if isinstance(thing, torch.Tensor):
        return [thing.data_ptr()] if thing.numel() else []
    inside = vars(thing).values() if hasattr(thing, "__dict__") else thing if isinstance(thing, tuple) else ()
    return [address for one in inside if not isinstance(one, str) for address in storages(one)]


def test_rows_left_out_change_neither_loss_nor_gradient():
    rows = make_loss(Training())
    logit = torch.tensor([0.3, -2.0, 5.0], requires_grad=True)
    label = torch.tensor([1.0, 0.0, LEFT_OUT])
    training.train.mean_loss(rows(logit, label), label).backward()
    assert logit.grad[2] == 0
    kept = logit.detach()[:2].requires_grad_()
    rows(kept, label[:2]).mean().backward()
    torch.testing.assert_close(logit.grad[:2], kept.grad, rtol=0, atol=0)
    none = torch.full((3,), LEFT_OUT)
    assert training.train.mean_loss(rows(logit, none), none) == 0


def test_a_compiled_network_still_keeps_gradients_to_itself_between_the_batches_of_a_step(monkeypatch):
    class Ranks(torch.nn.Linear):
        def no_sync(self):
            return contextlib.nullcontext("kept")

    monkeypatch.setattr(training.distributed, "DistributedDataParallel", Ranks)
    network = torch.compile(Ranks(1, 1))
    with training.distributed.quietly(network, True) as kept:
        assert kept == "kept"
    assert shared(network, CPU, World(), compiled=False) is network
