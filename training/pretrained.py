"""Start from the weights of a local file, as far as they fit; what does not fit is listed, never hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from darkhaloscope.provenance import sha256_of
from training.checkpoint import CheckpointError, read_tensors
from training.models import Finder

_SHOWN = 8  # names of each kind in the summary; config.json has them all


def start_from(model: Finder, path: str | Path) -> dict[str, Any]:
    """Load what fits of a file's weights into `model`.

    Args:
        model: to be changed; its own last layer stays as it is where the file's is of another shape.
        path: safetensors, a state dict, or a checkpoint of this trainer. Names are those of a Finder, or of
            its backbone alone, as timm has them.

    Returns:
        `file`, `sha256`, `loaded` (a count), the names `other_shape`, `missing` and `extra`, and a `summary`.

    Raises:
        CheckpointError: no such file, one that is not tensors, or one of which nothing fits.
    """
    found = {_finder_name(name, model): value for name, value in _tensors(path).items()}
    own = model.state_dict()
    fits = {k: v for k, v in found.items() if k in own and own[k].shape == v.shape}
    other_shape = sorted(k for k in found if k in own and k not in fits)
    missing, extra = sorted(set(own) - set(found)), sorted(set(found) - set(own))
    if not any(k.startswith("backbone.") for k in fits):
        raise CheckpointError(
            f"{path}: no tensor of it fits {model.arch!r}: other shape {other_shape[:_SHOWN]}, unknown "
            f"{extra[:_SHOWN]}; the network has {sorted(own)[:_SHOWN]} ..."
        )
    model.load_state_dict({**own, **fits})
    parts = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (
            ("of another shape", other_shape),
            ("missing in it", missing),
            ("not used", extra),
        )
        if names
    ]
    return {
        "file": str(path),
        "sha256": sha256_of(Path(path)),
        "loaded": len(fits),
        "other_shape": other_shape,
        "missing": missing,
        "extra": extra,
        "summary": "; ".join([f"{len(fits)} of {len(own)} tensors loaded", *parts]),
    }


def _finder_name(name: str, model: Finder) -> str:
    """Return the Finder's name of a tensor that may have the backbone's."""
    return name if name.partition(".")[0] in dict(model.named_children()) else f"backbone.{name}"


def _tensors(path: str | Path) -> dict[str, torch.Tensor]:
    if Path(path).suffix == ".safetensors":
        try:
            return load_file(str(path))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: no such file of weights") from None
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
    content = read_tensors(path)
    for key in ("model", "state_dict"):  # a checkpoint of this trainer, or of others
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path}: expected a state dict: names and tensors; found {type(content).__name__}"
        )
    return content
