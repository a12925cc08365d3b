"""What a run left behind, read for the report: each part is either there, or missing with the reason.

A workspace has `<stage>/<variant>/<experiment_id>/` for the stages, `training/<name>/`, `scores/<name>/` and
`evaluation/metrics.json` below one root. Nothing is computed here, and nothing is left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from darkhaloscope import experiment as experiments
from darkhaloscope.dataset import DatasetError, committed_chunks, content_hash, read_table
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.records import COMPLETENESS, FAILURES
from darkhaloscope.schema import SchemaError, check_schema
from darkhaloscope.stage import RECORD_NAME, place, read_record
from darkhaloscope.storage import filesystem, join, read_bytes
from evaluation.evaluate import FORMAT, METRICS_NAME
from evaluation.section import read_all

STAGES = {
    "phase3": "targets: galaxies that may be hosts",
    "phase4a": "manifest: which arc on which galaxy, and the controls",
    "phase4b": "coadd cache: the bricks' images",
    "phase4c": "stamps: coadd cut-outs, with arcs added to the injections",
    "phase4d": "completeness of the injections",
    "pack": "training shards",
}
"""Folder of each stage, in order, and what it makes."""

_OF_STAGES = ("targets", "manifest", "coadds", "stamps")  # inputs that stages made; others come from outside


class WorkspaceError(Explained, RuntimeError):
    """A folder no report can be made of; the message says what was found and what to do."""


@dataclass(frozen=True)
class Missing:
    """A part of the workspace that is not there: what it is, and how to make it."""

    reason: str


@dataclass(frozen=True)
class Workspace:
    """Everything the report shows.

    Attributes:
        root: URL of the workspace.
        experiment: effective config, as the stages recorded it.
        stages: name -> its `_stage_config.json`, or Missing.
        failures: rows of the stages' quarantine tables.
        training: `config.json` of the trainer, or Missing.
        epochs: the trainer's records of its epochs, or Missing.
        scoring: `_stage_config.json` of the scores, or Missing.
        metrics: `metrics.json`, or Missing.
        completeness: rows of stage 4d's table, or Missing.
        sections: what the checks of the model left for the report (`evaluation.section`), by name.
        hashes: content hashes of the datasets that are there, by name.
        step_seconds: how long each step of a smoke run took, of its `summary.json`; empty for other runs.
    """

    root: str
    experiment: Experiment
    stages: dict[str, dict[str, Any] | Missing]
    failures: list[dict[str, Any]]
    training: dict[str, Any] | Missing
    epochs: list[dict[str, Any]] | Missing
    scoring: dict[str, Any] | Missing
    metrics: dict[str, Any] | Missing
    completeness: list[dict[str, Any]] | Missing
    sections: dict[str, dict[str, Any]]
    hashes: dict[str, str]
    step_seconds: dict[str, float]

    def place(self, stage: str) -> str:
        """Return the URL of a stage's output."""
        return place(self.root, stage, self.experiment)

    @property
    def evaluation(self) -> str:
        """URL of the folder of figures and sections."""
        return join(self.root, "evaluation")

    @property
    def scores(self) -> str:
        """URL of the scores dataset."""
        return join(self.root, "scores", self.experiment.name)


def read_workspace(root: str, experiment_id: str | None = None) -> Workspace:
    """Read a workspace.

    Args:
        root: URL of the folder that the stages wrote below.
        experiment_id: which experiment, where the workspace holds several.

    Raises:
        WorkspaceError: no stage left a record there, or several experiments did and none was named.
    """
    experiment = _experiment(root, experiment_id)
    trained = join(root, "training", experiment.name)
    stages = {name: _stage(place(root, name, experiment), name) for name in STAGES}
    return Workspace(
        root=root,
        experiment=experiment,
        stages=stages,
        failures=list(_failures(root, experiment)),
        training=_json(join(trained, "config.json"), "training/train.py writes it"),
        epochs=_epochs(join(trained, "log.jsonl")),
        scoring=_stage(join(root, "scores", experiment.name), "score"),
        metrics=_metrics(join(root, "evaluation", METRICS_NAME)),
        completeness=_table(place(root, "phase4d", experiment)),
        sections=read_all(join(root, "evaluation")),
        hashes=_hashes(root, experiment),
        step_seconds=_step_seconds(join(root, "summary.json")),
    )


def _experiment(root: str, experiment_id: str | None) -> Experiment:
    fs, path = filesystem(root)
    records = [
        json.loads(fs.cat_file(found))
        for stage in STAGES
        for found in sorted(fs.glob(f"{path}/{stage}/*/*/{RECORD_NAME}"))
    ]
    configs = {r["experiment"]["experiment_id"]: r["experiment"] for r in records}
    if not configs:
        raise WorkspaceError(
            f"{root}: no stage left a {RECORD_NAME} here; give the workspace of a run, such as smoke-out "
            "(make smoke-local writes it)"
        )
    if experiment_id is None and len(configs) > 1:
        raise WorkspaceError(
            f"{root}: holds {len(configs)} experiments; name one with --experiment-id: {sorted(configs)}"
        )
    if experiment_id is not None and experiment_id not in configs:
        raise WorkspaceError(f"{root}: no experiment {experiment_id!r}; there are {sorted(configs)}")
    return experiments.from_dict(configs[experiment_id or next(iter(configs))], root)


def _stage(url: str, name: str) -> dict[str, Any] | Missing:
    record = read_record(url)
    return Missing(f"no {RECORD_NAME} in {url}: {name} has not run") if record is None else record


def _json(url: str, maker: str) -> dict[str, Any] | Missing:
    try:
        return json.loads(read_bytes(url))
    except FileNotFoundError:
        return Missing(f"no {url}: {maker}")
    except ValueError as error:
        return Missing(f"{url}: not JSON ({error}); {maker}")


def _metrics(url: str) -> dict[str, Any] | Missing:
    maker = "python -m evaluation.evaluate writes it"
    metrics = _json(url, maker)
    if not isinstance(metrics, Missing) and metrics.get("format") != FORMAT:
        return Missing(f"{url}: format {metrics.get('format')}, this code reads {FORMAT}; {maker} anew")
    return metrics


def _step_seconds(url: str) -> dict[str, float]:
    summary = _json(url, "the smoke run writes it")
    return {} if isinstance(summary, Missing) else summary.get("seconds", {})


def _epochs(url: str) -> list[dict[str, Any]] | Missing:
    try:
        lines = read_bytes(url).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return Missing(f"no {url}: training/train.py writes it")
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            break  # a run that was killed may leave a last line that is cut off
    epochs = [r for r in records if r.get("event") == "epoch"]
    return epochs or Missing(f"{url}: no epoch has ended yet")


def _failures(root: str, experiment: Experiment) -> Iterator[dict[str, Any]]:
    for name in STAGES:
        quarantine = join(place(root, name, experiment), "quarantine")
        if committed_chunks(quarantine):
            table = read_table(quarantine)
            check_schema(FAILURES, table.schema, quarantine)
            yield from table.to_pylist()


def _table(url: str) -> list[dict[str, Any]] | Missing:
    try:
        table = read_table(url)
        check_schema(COMPLETENESS, table.schema, url)
    except (DatasetError, SchemaError) as error:
        return Missing(str(error))
    return table.to_pylist()


def _hashes(root: str, experiment: Experiment) -> dict[str, str]:
    datasets = {
        "stamps": place(root, "phase4c", experiment),
        **{s: join(place(root, "pack", experiment), f"split={s}") for s in ("train", "val", "test")},
        "scores": join(root, "scores", experiment.name),
    }
    return {name: content_hash(url) for name, url in datasets.items() if committed_chunks(url)}


def hash_faults(workspace: Workspace) -> list[str]:
    """Return what in the workspace does not belong together: a page of mixed runs must say so."""
    metrics, scoring, hashes = workspace.metrics, workspace.scoring, workspace.hashes
    faults = []
    known = {r["hash"] for r in workspace.stages.values() if not isinstance(r, Missing)}
    for name, record in workspace.stages.items():
        for source, found in ({} if isinstance(record, Missing) else record["inputs"]).items():
            if source in _OF_STAGES and found not in known:
                faults.append(f"{name} was made from {source} {found}, which no stage here has as its hash")
    checks: list[tuple[str, str, str]] = []
    if not isinstance(metrics, Missing):
        checks.append(("metrics.json is of the scores", metrics["scores_hash"], "scores"))
    if not isinstance(scoring, Missing):
        checks.append(("the scores are of the test shards", scoring["inputs"]["data"], "test"))
    if not isinstance(workspace.training, Missing):
        for split, facts in workspace.training["data"].items():
            checks.append((f"training read the {split} shards", facts["content_hash"], split))
    faults += _section_faults(workspace)
    for what, found, name in checks:
        if found != hashes.get(name, "absent"):
            faults.append(f"{what} {found}; those here are {hashes.get(name, 'absent')}")
    return faults


def _section_faults(workspace: Workspace) -> list[str]:
    """Return sections that were measured on something else than what is here; hashes may be given in full."""
    here = dict(workspace.hashes)
    if not isinstance(workspace.scoring, Missing):
        here["checkpoint"] = workspace.scoring["inputs"]["checkpoint"]
    return [
        f"section {name} is of {what} {found}; those here are {here[what]}"
        for name, section in workspace.sections.items()
        for what, found in section["made_from"].items()
        if what in here and not str(found).startswith(here[what])
    ]
