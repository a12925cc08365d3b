"""Thresholds of false-positive rates, from the `metrics.json` of the very networks that scored what they are for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from darkhaloscope.errors import Explained
from darkhaloscope.storage import read_bytes


class ThresholdsError(Explained, ValueError):
    """A `metrics.json` whose thresholds cannot be used; the message says why."""


def thresholds_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return FPR name -> logit from which a stamp counts as found, those that `metrics.json` could give."""
    return {
        name.removeprefix("tpr@"): float(f["threshold"])
        for name, f in metrics["figures"].items()
        if name.startswith("tpr@fpr") and f.get("threshold") is not None
    }


def read_metrics(url: str, scored_with: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `metrics.json` of `evaluation.evaluate`.

    Args:
        url: of the file.
        scored_with: what it has to be of, such as {"checkpoint": HASH, "d4": True}.

    Raises:
        ThresholdsError: no such file, or of other networks or another averaging.
    """
    try:
        metrics = json.loads(read_bytes(url))
        theirs = metrics["scored_with"]
        found = {k: (theirs.get(k), own) for k, own in scored_with.items() if theirs.get(k) != own}
        thresholds_of(metrics)
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ThresholdsError(f"{url}: not a metrics.json of evaluation.evaluate: {error!r}") from error
    if found:
        raise ThresholdsError(
            f"{url}: its thresholds and what they are for differ in {found}; score and evaluate with the same "
            "checkpoint, the same way"
        )
    return metrics
