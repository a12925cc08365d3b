import numpy as np
import pytest
import torch

from darkhaloscope.sections import Training
from training.losses import binary_cross_entropy, focal, make_loss

LOGIT = torch.tensor([-30.0, -6.0, -0.5, 0.0, 0.5, 6.0, 30.0])


@pytest.mark.parametrize("label", [0.0, 0.3, 1.0])
def test_cross_entropy_is_that_of_torch(label):
    labels = torch.full_like(LOGIT, label)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(LOGIT, labels, reduction="none")
    torch.testing.assert_close(binary_cross_entropy(LOGIT, labels), expected)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.5)])
def test_focal_loss_is_its_formula(label, alpha, gamma):
    x = LOGIT.numpy().astype(np.longdouble)
    p = 1 / (1 + np.exp(-x if label else x))  # of the true class
    expected = -(alpha if label else 1 - alpha) * (1 - p) ** gamma * np.log(p)
    found = focal(LOGIT, torch.full_like(LOGIT, label), alpha, gamma)
    np.testing.assert_allclose(found.numpy(), expected.astype(np.float64), rtol=1e-5, atol=1e-12)


def test_focal_loss_with_gamma_0_is_the_weighted_cross_entropy():
    labels = (torch.arange(7) % 2).float()
    weights = torch.where(labels == 1, 0.25, 0.75)
    torch.testing.assert_close(focal(LOGIT, labels, 0.25, 0.0), weights * binary_cross_entropy(LOGIT, labels))


@pytest.mark.parametrize("kind", ["bce", "focal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logit", [6.0, 10.0, 20.0])
def test_a_negative_that_looks_like_a_lens_keeps_its_gradient_under_bf16(kind, dtype, logit):
    loss = make_loss(Training(loss=kind, focal_alpha=0.25, focal_gamma=2.0))
    x = torch.tensor([logit], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss(x, torch.zeros(1)).sum().backward()
    assert x.grad is not None
    assert x.grad.item() >= 0.5
    assert x.grad.item() <= 1.01


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_losses_of_half_precision_logits_are_computed_in_float32_row_by_row(kind):
    loss = make_loss(Training(loss=kind))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(LOGIT.bfloat16(), torch.ones(7).bfloat16())
    assert (found.dtype, found.shape) == (torch.float32, (7,))
    torch.testing.assert_close(found, loss(LOGIT.bfloat16().float(), torch.ones(7)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_smoothed_labels_are_those_of_soft_labels(kind):
    labels = (torch.arange(7) % 2).float()
    smooth = make_loss(Training(loss=kind, label_smoothing=0.1))(LOGIT, labels)
    torch.testing.assert_close(smooth, make_loss(Training(loss=kind))(LOGIT, labels * 0.9 + 0.05))
    x = torch.tensor([30.0], requires_grad=True)
    make_loss(Training(loss=kind, label_smoothing=0.1))(x, torch.ones(1)).sum().backward()
    assert x.grad is not None
    assert x.grad.item() > 0, "too sure is pulled back"


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_a_positive_counts_as_often_as_its_weight_says(kind):
    labels = (torch.arange(7) % 2).float()
    plain = make_loss(Training(loss=kind))(LOGIT, labels)
    weighted = make_loss(Training(loss=kind, positive_weight=3.0))(LOGIT, labels)
    torch.testing.assert_close(weighted / plain, 1 + 2 * labels)
