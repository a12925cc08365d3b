"""Simple classifiers, cross-validated by host: how well can the classes be told from a few numbers, or by a tiny CNN?

All rows of a host are in one fold (GroupKFold). A paired positive and control share their host, and without the arc one
is the other's copy but for the arc's photon noise: neither is ever scored by a model that saw the other.

The folds of a cross-validation train on each other's rows, so its AUC scatters 1.3 to 1.7 times as much as that of
independent rows, about less than 0.5. Its standard error is therefore measured, by fitting the same classifier to
labels that are exchanged at random within each split and fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, StandardScaler
from threadpoolctl import threadpool_limits
from torch import nn

from evaluation.gates.verdict import block_auc

FOLDS = 5
EXCHANGES = 200  # of the labels, for the standard error
CNN_FOLDS = 3
CNN_EPOCHS = 8
CNN_INFLATION = (
    1.5  # of the standard error, for CNN_FOLDS folds: 1.3 to 1.5 by simulation, for 1 to 30 features
)
_BATCH = 64
_PENALTY = 3.0  # of the ridge, in rows


@dataclass(frozen=True)
class Told:
    """How well held-out rows were told.

    Attributes:
        auc: within split and fold.
        null: what the same classifier reaches where there is nothing to learn.
        error: standard error of that.
        score: (n,) held-out scores.
    """

    auc: float
    null: float
    error: float
    score: np.ndarray


def told_apart(features: np.ndarray, label: np.ndarray, host: np.ndarray, split: np.ndarray) -> Told:
    """Tell the classes by an additive model: a linear discriminant (ridge) on smooth curves of each feature's rank.

    Ranks, so that a heavy tail or a scale is no obstacle; curves, so that a difference in spread is seen as one in the
    mean is. A missing value is a feature of its own: a null that only one class has is a leak.

    Args:
        features: (n, feature); NaN where there is none.
        label: (n,) bool.
        host: (n,) groups.
        split: (n,) numbers of the splits: rows are compared within theirs only.
    """
    curves = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        QuantileTransformer(n_quantiles=min(200, len(label)), random_state=0),
        FunctionTransformer(_legendre),
        StandardScaler(),
    )  # ranks know no label: they may be taken over all rows
    return told_by_line(
        curves.fit_transform(np.where(np.isfinite(features), features, np.nan)), label, host, split
    )


def told_by_line(x: np.ndarray, label: np.ndarray, host: np.ndarray, split: np.ndarray) -> Told:
    """As `told_apart`, by a linear discriminant (ridge) on standardised features without NaN."""
    folds = list(GroupKFold(FOLDS).split(x, label, host))
    blocks = _blocks(folds, split)
    labels = _exchanged(label, blocks)
    score = np.empty(labels.shape)
    with threadpool_limits(1, "blas"):  # the matrices are small: threads would wait for each other
        for train, test in folds:
            y = labels[train].astype(np.float64)
            score[test] = Ridge(_PENALTY).fit(x[train], y).predict(x[test])
    areas = block_auc(score, labels, blocks)[0]
    return Told(float(areas[0]), float(areas[1:].mean()), float(areas[1:].std(ddof=1)), score[:, 0])


def _legendre(rank: np.ndarray) -> np.ndarray:
    """Return the first three Legendre polynomials of ranks 0 .. 1, (n, 3 features)."""
    x = 2 * rank - 1
    return np.concatenate([x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2], axis=1)


def _blocks(folds: list[tuple[np.ndarray, np.ndarray]], split: np.ndarray) -> np.ndarray:
    """Return a number for each split and fold, (n,)."""
    fold = np.empty(len(split), int)
    for number, (_, test) in enumerate(folds):
        fold[test] = number
    return split * len(folds) + fold


def _exchanged(label: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Return the labels, and beside them the labels exchanged at random within blocks, (n, 1 + EXCHANGES) bool."""
    rng = np.random.default_rng(0)
    labels = np.repeat(label[:, None], 1 + EXCHANGES, axis=1)
    for block in np.unique(blocks):
        rows = np.flatnonzero(blocks == block)
        labels[rows, 1:] = rng.permuted(labels[rows, 1:], axis=0)
    return labels


def told_by_cnn(pixels: np.ndarray, label: np.ndarray, host: np.ndarray, split: np.ndarray) -> Told:
    """As `told_apart`, by a convolutional network of 5,000 parameters on pixels (n, band, y, x).

    Labels are not exchanged, which would take hours: the error is that of independent rows times `CNN_INFLATION`.
    """
    folds = list(GroupKFold(CNN_FOLDS).split(pixels, label, host))
    score = np.zeros(len(label))
    for train, test in folds:
        score[test] = _apply(_fit_cnn(pixels[train], label[train]), pixels[test])
    area, error = (float(a[0]) for a in block_auc(score[:, None], label[:, None], _blocks(folds, split)))
    return Told(area, 0.5, CNN_INFLATION * error, score)


def _fit_cnn(pixels: np.ndarray, label: np.ndarray) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(pixels.shape[1], 8, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 1),
        )  # fmt: skip
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        x, y = torch.from_numpy(pixels), torch.from_numpy(label.astype(np.float32))
        for _ in range(CNN_EPOCHS):
            for rows in torch.randperm(len(y)).split(_BATCH):
                loss = nn.functional.binary_cross_entropy_with_logits(
                    net(x[rows].float()).squeeze(1), y[rows]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return net.eval()


@torch.inference_mode()
def _apply(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    parts = [net(rows.float()).squeeze(1) for rows in torch.from_numpy(pixels).split(512)]
    return torch.cat(parts).double().numpy()
