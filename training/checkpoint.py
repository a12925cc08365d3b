"""Checkpoints: one file holds all that scoring needs, and what a resumed run needs to go on exactly.

A checkpoint is a dict of tensors and plain values, so that it loads with `weights_only=True`:
opening one runs no code from it.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch

from darkhaloscope import experiment as experiments
from darkhaloscope.config import ConfigError
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment
from darkhaloscope.storage import StorageError, atomic_output
from training import preprocess
from training.models import ARCHITECTURES, Finder
from training.preprocess import Preprocessing, PreprocessingError

FORMAT = 2
KEYS = (
    "format",  # int: layout of this dict
    "model",  # state dict of the Finder that is scored: the running mean of the weights where there is one
    "preprocessing",  # Preprocessing.as_dict()
    "config",  # Experiment.as_dict(): the effective config
    "data",  # dict: root, content hash and counts of what it was trained on
    "progress",  # dict: epoch, position in it, step, best metric so far, ...
    "metrics",  # dict: figures of the validation pass it was saved after; empty in mid-epoch
    "training_state",  # dict: weights, optimizer, scaler, random states; what resuming needs, scoring does not
)


class CheckpointError(Explained, RuntimeError):
    """A checkpoint that cannot be written or used; the message names the file and what to do."""


def save(path: str | Path, content: dict[str, Any]) -> None:
    """Write a checkpoint in one step: a reader, or a run that dies here, finds the previous one or the new.

    Raises:
        CheckpointError: it cannot be written (no space, no right). The previous checkpoint stands.
    """
    content = {"format": FORMAT, **content}
    if set(content) != set(KEYS):
        raise ValueError(f"a checkpoint has the keys {KEYS}; got {tuple(content)}")
    try:
        with atomic_output(str(path)) as sink:
            torch.save(content, cast(IO[bytes], sink))
    except StorageError as error:
        raise CheckpointError(f"{error}. What was under this name before still stands.") from error


def read_tensors(path: str | Path, device: str | torch.device = "cpu") -> Any:
    """Return what `torch.save` wrote; nothing in the file is executed.

    Raises:
        CheckpointError: no such file, truncated, or one that holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors and plain values, or is damaged; it was not opened, since "
            f"loading it could run code ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint, perhaps cut off: {error}") from None


def load(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint of this trainer.

    Raises:
        CheckpointError: see `read_tensors`; also not a checkpoint, or one of another format.
    """
    content = read_tensors(path, device)
    if not isinstance(content, dict) or set(content) != set(KEYS):
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path}: not a checkpoint of this trainer: holds {found}, expected {list(KEYS)}"
        )
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: format {content['format']}; this code reads format {FORMAT}")
    return content


def load_finder_model(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[Finder, Preprocessing, Experiment]:
    """Return the trained finder in evaluation mode, its preprocessing, and the config it was trained with.

    Raises:
        CheckpointError: see `load`; also a network or preprocessing that this code does not know, or weights
            that do not fit the network they are said to be of.
    """
    content = load(path, device)
    try:
        preprocessing = preprocess.from_dict(content["preprocessing"], str(path))
        config = experiments.from_dict(content["config"], str(path))
    except (PreprocessingError, ConfigError) as error:
        raise CheckpointError(str(error)) from error
    model = Finder(config.training.arch, preprocessing, config.training.dropout)
    restore_weights(model, content, path)
    return model.to(device).eval(), preprocessing, config


def restore_weights(model: Finder, content: dict[str, Any], path: str | Path) -> None:
    """Load a checkpoint's weights into `model`.

    Raises:
        CheckpointError: the weights are of another network; some differing tensors are named.
    """
    own, found = model.state_dict(), content["model"]
    wrong = [k for k in own if k not in found or found[k].shape != own[k].shape]
    wrong += [k for k in found if k not in own]
    if wrong:
        raise CheckpointError(
            f"{path}: weights do not fit {model.arch!r}: {len(wrong)} of {len(own)} tensors are missing, "
            f"extra or of another shape ({', '.join(wrong[:3])}); it says it was trained as "
            f"{content['config']['training']['arch']!r}, one of {list(ARCHITECTURES)}"
        )
    model.load_state_dict(found)
