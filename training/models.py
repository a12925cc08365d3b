"""The networks, and the finder: one network together with its preprocessing.

`Finder` takes stamps in nanomaggies and gives logits. Normalisation is inside, so that training, scoring and
export cannot differ in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.preprocess import Preprocessing, normalise, standardise_metadata
from training.timm_import import import_timm, import_timm_utils


class Finder(nn.Module):
    """Stamps in nanomaggies (and metadata columns) to logits; larger is more lens-like."""

    def __init__(self, arch: str, preprocessing: Preprocessing, dropout: float = 0.0) -> None:
        """Build the network of the registry's name `arch` with fresh weights.

        Raises:
            KeyError: no such network; the message lists those there are.
        """
        super().__init__()
        if arch not in ARCHITECTURES:
            raise KeyError(f"no architecture {arch!r}; there are {', '.join(ARCHITECTURES)}")
        self.arch, self.preprocessing = arch, preprocessing
        backbone, features = ARCHITECTURES[arch](len(preprocessing.bands))
        # Channels last: convolutions run about 1.5 times as fast.
        self.backbone = backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        columns = len(preprocessing.meta_cols)
        self.metadata = nn.Sequential(nn.Linear(columns, 32), nn.GELU()) if columns else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features + (32 if columns else 0), 1)
        annulus = preprocessing.annulus_pixels if preprocessing.norm_method == "outer" else []
        self.register_buffer("annulus", torch.tensor(annulus, dtype=torch.int64), persistent=False)

    def forward(
        self, stamps: torch.Tensor, sky_sigma: torch.Tensor | None = None, meta: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits, (n,) float32.

        Args:
            stamps: (n, band, y, x) nmgy/pixel, any floating type.
            sky_sigma: (n, band) nmgy/pixel, where the preprocessing needs it.
            meta: (n, column) raw values of `preprocessing.meta_cols`, where it has any.
        """
        features = self.features(stamps, sky_sigma, meta)
        # Half precision ties logits, and ties destroy the ranking: the last layer runs in float32.
        with torch.autocast(stamps.device.type, enabled=False):
            return self.head(self.dropout(features)).squeeze(1)

    def features(
        self, stamps: torch.Tensor, sky_sigma: torch.Tensor | None = None, meta: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return what the last layer sees, (n, feature) float32. Arguments as `forward`."""
        with torch.autocast(stamps.device.type, enabled=False):
            pixels = normalise(self.preprocessing, stamps, sky_sigma, self.annulus)
        features = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        if self.metadata is not None:
            if meta is None:
                raise ValueError(f"the network takes the columns {self.preprocessing.meta_cols}; none given")
            features = torch.cat(
                [features, self.metadata(standardise_metadata(self.preprocessing, meta))], dim=1
            )
        return features.float()


def _stock(name: str, channels: int) -> tuple[nn.Module, int]:
    """Return a network as timm has it."""
    model = import_timm().create_model(name, pretrained=False, in_chans=channels, num_classes=0)
    return model, model.num_features


def _resnet18(channels: int) -> tuple[nn.Module, int]:
    """ResNet18 (He et al. 2016) with generation 1's stem: 3x3, stride 1, no max-pool.

    The stock stem would leave 16x16 pixels of 1.05" at the first block, as wide as the rings.
    """
    model, features = _stock("resnet18", channels)
    model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model, features


def _convnext_tiny(channels: int) -> tuple[nn.Module, int]:
    """ConvNeXt-Tiny (Liu et al. 2022), stock: a 4x4 stem of stride 4, so that its first pixel is 1.05" wide."""
    return _stock("convnext_tiny", channels)


def _convnext_tiny_stride2(channels: int) -> tuple[nn.Module, int]:
    """ConvNeXt-Tiny with a 2x2 stem of stride 2: four times the work, and a first pixel of 0.52".

    timm's own patch_size = 2 halves the picture again before the first block, and so works on 1.05" all the same.
    """
    model, features = _stock("convnext_tiny", channels)
    stem = nn.Conv2d(channels, model.stem[0].out_channels, kernel_size=2, stride=2)
    nn.init.trunc_normal_(stem.weight, std=0.02)
    nn.init.zeros_(stem.bias)
    model.stem[0] = stem
    return model, features


def _efficientnetv2_s(channels: int) -> tuple[nn.Module, int]:
    """EfficientNetV2-S (Tan & Le 2021), stock: a 3x3 stem of stride 2."""
    return _stock("efficientnetv2_s", channels)


class _ShieldedBlock(nn.Module):
    """Residual block whose 3x3 convolution works on few channels, behind 1x1 "shields"."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 2
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _small_resnet(channels: int) -> tuple[nn.Module, int]:
    """A small residual network of 195,000 parameters.

    In the spirit of the "shielded" network of searches of this imaging (Huang et al. 2021, ApJ 909, 27): 1x1
    convolutions keep the 3x3 ones narrow. Its layers are our own.
    """
    widths, layers, previous = (32, 60, 120), [], 32
    for width in widths:
        layers += [_ShieldedBlock(previous, width, 2), _ShieldedBlock(width, width, 1)]
        layers.append(_ShieldedBlock(width, width, 1))
        previous = width
    stem = [nn.Conv2d(channels, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, *layers, *pool), previous


class Average:
    """Running mean of a finder's weights and of its norms' statistics.

    Its decay rises to `decay` with the steps, so that a short run is not a mean over its random start.
    """

    def __init__(self, model: Finder, decay: float) -> None:
        self._ema = import_timm_utils().ModelEmaV3(model, decay, use_warmup=True)
        self.module: Finder = self._ema.module

    def update(self, model: Finder, step: int) -> None:
        """Take in the weights as they are after optimiser step number `step`."""
        self._ema.update(model, step)


ARCHITECTURES: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "resnet18": _resnet18,
    "convnext_tiny": _convnext_tiny,
    "convnext_tiny_stride2": _convnext_tiny_stride2,
    "efficientnetv2_s": _efficientnetv2_s,
    "small_resnet": _small_resnet,
}
"""Name -> function of the number of bands giving (network without its last layer, number of features)."""


@dataclass(frozen=True)
class Size:
    """What a network costs: parameters, and floating-point operations of one stamp's forward pass."""

    parameters: int
    flops: int

    def __str__(self) -> str:
        return f"{self.parameters:,} parameters, {self.flops / 1e9:.2f} GFLOP a stamp"


def size(model: Finder) -> Size:
    """Count parameters, and floating-point operations (2 per multiply-add) by running one empty stamp."""
    preprocessing, device = model.preprocessing, next(model.parameters()).device
    stamp = torch.zeros(1, len(preprocessing.bands), preprocessing.size, preprocessing.size, device=device)
    sky = torch.ones(1, len(preprocessing.bands), device=device)
    meta = torch.zeros(1, len(preprocessing.meta_cols), device=device)
    training = model.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(stamp, sky, meta)
    model.train(training)
    return Size(sum(p.numel() for p in model.parameters()), counter.get_total_flops())
