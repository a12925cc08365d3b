"""Simple classifiers, cross-validated by host: how well can the classes be told from a few numbers, or by a tiny CNN?"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer
from torch import nn

FOLDS = 5
CNN_FOLDS = 3
CNN_EPOCHS = 8
_BATCH = 64


def additive_model() -> Pipeline:
    """Return a logistic regression on smooth curves of each feature's rank.

    Ranks, so that a heavy tail or a scale is no obstacle; curves, so that a difference in spread is seen as one in the
    mean is. A missing value is a feature of its own: a null that only one class has is a leak.
    """
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        QuantileTransformer(n_quantiles=100),
        FunctionTransformer(_curves),
        LogisticRegression(C=0.3, max_iter=300),
    )


def _curves(rank: np.ndarray) -> np.ndarray:
    """Return the first three Legendre polynomials of ranks 0 .. 1, (n, 3 features)."""
    x = 2 * rank - 1
    return np.concatenate([x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2], axis=1)


def held_out_scores(
    features: np.ndarray, label: np.ndarray, host: np.ndarray, folds: int = FOLDS
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of rows by a model that saw none of their host's rows, (n,), and each row's fold.

    All rows of a host are in one fold (GroupKFold): a paired positive and control are never on different sides, since
    without the arc one is the other's copy.
    """
    features = np.where(np.isfinite(features), features, np.nan)
    score, fold = np.zeros(len(label)), np.zeros(len(label), int)
    for number, (train, test) in enumerate(GroupKFold(folds).split(features, label, host)):
        model = additive_model().fit(features[train], label[train])
        score[test], fold[test] = model.decision_function(features[test]), number
    return score, fold


def cnn_scores(
    pixels: np.ndarray, label: np.ndarray, host: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """As `held_out_scores`, by a convolutional network of 5,000 parameters on normalised pixels (n, band, y, x)."""
    score, fold = np.zeros(len(label)), np.zeros(len(label), int)
    for number, (train, test) in enumerate(GroupKFold(CNN_FOLDS).split(pixels, label, host)):
        net = _fit_cnn(pixels[train], label[train], seed)
        score[test], fold[test] = _apply(net, pixels[test]), number
    return score, fold


def _fit_cnn(pixels: np.ndarray, label: np.ndarray, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(pixels.shape[1], 8, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 1),
        )  # fmt: skip
        order = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
        x, y = torch.from_numpy(pixels), torch.from_numpy(label.astype(np.float32))
        for _ in range(CNN_EPOCHS):
            for rows in torch.randperm(len(y), generator=order).split(_BATCH):
                loss = nn.functional.binary_cross_entropy_with_logits(net(x[rows].float()).squeeze(1), y[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return net.eval()


@torch.inference_mode()
def _apply(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    parts = [net(rows.float()).squeeze(1) for rows in torch.from_numpy(pixels).split(512)]
    return torch.cat(parts).double().numpy()
