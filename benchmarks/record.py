"""Results of a benchmark as JSON, with the machine and the versions they were measured with.

Example::

    figures = {"ours": summary(rates), "accuracy_p95": 3e-4}
    write_result("render", figures, packages=["numba", "lenstronomy"])

writes ``benchmarks/results/render.json``: ``{"benchmark", "date", "machine", "versions", "figures"}``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
ALWAYS = ("darkhaloscope", "numpy", "scipy", "numba")


def machine() -> dict[str, Any]:
    """The machine: CPU model, cores, load, memory, system, Python."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Installed versions of the packages (missing ones are left out) and the commit of this repository."""
    found = {}
    for name in (*ALWAYS, *packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return {**found, "commit": commit.stdout.strip()}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, spread (10th and 90th percentile), extremes and number of repeated measurements."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return {
        "median": float(median),
        "p10": float(low),
        "p90": float(high),
        "min": float(min(values)),
        "max": float(max(values)),
        "n": len(values),
    }


def write_result(name: str, figures: dict[str, Any], packages: Sequence[str] = ()) -> Path:
    """Write ``results/<name>.json``.

    Args:
        name: the benchmark.
        figures: what was measured; numbers, strings, lists and dicts of them.
        packages: distributions whose versions matter, beside this project, numpy, scipy and numba.

    Returns:
        The file written.
    """
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    content = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(packages),
        "figures": figures,
    }
    target.write_text(json.dumps(content, indent=1) + "\n")
    return target
