"""Which page validates which stage, and how pages are written: beside their stage, and one that leads to all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from darkhaloscope.dataset import DatasetError
from darkhaloscope.experiment import Experiment
from darkhaloscope.report.page import Link, Page, Section, Table, as_json, render_page
from darkhaloscope.stage import place, read_record
from darkhaloscope.storage import join
from darkhaloscope.validation.cache import cache_page
from darkhaloscope.validation.completeness import completeness_page
from darkhaloscope.validation.manifest import manifest_page
from darkhaloscope.validation.shards import pack_page
from darkhaloscope.validation.stamps import stamps_page
from darkhaloscope.validation.targets import targets_page
from darkhaloscope.writing import replace_file

FOLDER = "validation"
NOT_RUN = "has not run"


@dataclass(frozen=True)
class Validation:
    """A stage that can be validated: folder of its output, what it makes, and what draws its page."""

    folder: str
    what: str
    page: Callable[[str], Page]


STAGES = {
    "3": Validation("phase3", "targets", targets_page),
    "4a": Validation("phase4a", "manifest", manifest_page),
    "4b": Validation("phase4b", "coadd cache", cache_page),
    "4c": Validation("phase4c", "stamps", stamps_page),
    "4d": Validation("phase4d", "completeness", completeness_page),
    "pack": Validation("pack", "training shards", pack_page),
}
"""Every stage with a page, in the order of the pipeline."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stage's validation: its page's folder, or why there is none."""

    stage: str
    root: str
    page: Page | None
    reason: str = ""

    @property
    def warnings(self) -> list[str]:
        """Every warning of the page."""
        return [w for section in (self.page.sections if self.page else ()) for w in section.warnings]


def validate(root: str, experiment: Experiment, stages: Iterable[str]) -> list[Outcome]:
    """Write the pages of the stages that have finished below a workspace, and one that leads to them.

    Args:
        root: URL of the workspace.
        experiment: names the outputs (variant and experiment_id).
        stages: names of `STAGES`.

    Raises:
        DatasetError, SchemaError: a finished stage's table cannot be read or has another layout, or none has run.
    """
    outcomes = [_validate_stage(name, place(root, STAGES[name].folder, experiment)) for name in stages]
    if all(outcome.reason == NOT_RUN for outcome in outcomes):
        raise DatasetError(
            f"{root}: no stage of {experiment.variant}/{experiment.experiment_id} has run there; "
            "give the workspace of a run and the experiment it was run with"
        )
    index = join(root, FOLDER, experiment.variant, experiment.experiment_id)
    write_page(index_page(root, experiment, outcomes), index)
    return outcomes


def _validate_stage(name: str, output: str) -> Outcome:
    record = read_record(output)
    if record is None:
        return Outcome(name, output, None, NOT_RUN)
    if record["state"] != "done":
        return Outcome(name, output, None, f"is {record['state']}, not done: run it again")
    page = STAGES[name].page(output)
    write_page(page, join(output, FOLDER))
    return Outcome(name, output, page)


def write_page(page: Page, folder: str) -> None:
    """Write a page for people and its numbers for programs: index.html and validation.json."""
    replace_file(join(folder, "index.html"), render_page(page).encode())
    numbers = json.dumps(_finite(as_json(page)), indent=1, allow_nan=False)
    replace_file(join(folder, "validation.json"), numbers.encode())


def index_page(root: str, experiment: Experiment, outcomes: list[Outcome]) -> Page:
    """Return the page that leads to the stages' pages, with every warning."""
    up = "../" * 3
    rows = [
        (
            o.stage,
            Link(STAGES[o.stage].what, f"{up}{_below(root, o.root)}/{FOLDER}/index.html")
            if o.page
            else STAGES[o.stage].what,
            o.page.subtitle if o.page else o.reason,
            len(o.warnings),
        )
        for o in outcomes
    ]
    warnings = [f"{o.stage}: {w}" for o in outcomes for w in o.warnings]
    facts = {"workspace": root, "experiment": f"{experiment.variant} / {experiment.experiment_id}"}
    table = Table(("stage", "page", "found", "warnings"), rows, "Stages")
    text = "No warnings." if not warnings else f"{len(warnings)} warnings."
    return Page("Validation", experiment.name, facts, [Section("Stages", text, warnings, [table])])


def _below(root: str, output: str) -> str:
    return output.removeprefix(root.rstrip("/") + "/")


def _finite(value: Any) -> Any:
    """Return JSON data with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
