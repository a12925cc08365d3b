"""Draw the page of a run.

    python -m evaluation.report smoke-out

Reads what the stages, the trainer, the evaluation and the checks of the model left in the workspace RUN and writes
`RUN/report/index.html`: one page that needs no network, with the figures, their intervals and N, pictures of
injections, controls and the worst mistakes, calibration, every check's section (gates, anchors, selection function,
probe, comparisons), training curves, completeness, row counts, failures, config and hashes. `RUN/report/report.json`
has the same for programs.
Every number comes from a file of the run; a part that is not there is shown as missing, with the command that makes it.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from darkhaloscope.injection.completeness import AXES
from darkhaloscope.records import PIXEL_SCALE_ARCSEC, STAMPS
from darkhaloscope.report.page import duration, number, page_css, percent
from darkhaloscope.stage import code_version
from darkhaloscope.storage import join, read_bytes
from darkhaloscope.writing import replace_file
from evaluation import figures
from evaluation.command import command_line, explaining
from evaluation.gallery import galleries
from evaluation.section import CHECKS
from evaluation.workspace import STAGES, Missing, Workspace, hash_faults, read_workspace

PAGE_NAME, JSON_NAME = "report/index.html", "report/report.json"
_PICTURES = {"svg": "image/svg+xml", "png": "image/png"}


def render(workspace: Workspace) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    environment.filters |= {
        "number": number,
        "percent": percent,
        "duration": duration,
        "bin_names": figures.bin_names,
    }
    environment.globals |= {"number": number, "percent": percent, "css": Markup(page_css())}
    return environment.get_template("report.html.j2").render(page_of(workspace))


def page_of(workspace: Workspace) -> dict[str, Any]:
    """Return what the template shows."""
    gallery = galleries(workspace)
    return _made_from(workspace) | _measured(workspace.metrics) | {
        "missing_parts": missing_parts(workspace, gallery),
        "gallery": gallery,
        "field_arcsec": workspace.experiment.stamps.size * PIXEL_SCALE_ARCSEC,
        "sections": sections(workspace),
        "not_run": not_run(workspace),
        "completeness": completeness(workspace.completeness),
        "training": workspace.training,
        "training_facts": _chart(workspace.training, lambda t: list(flatten(t["data"]))),
        "curves": _chart(workspace.epochs, figures.training_curves),
        "epochs": workspace.epochs,
        "stages": [(name, meaning, stage_card(workspace.stages[name])) for name, meaning in STAGES.items()],
        "scoring": stage_card(workspace.scoring),
        "failures": workspace.failures,
        "step_seconds": workspace.step_seconds,
    }  # fmt: skip


def _made_from(workspace: Workspace) -> dict[str, Any]:
    """Return what the run was made from, and whether it belongs together."""
    return {
        "experiment": workspace.experiment,
        "config_hash": workspace.experiment.digest(),
        "config": list(flatten(workspace.experiment.as_dict())),
        "code_version": code_version(),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "faults": hash_faults(workspace),
        "hashes": workspace.hashes,
    }


def _measured(metrics: dict[str, Any] | Missing) -> dict[str, Any]:
    """Return the figures of the test set with their charts."""
    return {
        "metrics": metrics,
        "roc": _chart(metrics, figures.roc),
        "histogram": _chart(metrics, figures.histogram),
        "purity": _chart(metrics, lambda m: purity_table(m["purity"])),
        "reliability": _chart(metrics, figures.reliability),
        "strata": strata(metrics),
    }


def missing_parts(workspace: Workspace, gallery: Any) -> list[tuple[str, str]]:
    """Return (part, why it is not there) of what a whole report has and this one lacks."""
    parts = {
        **{f"stage {name}": record for name, record in workspace.stages.items()},
        "training": workspace.training,
        "training log": workspace.epochs,
        "scores": workspace.scoring,
        "figures": workspace.metrics,
        "completeness": workspace.completeness,
        "pictures": gallery,
    }
    return [(name, part.reason) for name, part in parts.items() if isinstance(part, Missing)]


def as_json(workspace: Workspace) -> dict[str, Any]:
    """Return everything the page shows but its pictures; a part that is not there is {"missing": reason}."""
    content = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "code_version": code_version(),
        "config_hash": workspace.experiment.digest(),
        "experiment": workspace.experiment.as_dict(),
        "does_not_belong_together": hash_faults(workspace),
        **{
            name: getattr(workspace, name)
            for name in (
                "hashes",
                "metrics",
                "sections",
                "training",
                "epochs",
                "completeness",
                "stages",
                "scoring",
            )
        },
        "failures": workspace.failures,
        "step_seconds": workspace.step_seconds,
    }
    return _for_json(content)


def _for_json(value: Any) -> Any:
    if isinstance(value, Missing):
        return {"missing": value.reason}
    if isinstance(value, Mapping):
        return {k: _for_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def purity_table(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the purities of each point of the curve, in the order of the prevalences."""
    names = dict.fromkeys(r["at"] for r in rows)
    return {name: [r for r in rows if r["at"] == name] for name in names}


def sections(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the checks' sections as the page shows them: an id, which columns are numbers, pictures in the page."""
    shown = []
    for name, section in workspace.sections.items():
        tables = [
            t | {"numbers": [_is_numbers(c) for c in zip(*t["rows"], strict=True)]} for t in section["tables"]
        ]
        pictures = [p | {"uri": _embedded(workspace.evaluation, p["file"])} for p in section["pictures"]]
        shown.append(section | {"id": _anchor(name), "tables": tables, "pictures": pictures})
    return shown


def not_run(workspace: Workspace) -> list[tuple[str, str]]:
    """Return (what it asks, command) of each check of a whole report that left no section."""
    return [check for name, check in CHECKS.items() if name not in workspace.sections]


def _anchor(name: str) -> str:
    return "check_" + re.sub(r"\W", "_", name)


def _is_numbers(column: Sequence[Any]) -> bool:
    known = [cell for cell in column if cell is not None]
    return bool(known) and all(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in known)


def _embedded(folder: str, file: str) -> str | Missing:
    """Return a picture beside its section as a data URI; SVG is shown as an image, in which no script runs."""
    kind = _PICTURES.get(file.rsplit(".", 1)[-1].lower())
    if kind is None or "/" in file or "\\" in file:
        return Missing(f"{file}: expected the name of an SVG or PNG file in {folder}")
    try:
        content = read_bytes(join(folder, file))
    except FileNotFoundError:
        return Missing(f"no {join(folder, file)}")
    return f"data:{kind};base64," + base64.b64encode(content).decode()


def _chart(part: Any, draw: Any) -> Any:
    return part if isinstance(part, Missing) else draw(part)


def strata(metrics: dict[str, Any] | Missing) -> list[tuple[str, dict[str, Any], str]] | Missing:
    """Return (axis, its figures, chart) for each axis of the strata."""
    if isinstance(metrics, Missing):
        return metrics
    return [
        (axis, s, figures.stratum(s["bins"], f"{axis} ({s['unit']})" if s["unit"] else axis))
        for axis, s in metrics["strata"].items()
    ]


def completeness(rows: list[dict[str, Any]] | Missing) -> list[tuple[str, str, str, list[Any]]] | Missing:
    """Return (axis, meaning, chart, rows) for each axis of stage 4d's table."""
    if isinstance(rows, Missing):
        return rows
    columns = {c.name: c for c in STAMPS.columns}
    made = []
    for axis in AXES:
        bins, column = [r for r in rows if r["axis"] == axis], columns[axis]
        label = f"{axis} ({column.unit})" if column.unit else axis
        made.append((axis, column.meaning, figures.completeness(bins, label), bins))
    return made


def stage_card(record: dict[str, Any] | Missing) -> dict[str, Any] | Missing:
    """Return a stage's record as the page shows it: counts flattened, failure reasons apart."""
    if isinstance(record, Missing):
        return record
    counts = dict(record.get("counts", {}))
    reasons = counts.pop("reasons", {})
    return {
        "state": record["state"],
        "hash": record["hash"],
        "inputs": record["inputs"],
        "seconds": record.get("seconds"),
        "code_version": record["code_version"],
        "counts": [(k, f"{v / 1e6:,.1f} MB" if k.endswith("bytes") else v) for k, v in flatten(counts)],
        "reasons": sorted(reasons.items(), key=str),
    }


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested dicts."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else value


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = command_line("report", __doc__)
    p.add_argument("run", help="workspace of a run, such as smoke-out")
    p.add_argument("--experiment-id", help="which experiment, where the workspace holds several")
    return p


@explaining("report")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = parser().parse_args(argv)
    workspace = read_workspace(arguments.run, arguments.experiment_id)
    page = join(arguments.run, PAGE_NAME)
    replace_file(page, render(workspace).encode())
    content = json.dumps(as_json(workspace), indent=1, allow_nan=False)
    replace_file(join(arguments.run, JSON_NAME), content.encode())
    print(f"-> {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
