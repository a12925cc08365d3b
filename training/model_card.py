"""The model card: what a finder is, what it was trained on and how it did, from the run's own files alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.runlog import read_log

_USE = """\
## Use

```python
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("finder.onnx")
logits = session.run(None, {inputs})[0]  # larger is more lens-like
```

`stamps` are (n, {bands}, {size}, {size}) float32 in nanomaggies per pixel of 0.262 arcsec, bands {names} in this order,
with no normalisation: it is in the graph{further}. A logit ranks; it is a calibrated probability only for the
proportion of lenses of its training rows.
"""


def write_card(
    content: Mapping[str, Any], facts: Mapping[str, Any], run: Path, metrics: Path | None = None
) -> str:
    """Return the card as Markdown.

    Args:
        content: the checkpoint, as `checkpoint.load` returns it.
        facts: of the export: `checkpoint`, `sha256`, `onnx_difference`, `files`.
        run: folder of the run, with config.json and log.jsonl; what is absent is said to be.
        metrics: `metrics.json` of a test split, where there is one.
    """
    config, training = content["config"], content["config"]["training"]
    parts = [
        f"# {config['name']}: {training['arch']}",
        config["description"],
        _use(content["preprocessing"]),
        "## Data",
        *(_data(split, rows) for split, rows in content["data"].items()),
        "## Figures",
        _validation(content, run),
        _test(metrics),
        "## Settings",
        _table(("setting", "value"), sorted(training.items())),
        "## Files",
        _run_facts(run),
        f"Exported from `{facts['checkpoint']}` (sha256 `{facts['sha256']}`); logits of `finder.onnx` differ from it "
        f"by at most {facts['onnx_difference']:.2g}.",
        _table(("file", "sha256"), facts["files"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _use(how: Mapping[str, Any]) -> str:
    further, given = "", ['"stamps": stamps']
    if how["norm_method"] == "sky_asinh":
        given.append('"sky_sigma": sky_sigma')
        further += ". `sky_sigma` is (n, bands) float32, 1/sqrt(median inverse variance) of the stamp"
    if how["meta_cols"]:
        given.append('"meta": meta')
        further += (
            f". `meta` is (n, {len(how['meta_cols'])}) float32, raw values of {', '.join(how['meta_cols'])}"
        )
    return _USE.format(
        inputs="{" + ", ".join(given) + "}", bands=len(how["bands"]), size=how["size"],
        names=", ".join(how["bands"]), further=further,
    )  # fmt: skip


def _data(split: str, facts: Mapping[str, Any]) -> str:
    return (
        f"{split}: {facts['positives']:,} positives and {facts['negatives']:,} negatives where "
        f"{facts['selection']}, of {facts['rows_in_dataset']:,} rows (content hash `{facts['content_hash']}`)."
    )


def _validation(content: Mapping[str, Any], run: Path) -> str:
    figures = content["metrics"]
    if not figures:
        return "Validation: this checkpoint was written within an epoch; it has no figures."
    epochs = [r for r in read_log(run / "log.jsonl") if r["event"] == "epoch"]
    of = f" of {len(epochs)}" if epochs else ""
    rows = [
        (name, f"{figures[name]:.4f}", f"{figures[name + '_low']:.4f} to {figures[name + '_high']:.4f}",
         "unresolved" if name in figures["unresolved"] else "")
        for name in figures if f"{name}_low" in figures
    ]  # fmt: skip
    sure = f"{figures['binary_score_frac']:.3f} (calibrated: {figures['binary_score_frac_calibrated']:.3f})"
    return (
        f"Validation after epoch {figures['epoch'] + 1}{of}, {figures['n_positives']:,} positives and "
        f"{figures['n_negatives']:,} negatives; it was selected on these rows. binary_score_frac {sure}.\n\n"
        + _table(("figure", "value", "95 %", ""), rows)
    )


def _test(metrics: Path | None) -> str:
    if metrics is None:
        return "Test: no figures were given (`--metrics`)."
    found = json.loads(metrics.read_text())
    rows = [
        (
            name,
            f"{f['value']:.4f}",
            f"{f['low']:.4f} to {f['high']:.4f}",
            "" if f["resolved"] else "unresolved",
        )
        for name, f in found["figures"].items()
    ]
    n = found["n"]
    return (
        f"Test, scores `{found['scores_hash']}` of checkpoint `{found['scored_with'].get('checkpoint')}`: "
        f"{n['positives']:,} positives and {n['negatives']:,} negatives in {n['sky_cells']} sky cells.\n\n"
        + _table(("figure", "value", "95 %", ""), rows)
    )


def _run_facts(run: Path) -> str:
    path = run / "config.json"
    if not path.exists():
        return f"No `{path.name}` lies beside the checkpoint: parameters, versions and device are not known."
    facts = json.loads(path.read_text())
    return (
        f"{facts['parameters']:,} parameters, {facts['flops_per_stamp'] / 1e9:.2f} GFLOP a stamp; trained by version "
        f"{facts['code_version']} with torch {facts['torch']} on {facts['ranks']} x {facts['device']}; config "
        f"`{facts['digest']}`."
    )


def _table(header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
