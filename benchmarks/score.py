"""Speed of scoring beside that of the network alone: same rows, same run, interleaved.

    python benchmarks/score.py [--arch small_resnet ...] [--seconds 4] [--rounds 2] [--threads 2] [--device cpu]

Writes ``results/score.json``; a run of other networks or threads is added to what is there. For each network, packed
shards and a list of positions, with and without the eight orientations: scoring (``evaluation.score.score``, from files
to committed files: reading or cutting, checks, network, writing every allowed column) against the network alone (the
same rows' batches lie ready in memory). Target: 0.9 of the network's own speed. The ratio of processor times says what
scoring costs whatever else the machine does, but only with ``--threads 1``: two OpenMP threads that wait for each other
burn processor time, more the busier the machine is. What a stamp costs beside the network is measured on its own, by
scoring with a network that answers 0. Weights are random: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from astropy.table import Table

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / "tests" / name) for name in ("training", "survey"))]

from record import RESULTS, summary, write_result  # noqa: E402
from survey_testing import BRICK, write_brick  # noqa: E402
from tiny_shards import make_columns, write_shards  # noqa: E402

from darkhaloscope.experiment import Experiment  # noqa: E402
from darkhaloscope.records import STAMP_SIZE  # noqa: E402
from darkhaloscope.sections import Training  # noqa: E402
from darkhaloscope.survey.bricks import brick_centre, parse_names, read_brick_table  # noqa: E402
from darkhaloscope.survey.positions import read_positions  # noqa: E402
from evaluation.committee import Committee, Member, averaged_logits, load_committee  # noqa: E402
from evaluation.score import score  # noqa: E402
from evaluation.sources import Source, stamp_files, stamps_at_positions  # noqa: E402
from training import checkpoint  # noqa: E402
from training.batch import make_batch  # noqa: E402
from training.models import Finder  # noqa: E402
from training.predict import predict  # noqa: E402
from training.preprocess import Preprocessing  # noqa: E402

BATCH, TARGET, FILES = 64, 0.9, 2
MANY, SOME = 8_192, 512  # rows of shards and of positions, for what a stamp costs beside the network
BRICK_SIDE, WITHIN_DEG = 1_800, 0.05  # pixels of a brick, and how far from its centre positions are


def make_checkpoint(path: Path, arch: str) -> str:
    """Write a checkpoint of a network with fresh weights."""
    experiment = Experiment("bench", "bench", "bench", training=Training(arch=arch))
    preprocessing = Preprocessing(norm_method="sky_asinh")
    content = {
        "model": Finder(arch, preprocessing).state_dict(), "config": experiment.as_dict(),
        "preprocessing": preprocessing.as_dict(), "data": {}, "progress": {}, "metrics": {}, "training_state": {},
    }  # fmt: skip
    checkpoint.save(path, content)
    return str(path)


def shards_of(root: Path, rows: int) -> Source:
    """Write packed float16 shards: two files of one split."""
    columns = [make_columns(rows // FILES, seed, "float16", "test", STAMP_SIZE) for seed in range(FILES)]
    write_shards(root / "split=test", columns, "float16", rows_per_group=256, size=STAMP_SIZE)
    return stamp_files(str(root), "test")


def positions_of(root: Path, rows: int, experiment: Experiment) -> Source:
    """Return positions in the one brick that `write_survey` wrote."""
    ra, dec = (float(v[0]) for v in brick_centre(*parse_names([BRICK])))
    offset = np.random.default_rng(0).uniform(-WITHIN_DEG, WITHIN_DEG, (rows, 2))
    places = root / f"{rows}.csv"
    places.write_text("ra,dec\n" + "".join(f"{ra + x},{dec + y}\n" for x, y in offset))
    positions = read_positions(str(places), "deg", "random")
    return stamps_at_positions(positions, read_brick_table(str(root / "bricks.fits")), str(root), experiment)


def write_survey(root: Path) -> None:
    """Write a brick of noise and the brick table, in the survey's layout."""
    write_brick(root, BRICK, side=BRICK_SIDE)
    ra, dec = brick_centre(*parse_names([BRICK]))
    values = (("psfsize", 1.3), ("psfdepth", 24.5), ("nexp", 3))
    facts = {f"{name}_{band}": [value] for name, value in values for band in "grz"}
    Table({"brickname": [BRICK], "ra": ra, "dec": dec, "ebv": [0.03], **facts}).write(root / "bricks.fits")


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds that work takes by the clock, and of the processor."""
    clock, core = time.perf_counter(), time.process_time()
    work()
    return {"clock": time.perf_counter() - clock, "core": time.process_time() - core}


def measure(committee: Committee, source: Source, rounds: int, outputs: Iterator[str]) -> dict[str, Any]:
    """Return stamps/s of the network alone and of scoring, and the ratio in each round."""
    member = committee.members[0]
    logits = averaged_logits if committee.d4 else predict
    tables = [t for i in range(len(source)) for t in source.tables(i, BATCH, {})]
    batches = [make_batch(t, member.preprocessing, "memory") for t in tables]
    rows = sum(t.num_rows for t in tables)
    ways = {
        "network": lambda: [logits(member.model, batch) for batch in batches],
        "scoring": lambda: score(committee, source, "test", next(outputs), BATCH, progress=False),
    }
    predict(member.model, batches[0])
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            found[way].append(timed(ways[way]))
    ratios = {
        f"ratio_by_{by}": summary(
            [n[by] / s[by] for n, s in zip(found["network"], found["scoring"], strict=True)]
        )
        for by in ("clock", "core")
    }
    speeds = {f"{way}_per_s": summary([rows / t["clock"] for t in found[way]]) for way in ways}
    return {"rows": rows, **speeds, **ratios}


class Mute(Committee):
    """Networks that answer 0 at once."""

    def _logits(self, member: Member, table: pa.Table, where: str) -> np.ndarray:
        return np.zeros(len(make_batch(table, member.preprocessing, where).label), np.float32)


def beside_the_network(committee: Committee, folder: Path, outputs: Iterator[str]) -> dict[str, float]:
    """Return a stamp's core milliseconds but for the network: in files of 4,096, and of 512 positions in one brick."""
    mute = Mute(committee.members, False, None)
    found = {}
    for kind, rows, source in (
        ("shards", MANY, shards_of(folder / "many", MANY)),
        ("positions", SOME, positions_of(folder / "survey", SOME, committee.members[0].experiment)),
    ):
        for _ in range(2):  # the second time counts

            def work(source: Source = source) -> None:
                score(mute, source, "test", next(outputs), 512, progress=False)

            found[kind] = 1e3 * timed(work)["core"] / rows
    return found


def rows_for(committee: Committee, seconds: float, folder: Path) -> int:
    """Return how many rows, a multiple of what a batch of each file holds, the network needs about `seconds` for."""
    source = shards_of(folder, 2 * BATCH)
    batch = make_batch(next(source.tables(0, BATCH, {})), committee.members[0].preprocessing, "memory")
    one = timed(lambda: predict(committee.members[0].model, batch))["clock"] * (8 if committee.d4 else 1)
    return (
        max(round(seconds / one), 1) * BATCH if one < seconds else 2 * max(int(seconds / one * BATCH / 2), 4)
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--arch", nargs="*", default=["small_resnet"])
    p.add_argument("--seconds", type=float, default=4.0, help="that the network alone takes, about")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    stored = RESULTS / "score.json"
    figures = json.loads(stored.read_text())["figures"] if stored.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outputs = (str(folder / f"out{i}") for i in itertools.count())
        write_survey(folder / "survey")
        one = load_committee([make_checkpoint(folder / "one.pt", "small_resnet")])
        figures["core_ms_beside_the_network"] = beside_the_network(one, folder, outputs)
        print(figures["core_ms_beside_the_network"], "ms of a core for a stamp, beside the network")
        for arch, d4 in itertools.product(a.arch, (False, True)):
            committee = load_committee([make_checkpoint(folder / f"{arch}.pt", arch)], (), d4, a.device)
            rows = rows_for(committee, a.seconds, folder / f"warm-{arch}-{d4}")
            for kind, source in (
                ("shards", shards_of(folder / f"{arch}-{d4}", rows)),
                ("positions", positions_of(folder / "survey", rows, committee.members[0].experiment)),
            ):
                case = f"{arch}, {kind}{', D4' if d4 else ''}, {a.device}, {a.threads} threads"
                figures[case] = measure(committee, source, a.rounds, outputs)
                ratio = {by: round(figures[case][f"ratio_by_{by}"]["median"], 3) for by in ("clock", "core")}
                print(
                    f"{case}: {figures[case]['scoring_per_s']['median']:.1f}/s, {ratio} of the network's own"
                )
    print(write_result("score", figures | {"target": TARGET, "batch": BATCH}, packages=["torch", "pyarrow"]))


if __name__ == "__main__":
    main()
