"""A finder small enough to check by hand: its logit is the mean r flux over the r sky sigma, times a weight."""

import hashlib
import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from darkhaloscope.experiment import Experiment, from_dict


def experiment_like(**survey) -> Experiment:
    """The config of a model's training; `survey` sets fields of its section."""
    raw = {
        "name": "t", "variant": "t", "experiment_id": "e", "seed": 3, "survey": survey,
        "stamps": {"bricks_per_chunk": 4},
        "splits": {"train": 0.5, "val": 0.25, "test": 0.25},
        "limits": {"max_failed_fraction": 0.5},
    }  # fmt: skip
    return from_dict(raw, "test")


def write_model(
    path: Path, experiment: Experiment | None = None, weight: float = 1.0, size: int = 64, metadata: dict | None = None
) -> str:  # fmt: skip
    """Write the model as ONNX with the metadata of `training.export`; return its path."""
    sizes = {"stamps": ["n", 3, size, size], "sky_sigma": ["n", 3]}
    inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in sizes.items()]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "r_band"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "pixels"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array(weight, np.float32), "weight"),
    ]
    nodes = [
        helper.make_node("Gather", ["stamps", "r_band"], ["r"], axis=1),
        helper.make_node("ReduceMean", ["r", "pixels"], ["mean"], keepdims=0),
        helper.make_node("Gather", ["sky_sigma", "r_band"], ["sigma_"], axis=1),
        helper.make_node("Squeeze", ["sigma_", "one"], ["sigma"]),
        helper.make_node("Div", ["mean", "sigma"], ["ratio"]),
        helper.make_node("Mul", ["ratio", "weight"], ["logit"]),
    ]
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "tiny", inputs, [logit], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    config = (experiment or experiment_like()).as_dict()
    found = {
        "preprocessing": json.dumps({"bands": "grz", "size": size, "meta_cols": []}),
        "config": json.dumps(config),
        "checkpoint": hashlib.sha256(str(weight).encode()).hexdigest(),
    }
    helper.set_model_props(model, found if metadata is None else metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, str(path))
    return str(path)


def expected_logit(stamps: np.ndarray, sky_sigma: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """What the model says of (n, band, y, x) stamps."""
    return weight * stamps[:, 1].mean(axis=(1, 2)) / sky_sigma[:, 1]
