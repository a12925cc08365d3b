"""A finder as the executors run it: an ONNX file that knows its stamps, its training and its checkpoint.

`training.export` writes the file; normalisation is in its graph, so nothing here can differ from training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.config import ConfigError
from darkhaloscope.errors import Explained
from darkhaloscope.experiment import Experiment, from_dict
from darkhaloscope.pack.packing import pixels_of
from darkhaloscope.storage import read_bytes

FIELDS = ("preprocessing", "config", "checkpoint")
"""Keys of the ONNX metadata: two JSON records and the checkpoint's sha256."""

ROWS_AT_A_TIME = 64  # stamps of a call: the graph's memory stays in the processor's cache


class ModelError(Explained, ValueError):
    """A model that cannot search; the message names the file, what was found and what to do."""


@dataclass(frozen=True)
class Model:
    """A loaded finder.

    Attributes:
        url: where it was read.
        hash: 16 hex digits of the file's sha256.
        checkpoint: sha256 of the checkpoint it was exported from.
        bands, size: of the stamps it takes.
        meta_cols: columns it takes beside the pixels.
        experiment: config it was trained with.
    """

    url: str
    hash: str
    checkpoint: str
    bands: str
    size: int
    meta_cols: tuple[str, ...]
    experiment: Experiment
    session: Any

    def logits(
        self, stamps: np.ndarray, sky_sigma: np.ndarray | None = None, meta: np.ndarray | None = None
    ) -> np.ndarray:
        """Return logits, (n,) float32; larger is more lens-like.

        Args:
            stamps: (n, band, y, x) nmgy/pixel.
            sky_sigma: (n, band) nmgy/pixel, where the model takes it.
            meta: (n, column) of `meta_cols`, where it has any.

        Raises:
            ModelError: stamps of another shape, or an input that it takes is not given.
        """
        expected = (len(self.bands), self.size, self.size)
        if stamps.ndim != 4 or stamps.shape[1:] != expected:
            raise ModelError(
                f"{self.url}: stamps of shape {stamps.shape}; it takes (n, {', '.join(map(str, expected))}), bands "
                f"{self.bands}, nanomaggies per pixel"
            )
        given = {"stamps": stamps, "sky_sigma": sky_sigma, "meta": meta}
        inputs = {i.name: given[i.name] for i in self.session.get_inputs()}
        if missing := [name for name, value in inputs.items() if value is None]:
            raise ModelError(
                f"{self.url}: it takes {missing} beside the stamps; give {' and '.join(missing)}"
            )
        arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in inputs.items()}
        starts = range(0, len(stamps), ROWS_AT_A_TIME)
        parts = [
            self.session.run(None, {k: v[i : i + ROWS_AT_A_TIME] for k, v in arrays.items()})[0]
            for i in starts
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def logits_of_rows(self, rows: pa.RecordBatch | pa.Table) -> np.ndarray:
        """Return the logits of STAMPS rows that all have pixels, (n,) float32."""
        meta = _columns(rows, self.meta_cols) if self.meta_cols else None
        return self.logits(pixels_of(rows), _columns(rows, [f"sky_sigma_{b}" for b in self.bands]), meta)


def _columns(rows: pa.RecordBatch | pa.Table, names: Sequence[str]) -> np.ndarray:
    columns = [rows.column(n).to_numpy(zero_copy_only=False) for n in names]
    return np.stack(columns, axis=1).astype(np.float32)


def load_model(url: str, threads: int = 1) -> Model:
    """Read an ONNX file of `training.export`.

    Args:
        url: path or URL.
        threads: that one call uses; 1 where each core has a worker of its own.

    Raises:
        ModelError: none there, damaged, or not of this project's export.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ModelError("onnxruntime is not installed: pip install 'darkhaloscope[search]'") from None
    try:
        content = read_bytes(url)
    except FileNotFoundError:
        raise ModelError(
            f"{url}: no such model; make one with python -m training.export CHECKPOINT --out DIR"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception type for each of its states
        raise ModelError(
            f"{url}: not an ONNX model, or cut off: {str(error)[:200]}; export the checkpoint again"
        ) from error
    found = session.get_modelmeta().custom_metadata_map
    if missing := [name for name in FIELDS if name not in found]:
        raise ModelError(
            f"{url}: its metadata lacks {', '.join(missing)}: not exported by this code; export the checkpoint again "
            "(python -m training.export)"
        )
    return _described(url, content, found, session)


def _described(url: str, content: bytes, found: Mapping[str, str], session: Any) -> Model:
    try:
        how = json.loads(found["preprocessing"])
        experiment = from_dict(json.loads(found["config"]), url)
        bands, size, meta_cols = str(how["bands"]), int(how["size"]), tuple(how["meta_cols"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{url}: its metadata is of another version of this code ({error}); export the checkpoint again"
        ) from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Model(url, digest, found["checkpoint"], bands, size, meta_cols, experiment, session)


@lru_cache(maxsize=8)
def worker_model(url: str, digest: str) -> Model:
    """Return a model, read once in each worker process.

    Raises:
        ModelError: see `load_model`; also a file that is not the one the search began with.
    """
    model = load_model(url)
    if model.hash != digest:
        raise ModelError(
            f"{url}: changed while the search ran (hash {model.hash}, at the start {digest}); start it again"
        )
    return model


def refuse_disagreement(models: Sequence[Model]) -> None:
    """Raise `ModelError` where models cannot look at the same stamps, or are twice the same."""
    first = models[0]
    for other in models[1:]:
        if (other.bands, other.size) != (first.bands, first.size):
            raise ModelError(
                f"{other.url} takes {other.bands} stamps of {other.size} pixels, {first.url} {first.bands} of "
                f"{first.size}: models of another preprocessing cannot be averaged; search with each on its own"
            )
    if len({m.checkpoint for m in models}) < len(models):
        raise ModelError(
            f"{', '.join(m.url for m in models)}: one model is given twice; its spread would be 0"
        )
