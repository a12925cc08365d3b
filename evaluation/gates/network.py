"""Gates about a network: is it the arc that it scores, and does it stay low on stamps that show nothing?"""

from __future__ import annotations

import numpy as np
import torch

from darkhaloscope.draws import digest
from darkhaloscope.stats.intervals import wilson
from evaluation.gates.changed import bright_stars, empty_sky
from evaluation.gates.data import normalisation_gates
from evaluation.gates.measure import Measured
from evaluation.gates.rows import Rows
from evaluation.gates.verdict import Gate, Verdict, auc_gate, block_auc
from training.batch import Batch
from training.models import Finder
from training.predict import predict

BLANKS = 64  # stamps of each kind that show nothing
PASSED = 0.05  # share of controls above the score that such stamps are held against
BLOB_BOUND = 0.25  # of the rise that an arc of the same flux makes
_RESAMPLES = 1_000


def network_gates(rows: Rows, found: Measured, model: Finder) -> list[Gate]:
    """Return the gates about the network, on the stamps of the split it was asked about."""
    gates = [_arc_removed(found), *_shuffled(found), *_order(found), _blob_is_host(found)]
    gates += _blanks(found, model)
    return gates + normalisation_gates(rows, found, model.preprocessing.norm_method)


def _of(found: Measured, variant: str, positive: bool) -> np.ndarray:
    """Return the logits of a variant in one class."""
    logit = found.logit[variant]
    return logit[(found.label == positive) & np.isfinite(logit)]


def _against(
    name: str, asks: str, one: np.ndarray, other: np.ndarray, note: str = "", judged: bool = True
) -> Gate:
    """Return the AUC of some logits against others. Nothing is fitted, so the error is that of independent rows."""
    label = np.repeat([True, False], [len(one), len(other)])
    logit = np.concatenate([one, other])
    area, error = (float(a[0]) for a in block_auc(logit[:, None], label[:, None], np.zeros(len(label))))
    n = {"positives": len(one), "controls": len(other)}
    return auc_gate(name, "model", asks, area, 0.5, error, n, note, judged)


def _arc_removed(found: Measured) -> Gate:
    asks = "Do positives score like controls once their arc is taken away?"
    return _against("arc removed", asks, _of(found, "arc removed", True), _of(found, "as it is", False))


def _shuffled(found: Measured) -> list[Gate]:
    shuffled, controls = _of(found, "shuffled", True), _of(found, "as it is", False)
    both = _of(found, "shuffled", False)
    note = "shuffled controls beside it: radial profile and colours are still there, shapes are not"
    return [
        _against("shuffled", "Do positives whose pixels are shuffled in azimuth score like controls?",
                 shuffled, controls),
        _against("shuffled, both classes", "And against controls shuffled alike?", shuffled, both, note, False),
        _against("with arc: the network", "How well does the network tell the classes?",
                 _of(found, "as it is", True), controls, "what the other figures compare with", False),
    ]  # fmt: skip


def _varied(found: Measured) -> dict[str, np.ndarray]:
    """Return the logits of all variants of the positives that have all of them."""
    there = found.label & np.isfinite(found.logit["ring"])
    return {variant: logit[there] for variant, logit in found.logit.items()}


def _order(found: Measured) -> list[Gate]:
    logit = _varied(found)
    asks = {
        ("as it is", "ring"): "Does the arc score above its light spread into a ring?",
        ("ring", "blob"): "Does that ring score above a point source of the same flux?",
    }
    names = ("arc above ring", "ring above blob")
    return [
        _share(name, question, logit[one] > logit[other])
        for name, ((one, other), question) in zip(names, asks.items(), strict=True)
    ]


def _share(name: str, asks: str, wins: np.ndarray) -> Gate:
    n, rule = {"positives": len(wins)}, "more than half; unresolved where the interval holds one half"
    if not len(wins):
        return Gate(name, "model", asks, "share", None, None, None, n, rule, "unresolved")
    low, high = (float(bound) for bound in wilson(wins.sum(), len(wins)))
    verdict: Verdict = "pass" if low > 0.5 else "fail" if high < 0.5 else "unresolved"
    return Gate(name, "model", asks, "share", float(wins.mean()), low, high, n, rule, verdict)


def _blob_is_host(found: Measured) -> Gate:
    """Judge how far a blob lifts the median logit, as a share of how far the arc does."""
    logit = _varied(found)
    arc, blob = (logit[v] - logit["arc removed"] for v in ("as it is", "blob"))
    asks = "Does a point source of the arc's flux score like the host alone?"
    rule = f"its rise at most {BLOB_BOUND:g} of the arc's; unresolved where the interval holds {BLOB_BOUND:g}"
    n, figure = {"positives": len(arc)}, "rise of the blob / of the arc"
    if len(arc) < 2 or np.median(arc) <= 0:
        note = "the network does not raise its score for arcs" if len(arc) > 1 else ""
        return Gate("blob like host", "model", asks, figure, None, None, None, n, rule, "unresolved", note)
    drawn = np.random.default_rng(0).integers(len(arc), size=(_RESAMPLES, len(arc)))
    rises = np.median(arc[drawn], axis=1)
    ratios = np.median(blob[drawn], axis=1)[rises > 0] / rises[rises > 0]
    low, high = (float(q) for q in np.quantile(ratios, (0.025, 0.975)))
    verdict: Verdict = "pass" if high <= BLOB_BOUND else "fail" if low > BLOB_BOUND else "unresolved"
    value = float(np.median(blob) / np.median(arc))
    return Gate("blob like host", "model", asks, figure, value, low, high, n, rule, verdict)


def _blanks(found: Measured, model: Finder) -> list[Gate]:
    """Return the gates on empty sky, zeros, a bright star and NaN, under the conditions of some of the stamps."""
    some = np.flatnonzero(np.isfinite(found.logit["as it is"]))[:BLANKS]
    sky, size = found.sky_sigma[some], model.preprocessing.size
    threshold = float(np.quantile(_of(found, "as it is", False), 1 - PASSED))
    rng = np.random.default_rng(0)
    stamps = {
        "empty sky": empty_sky(sky, size, rng),
        "zeros": np.zeros((len(some), sky.shape[1], size, size), np.float32),
        "bright star": bright_stars(sky, found.fwhm[some], size, rng),
    }
    gates = [_low(name, predict(model, _batch(images, found, some, model)), threshold)
             for name, images in stamps.items()]  # fmt: skip
    return [*gates, _nan(found, some[:1], model, threshold)]


def _low(name: str, logit: np.ndarray, threshold: float) -> Gate:
    above = logit > threshold
    low, high = (float(bound) for bound in wilson(above.sum(), len(above)))
    verdict: Verdict = "fail" if low > PASSED else "pass" if high <= 2 * PASSED else "unresolved"
    return Gate(
        name, "model", f"Does the network stay low on {name}?", "share above", float(above.mean()), low, high,
        {"stamps": len(logit)},
        f"at most {PASSED:.0%} above the logit {threshold:.2f} that {PASSED:.0%} of controls pass; unresolved where "
        f"the interval reaches beyond {2 * PASSED:.0%}",
        verdict, f"median logit {np.median(logit):.2f}",
    )  # fmt: skip


def _nan(found: Measured, some: np.ndarray, model: Finder, threshold: float) -> Gate:
    size = model.preprocessing.size
    broken = np.full((1, found.sky_sigma.shape[1], size, size), np.nan, np.float32)
    try:
        logit = float(predict(model, _batch(broken, found, some, model))[0])
        refused, note = False, f"it was given the logit {logit:.2f}"
    except FloatingPointError as error:
        refused, note = True, str(error).split(",")[0]
    verdict: Verdict = "pass" if refused or logit <= threshold else "fail"
    asks = "Is a stamp of NaN refused, or scored low?"
    return Gate("NaN", "model", asks, "refused", float(refused), None, None, {"stamps": 1}, "refused, or below the "
                f"logit {threshold:.2f}", verdict, note)  # fmt: skip


def _batch(stamps: np.ndarray, found: Measured, rows: np.ndarray, model: Finder) -> Batch:
    """Return stamps as a batch, with sky sigma and metadata of some measured rows."""
    needs_sky = any(c.startswith("sky_sigma") for c in model.preprocessing.columns)
    sky = torch.from_numpy(found.sky_sigma[rows]).float()
    ids = torch.tensor([list(bytes.fromhex(digest("gates", int(r)))) for r in rows], dtype=torch.uint8)
    return Batch(
        torch.from_numpy(stamps), torch.zeros(len(rows)), sky if needs_sky else sky[:, :0],
        torch.from_numpy(found.meta[rows]).float(), ids, torch.zeros(len(rows), 0),
    )  # fmt: skip
