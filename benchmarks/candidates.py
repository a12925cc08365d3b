"""Speed of the candidate page: a catalogue with pixels to the page in the browser's hands.

    python benchmarks/candidates.py [--rows 1000]

Writes ``results/candidates.json``: candidates a second of the whole command (reading, pictures, files), which uses one
core, and of its parts: drawing a candidate's six panels, their JPEG, and the page itself. Stamps are fabricated:
galaxies with sky noise, for which a JPEG costs what it costs for real ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import summary, write_result
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "evaluation"))

from fabricate_candidates import candidate_columns, galaxies, write_candidates

from evaluation.candidate_page import build, pictures
from evaluation.candidate_page.catalogue import read_catalogue
from evaluation.candidate_page.order import by_rank

REQUIRED = 200  # candidates a second
ROUNDS = 3


def rates(work: Callable[[], Any], candidates: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Candidates a second of wall clock, and of this process's CPU time (which a busy machine leaves alone)."""
    wall, cpu = [], []
    for _ in range(rounds):
        started, busy = time.perf_counter(), time.process_time()
        work()
        wall.append(candidates / (time.perf_counter() - started))
        cpu.append(candidates / (time.process_time() - busy))
    return {"per_second": summary(wall), "per_cpu_second": summary(cpu)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000)
    n = parser.parse_args().rows
    stamps, centres = galaxies(build.PER_SPRITE), np.full((build.PER_SPRITE, 2), 31.7)
    rgb = pictures.sprite(stamps, centres, "grz")
    with tempfile.TemporaryDirectory() as folder:
        root = write_candidates(Path(folder) / "candidates", candidate_columns(n, stamps=galaxies(n)))

        def whole() -> None:
            build.write_page(by_rank(read_catalogue(root)), f"{root}-page", "benchmark", False)

        figures = {"rows": n, "required": REQUIRED, "whole": rates(whole, n)}
        size = sum(f.stat().st_size for f in Path(f"{root}-page").rglob("*") if f.is_file())
        items = by_rank(read_catalogue(root))
        content = build.content_of(items, "benchmark", False, [], False)
    threadpool_limits(1, "blas")  # as the page's builder does
    figures["parts"] = {
        "six panels": rates(lambda: pictures.sprite(stamps, centres, "grz"), build.PER_SPRITE, 20),
        "jpeg": rates(lambda: pictures.jpeg(rgb), build.PER_SPRITE, 20),
        "facts and html": rates(lambda: build.render(content, False), n),
    }
    figures["bytes_per_candidate"] = round(size / n)
    rate = {unit: figures["whole"][unit]["median"] for unit in ("per_second", "per_cpu_second")}
    print(
        f"{rate['per_second']:.0f} candidates/s, {rate['per_cpu_second']:.0f} a CPU second (required: {REQUIRED}/s)"
    )
    print(f"wrote {write_result('candidates', figures, ('astropy', 'pillow'))}")


if __name__ == "__main__":
    main()
