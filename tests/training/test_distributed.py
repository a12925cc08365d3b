"""Two ranks do together what one process does alone."""

import faulthandler
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_shards import make_columns, write_shards
from torch import nn

import training.train as trainer
from training import checkpoint, models
from training.runlog import read_log
from training.timm_import import import_timm_utils

import_timm_utils()  # once, before forking: each rank would import it for itself

LONG_S = 120  # after which a rank hangs
FLAGS = ["--arch", "small_resnet", "--epochs", "3", "--lr", "1e-3", "--num_workers", "0", "--device", "cpu",
         "--precision", "fp32", "--ema_decay", "0.5", "--dropout", "0"]  # fmt: skip


def plain(channels: int) -> tuple[nn.Module, int]:
    """A network without batch statistics: its gradient of a batch is the mean of the gradients of its parts."""
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()), 32


def one_rank(folder: Path, rank: int, ranks: int, port: int, flags: list[str], stop_after: int) -> None:
    """Train as one rank, noting which rows it saw; the last rank gets SIGTERM in step `stop_after`."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    stuck = (folder / f"stuck-{rank}.txt").open("w")
    faulthandler.dump_traceback_later(LONG_S - 10, file=stuck)
    models.ARCHITECTURES["small_resnet"] = plain
    seen: dict[str, list[str]] = {"train": [], "val": []}
    delivered, predict, take_step, taken = trainer.delivered, trainer.predict, trainer.take_step, []

    def noted(run, batch, number):
        seen["train"] += batch.task_ids()
        return delivered(run, batch, number)

    def noted_too(model, batch, precision):
        seen["val"] += batch.task_ids()
        return predict(model, batch, precision)

    def stopped(*given):
        taken.append(1)
        if len(taken) == stop_after and rank == ranks - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*given)

    trainer.delivered, trainer.predict, trainer.take_step = noted, noted_too, stopped
    status = trainer.main(["--out_dir", str(folder / "out"), *FLAGS, *flags])
    (folder / f"seen-{rank}.json").write_text(json.dumps(seen))
    os._exit(status % 256)


def launch(folder: Path, ranks: int, *flags: str, stop_after: int = 0) -> list[int | None]:
    """Run the ranks as forks of a process that has torch loaded and has never used it; return their exit statuses.

    (Forks of this one hang where other tests have used torch's threads before.)
    """
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload([__name__])
    started = [fork.Process(target=one_rank, args=(folder, rank, ranks, port, list(flags), stop_after))
               for rank in range(ranks)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:  # the server looks for this module where Python always looks
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        for process in started:
            process.start()
    for process in started:
        process.join(LONG_S)
        process.kill()  # of those that still run
        process.join()
    stuck = "".join(path.read_text() for path in sorted(folder.glob("stuck-*.txt")))
    assert not stuck, f"a rank hung, here:\n{stuck}"
    return [process.exitcode for process in started]


def rows(folder: Path, split: str, ranks: int) -> list[list[str]]:
    return [json.loads((folder / f"seen-{rank}.json").read_text())[split] for rank in range(ranks)]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("ranks")
    write_shards(root / "split=train", [make_columns(64, i) for i in range(2)])
    write_shards(root / "split=val", [make_columns(48, 1000, split="val")])
    return str(root)


@pytest.fixture(scope="module")
def pair(data, tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    # One step an epoch on all rows: then which rank has which row cannot matter.
    assert launch(root / "one", 1, "--data", data, "--batch_size", "128", "--no-augment") == [0]
    assert launch(root / "two", 2, "--data", data, "--batch_size", "64", "--no-augment") == [0, 0]
    return root / "one", root / "two"


def test_two_ranks_reach_the_weights_and_figures_of_one(pair):
    one, two = (checkpoint.load(p / "out/last.pt") for p in pair)
    for weights in ((one["model"], two["model"]), [c["training_state"]["weights"] for c in (one, two)]):
        for name, value in weights[0].items():
            torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)
    logs = [[r for r in read_log(p / "out/log.jsonl") if r["event"] == "epoch"] for p in pair]
    assert [len(log) for log in logs] == [3, 3]
    for x, y in zip(*logs, strict=True):
        assert x["val_loss"] == pytest.approx(y["val_loss"], rel=1e-4)
        assert (x["n_positives"], x["n_negatives"]) == (y["n_positives"], y["n_negatives"]) == (24, 24)


def test_every_row_is_seen_once_an_epoch_by_one_of_the_ranks(pair):
    one, two = pair
    for split, count in (("train", 128), ("val", 48)):
        first, second = rows(two, split, 2)
        assert len(first) + len(second) == 3 * count
        assert sorted(first + second) == sorted(rows(one, split, 1)[0])
        assert abs(len(first) - len(second)) <= 3


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_they_go_on_together(data, tmp_path):
    flags = ["--data", data, "--batch_size", "16", "--dropout", "0.2"]
    assert launch(tmp_path / "whole", 2, *flags) == [0, 0]
    assert launch(tmp_path / "parts", 2, *flags, stop_after=6) == [128 + signal.SIGTERM] * 2
    assert checkpoint.load(tmp_path / "parts/out/last.pt")["progress"]["step"] == 6
    assert read_log(tmp_path / "parts/out/log.jsonl")[-1]["signal"] == signal.SIGTERM
    assert launch(tmp_path / "parts", 1, *flags, "--resume") == [2], "another number of ranks is refused"
    assert launch(tmp_path / "parts", 2, *flags, "--resume") == [0, 0]
    whole, parts = (checkpoint.load(tmp_path / p / "out/last.pt")["model"] for p in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.slow
def test_torchrun_starts_the_ranks(data, tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = str(Path(trainer.__file__))
    done = subprocess.run([*run, script, "--data", data, "--out_dir", str(tmp_path), *FLAGS, "--epochs", "1"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done:") == 1
    assert json.loads((tmp_path / "config.json").read_text())["ranks"] == 2
