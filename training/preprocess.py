"""Preprocessing as data: what turns stamps in nanomaggies into a network's input, and travels with it.

`Preprocessing` is a frozen record that a checkpoint carries; `normalise` is the one function that applies it,
in training, validation, scoring and export alike. A difference between training and inference has no place
to live.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch

from darkhaloscope.errors import Explained
from darkhaloscope.records import BANDS, STAMP_SIZE, allowed_metadata
from darkhaloscope.stats.robust import MAD_TO_SIGMA

VERSION = 1  # raise it when `normalise` changes meaning: old checkpoints are then refused, not misread

NormMethod = Literal["full", "outer", "sky_asinh"]


class PreprocessingError(Explained, ValueError):
    """Preprocessing that is unknown, or that does not fit the data; the message names the difference."""


@dataclass(frozen=True)
class Preprocessing:
    """Everything between a stamp in nanomaggies and the network's input.

    Attributes:
        norm_method: see `normalise`.
        clip: bound on the absolute normalised value; 0: none.
        bands: bands of the stamps, in order.
        size: pixels along a side.
        annulus: inner and outer radius of "outer", in units of half the side.
        sky_reference: typical sky sigma per band, nmgy/pixel: the fixed ratios between bands of "sky_asinh"
            (those of the DECaLS DR9 field 0591m305).
        softening: sky sigmas at which "sky_asinh" turns from linear to logarithmic.
        meta_cols: columns given to the network beside the pixels.
        meta_mean: mean of each over the training rows.
        meta_std: standard deviation of each over the training rows.
        version: of the meaning of these fields.
    """

    norm_method: NormMethod = "sky_asinh"
    clip: float = 0.0
    bands: str = BANDS
    size: int = STAMP_SIZE
    annulus: tuple[float, float] = (0.625, 1.0)
    sky_reference: tuple[float, ...] = (0.0020, 0.0025, 0.0089)
    softening: float = 1.0
    meta_cols: tuple[str, ...] = ()
    meta_mean: tuple[float, ...] = ()
    meta_std: tuple[float, ...] = ()
    version: int = VERSION

    @cached_property
    def annulus_pixels(self) -> np.ndarray:
        """Indices of the annulus in a flattened stamp, (pixel,) int64.

        A constant of compiled and exported graphs: gathering by index has a fixed shape, a boolean mask has not.
        """
        axis = np.arange(self.size) - (self.size - 1) / 2
        radius = np.hypot(axis[:, None], axis[None, :]) / (self.size / 2)
        inner, outer = self.annulus
        return np.flatnonzero((radius >= inner) & (radius < outer))

    @property
    def columns(self) -> list[str]:
        """Columns of the stamps table that it needs beside `stamp`."""
        sky = [f"sky_sigma_{b}" for b in self.bands] if self.norm_method == "sky_asinh" else []
        return [*sky, *self.meta_cols]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, tuples as lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def from_dict(values: Mapping[str, Any], where: str) -> Preprocessing:
    """Return the preprocessing that a checkpoint carries.

    Raises:
        PreprocessingError: another version, an unknown or missing field, an unknown method.
    """
    known = {f.name for f in dataclasses.fields(Preprocessing)}
    if values.get("version") != VERSION:
        raise PreprocessingError(
            f"{where}: preprocessing of version {values.get('version')}, this code knows version {VERSION}; "
            "use the code that wrote it, or train again"
        )
    if set(values) != known:
        raise PreprocessingError(
            f"{where}: preprocessing has the fields {sorted(values)}; expected {sorted(known)}"
        )
    if values["norm_method"] not in get_args(NormMethod):
        raise PreprocessingError(
            f"{where}: norm_method {values['norm_method']!r}; expected one of {list(get_args(NormMethod))}"
        )
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Preprocessing(**plain)


def check_metadata_columns(names: tuple[str, ...]) -> None:
    """Refuse metadata columns that are not on the allow-list.

    Raises:
        PreprocessingError: an unknown column, or one that knows the injection; the message lists what is
            allowed.
    """
    allowed = allowed_metadata()
    if refused := [n for n in names if n not in allowed]:
        raise PreprocessingError(
            f"meta_cols {refused} are unknown or know the label (a network could read off the answer); "
            f"allowed: {', '.join(allowed)}"
        )
    if len(set(names)) != len(names):
        raise PreprocessingError(f"meta_cols {list(names)}: a column is named twice")


def check_stamps(preprocessing: Preprocessing, shape: tuple[int, ...], bands: str, where: str) -> None:
    """Refuse stamps of another shape or other bands than the network was trained on.

    Raises:
        PreprocessingError: names the file and both layouts.
    """
    expected = (len(preprocessing.bands), preprocessing.size, preprocessing.size)
    if tuple(shape) != expected or bands != preprocessing.bands:
        raise PreprocessingError(
            f"{where}: stamps are {bands} {tuple(shape)}; the network takes {preprocessing.bands} {expected}"
        )


def normalise(
    preprocessing: Preprocessing,
    stamps: torch.Tensor,
    sky_sigma: torch.Tensor | None = None,
    annulus: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the network's input.

    - "full": per band, minus the median of the whole stamp, over its scaled median absolute deviation. The
      seed's generations 1 and 2; the arc itself moves both numbers, so they tell the classes apart.
    - "outer": the same, measured in an annulus around the host that the arc does not reach.
    - "sky_asinh": asinh(f / (softening * k * sky_reference)), k the stamp's sky sigma over the reference, one
      number for all bands (the geometric mean): a flux ratio between bands means the same in every stamp,
      whatever the depth of each band.

    Args:
        preprocessing: what to do.
        stamps: (n, band, y, x) nmgy/pixel, any floating type.
        sky_sigma: (n, band) nmgy/pixel; needed by "sky_asinh".
        annulus: `preprocessing.annulus_pixels` on the stamps' device, where a network keeps them there: to copy
            them would make the host wait for a GPU at every batch. None: they are copied.

    Returns:
        (n, band, y, x) float32.

    Raises:
        PreprocessingError: "sky_asinh" without sky_sigma.
    """
    stamps = stamps.float()
    centre, scale = reference_level(preprocessing, stamps, sky_sigma, annulus)
    scaled = (stamps - centre) / scale
    if preprocessing.norm_method == "sky_asinh":
        scaled = torch.asinh(scaled)
    return scaled.clamp(-preprocessing.clip, preprocessing.clip) if preprocessing.clip > 0 else scaled


def reference_level(
    preprocessing: Preprocessing,
    stamps: torch.Tensor,
    sky_sigma: torch.Tensor | None = None,
    annulus: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `normalise` subtracts and divides by, each (n, band, 1, 1) nmgy/pixel.

    Arguments and errors as `normalise`.
    """
    if preprocessing.norm_method == "sky_asinh":
        if sky_sigma is None:
            raise PreprocessingError(
                "norm_method sky_asinh needs the columns sky_sigma_*, which were not given"
            )
        scale = _sky_scale(preprocessing, sky_sigma)
        return torch.zeros_like(scale), scale
    centre, spread = _median_mad(_reference_pixels(preprocessing, stamps.float(), annulus))
    # A stamp of equal pixels has no spread: leave it at 0 rather than divide by it.
    return centre, torch.where(spread > 0, MAD_TO_SIGMA * spread, torch.ones_like(spread))


def _sky_scale(preprocessing: Preprocessing, sky_sigma: torch.Tensor) -> torch.Tensor:
    """Return the flux at which the stretch turns, (n, band, 1, 1)."""
    # Band by band, with plain numbers: a tensor of constants would be copied to the device at every batch.
    reference = preprocessing.sky_reference
    over = [torch.log(sky_sigma[:, i].float() / level) for i, level in enumerate(reference)]
    depth = torch.exp(torch.stack(over, dim=1).mean(dim=1))
    return torch.stack([preprocessing.softening * depth * level for level in reference], 1)[:, :, None, None]


def _reference_pixels(
    preprocessing: Preprocessing, stamps: torch.Tensor, annulus: torch.Tensor | None
) -> torch.Tensor:
    """Return the pixels that centre and spread are measured on, (n, band, pixel)."""
    if preprocessing.norm_method == "full":
        return stamps.flatten(2)
    if annulus is None:
        annulus = torch.tensor(preprocessing.annulus_pixels, device=stamps.device)
    return stamps.flatten(2).index_select(2, annulus)


def _median_mad(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return median and median absolute deviation along the last axis, each (n, band, 1, 1).

    The lower median of an even number of values, as torch takes it.
    """
    median = pixels.median(dim=2, keepdim=True).values
    spread = (pixels - median).abs().median(dim=2, keepdim=True).values
    return median[..., None], spread[..., None]


def standardise_metadata(preprocessing: Preprocessing, meta: torch.Tensor) -> torch.Tensor:
    """Return metadata columns over the training rows' mean and standard deviation, (n, column) float32."""
    levels = zip(preprocessing.meta_mean, preprocessing.meta_std, strict=True)
    return torch.stack([(meta[:, i].float() - mean) / std for i, (mean, std) in enumerate(levels)], dim=1)
