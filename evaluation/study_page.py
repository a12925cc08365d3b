"""What a study found, computed from its runs' files, and the page that says it. Nothing on it is typed by hand.

The difference of a variant from the base is that of the means over seeds. Its variance has two parts: the scatter of
seeds, pooled over all variants (few seeds each), and the scatter of the common test set, from resampled sky cells:
the same resamples for every run, so that what all runs share cancels. The interval is Student's, at 95 % over all
comparisons together (Bonferroni); where it holds 0 the difference is within noise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from darkhaloscope.stage import code_version
from darkhaloscope.stats.intervals import CONFIDENCE
from evaluation.bootstrap import resample_cells
from evaluation.scores import read_scores
from training.operating_points import FPR_TARGETS, MIN_EVENTS, fpr_name
from training.roc import Roc, auroc

RESAMPLES = 400


def resampled(scores: Path, figures: list[str]) -> np.ndarray:
    """Return the figures of one run's test scores on resampled sky cells, (resample, figure)."""
    found = read_scores(str(scores))
    rates = {fpr_name(fpr): fpr for fpr in FPR_TARGETS}

    def figure(roc: Roc, name: str) -> float:
        if name == "auroc":
            return auroc(roc)
        return float(roc.true_positives[roc.at_fpr(rates[name])] / roc.n_positives)

    def all_figures(roc: Roc) -> np.ndarray:
        return np.array([figure(roc, n) for n in figures])

    return resample_cells(found.logit, found.label, found.columns["sky_cell"], all_figures, RESAMPLES).values


def statistics(folders: dict[str, list[Path]], plan: dict[str, Any]) -> dict[str, Any]:
    """Return the study's figures.

    Args:
        folders: variant -> its runs, each with result.json and scores.
        plan: the study's plan.

    Returns:
        JSON-ready: per variant the results, and per figure mean, seed scatter, difference from the base and interval.
    """
    names = plan["figures"]
    results = {v: [json.loads((f / "result.json").read_text()) for f in some] for v, some in folders.items()}
    values = {v: np.array([[r["figures"][n] for n in names] for r in some]) for v, some in results.items()}
    drawn = {
        v: np.mean([resampled(f / "scores", names) for f in some], axis=0) for v, some in folders.items()
    }
    degrees = sum(len(x) - 1 for x in values.values())
    pooled = sum(((x - x.mean(axis=0)) ** 2).sum(axis=0) for x in values.values()) / max(degrees, 1)
    others = [v for v in values if v != plan["base"]]
    level = 1 - (1 - CONFIDENCE) / 2 / max(len(others), 1)
    width = float(student.ppf(level, degrees)) if degrees else float("inf")
    found: dict[str, Any] = {}
    for v, x in values.items():
        found[v] = {"runs": results[v], "figures": {}}
        for i, name in enumerate(names):
            entry = {"mean": float(x[:, i].mean()), "seeds": x[:, i].tolist()}
            if v in others and plan["base"] in values:
                base = values[plan["base"]]
                seeds = pooled[i] * (1 / len(x) + 1 / len(base))
                test = np.var(drawn[v][:, i] - drawn[plan["base"]][:, i], ddof=1)
                entry |= _difference(x[:, i].mean() - base[:, i].mean(), width * np.sqrt(seeds + test))
            found[v]["figures"][name] = entry
    first = next(iter(results.values()))[0]
    return {
        "code_version": code_version(), "device": first["device"], "variants": found,
        "seed_scatter": dict(zip(names, np.sqrt(pooled).tolist(), strict=True)), "degrees_of_freedom": degrees,
        "comparisons": len(others), "unresolved": sorted({n for s in results.values() for r in s
                                                          for n in r["figures"]["unresolved"] if n in names}),
        "n_positives": first["figures"]["n_positives"], "n_negatives": first["figures"]["n_negatives"],
    }  # fmt: skip


def _difference(difference: float, half: float) -> dict[str, Any]:
    """Return a difference with its interval, which has no bounds where seeds were too few for any."""
    known = bool(np.isfinite(half))
    low, high = (float(difference + side * half) if known else None for side in (-1, 1))
    return {
        "difference": float(difference), "low": low, "high": high, "verdict": verdict(difference, half)
    }  # fmt: skip


def verdict(difference: float, half: float) -> str:
    """Return better, worse or within noise, by whether the interval holds 0."""
    if abs(difference) <= half or not np.isfinite(half):
        return "within noise"
    return "better" if difference > 0 else "worse"


def describe(found: dict[str, Any], plan: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Study: one thing at a time from generation 2",
        "",
        _runs(found, plan),
        "",
        _test_set(found),
        "",
    ]
    if found["unresolved"]:
        lines += [
            f"**Unresolved** for want of negatives (fewer than {MIN_EVENTS} false positives carry them): "
            f"{', '.join(found['unresolved'])}. Of the rates that a search runs at, those, this run ranks nothing.",
            "",
        ]
    lines += [_comparison(found, plan), "", *_figures_table(found, plan), "", "\\* unresolved", ""]
    lines += ["## What was asked, what the seed claimed, what holds", "", *_claims_table(found, plan)]
    if missing := [v["name"] for v in plan["variant"] if v["name"] not in found["variants"]]:
        lines += ["", f"Not run: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _runs(found: dict[str, Any], plan: dict[str, Any]) -> str:
    seconds = [r["train_seconds"] + r["score_seconds"] for v in found["variants"].values() for r in v["runs"]]
    first = found["variants"][plan["base"]]["runs"][0]
    hosts = ", ".join(f"{n:,} {s}" for s, n in found["hosts"].items())
    return (
        f"Written by `python -m evaluation.study --size {found['size']}` from its runs' files (code version "
        f"{found['code_version']}); what is compared stands in `evaluation/study.toml`. Device: {found['device']}. "
        f"{len(seconds)} runs of {min(seconds):.0f} to {max(seconds):.0f} s, {sum(seconds) / 60:.0f} minutes in all "
        f"(shards not counted); {first['arch']}, {first['epochs']} epochs; simulated hosts: {hosts}."
    )


def _test_set(found: dict[str, Any]) -> str:
    return (
        f"One test set for all: {found['n_positives']:,} lenses and {found['n_negatives']:,} others, with the "
        "simulated sky's own PSF, galaxies as sources, and peculiar galaxies among the others."
    )


def _comparison(found: dict[str, Any], plan: dict[str, Any]) -> str:
    main = plan["main_figure"]
    return (
        f"Differences are from {plan['base']}, with the interval that holds for all {found['comparisons']} comparisons "
        f"together at {CONFIDENCE:.0%}: scatter of seeds ({found['degrees_of_freedom']} degrees of freedom, "
        f'{found["seed_scatter"][main]:.4f} in {main}) and of the test set. "Within noise": the interval holds 0.'
    )


def _figures_table(found: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    names, main = plan["figures"], plan["main_figure"]
    rows = [("variant", *names, f"{main} minus {plan['base']}'s", "verdict")]
    for variant, one in found["variants"].items():
        figures = one["figures"]
        means = (f"{figures[n]['mean']:.3f}" + "*" * (n in found["unresolved"]) for n in names)
        rows.append((variant, *means, interval(figures[main]), figures[main].get("verdict", "")))
    return _markdown(rows)


def _claims_table(found: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    asked = {v["name"]: (v["question"], v["claim"]) for v in plan["variant"]}
    rows = [(n, *asked[n], holds(one, found["unresolved"])) for n, one in found["variants"].items()]
    return _markdown([("variant", "question", "the seed document's claim", "here"), *rows])


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose first row is its head."""
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return [head, "|---" * len(rows[0]) + "|", *rest]


def interval(figure: dict[str, Any]) -> str:
    """Return a difference with its interval as text."""
    if "difference" not in figure:
        return ""
    if figure["low"] is None:
        return f"{figure['difference']:+.4f} [one seed: no interval]"
    return f"{figure['difference']:+.4f} [{figure['low']:+.4f}, {figure['high']:+.4f}]"


def holds(one: dict[str, Any], unresolved: list[str]) -> str:
    """Return, figure by figure, what the study says of a variant: nothing of what too few negatives carry."""
    told = [
        f"{n}: {'unresolved' if n in unresolved else f['verdict']}"
        for n, f in one["figures"].items()
        if "verdict" in f
    ]
    return "; ".join(told) or f"the base, {len(one['runs'])} seeds"
