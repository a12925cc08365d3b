"""Export a trained finder: `python -m training.export CHECKPOINT --out DIR [--metrics metrics.json]`.

Writes into DIR:

  finder.pt           the state dict, tensors only (torch.load(..., weights_only=True))
  finder.safetensors  the same, with preprocessing and config as JSON in its metadata
  finder.onnx         stamps in nanomaggies in (and sky_sigma, meta where the finder takes them), logits out; the
                      normalisation is inside the graph; any number of rows
  README.md           the model card, written from the run's own files

The ONNX graph is run beside the checkpoint before it is kept: a difference is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from darkhaloscope.errors import Explained
from darkhaloscope.provenance import sha256_of
from darkhaloscope.writing import atomic_output, replace_file
from training import checkpoint
from training.checkpoint import load_finder_model
from training.model_card import write_card
from training.models import Finder

TOLERANCE = 1e-3  # largest difference of a logit between checkpoint and ONNX: fp32 sums in another order
_PARITY_ROWS = (1, 7)  # batch sizes that are compared; the graph is traced with another


class ExportError(Explained, RuntimeError):
    """A finder that cannot be exported; the message says why and what to do."""


def example(finder: Finder, rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return inputs as a survey has them, by name: sky noise, a galaxy in the middle, sky sigma, metadata.

    Args:
        finder: decides which inputs there are.
        rows: number of stamps.
        seed: of the noise.
    """
    how, draw = finder.preprocessing, torch.Generator().manual_seed(seed)
    axis = torch.arange(how.size) - (how.size - 1) / 2
    galaxy = torch.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * (how.size / 12) ** 2))
    sky = torch.tensor(how.sky_reference) * (0.5 + torch.rand(rows, len(how.bands), generator=draw))
    noise = torch.randn(rows, len(how.bands), how.size, how.size, generator=draw)
    inputs = {"stamps": sky[:, :, None, None] * (noise + 20 * galaxy)}
    if how.norm_method == "sky_asinh":
        inputs["sky_sigma"] = sky
    if how.meta_cols:
        spread = torch.randn(rows, len(how.meta_cols), generator=draw)
        inputs["meta"] = torch.tensor(how.meta_mean) + torch.tensor(how.meta_std) * spread
    return inputs


def to_onnx(finder: Finder, path: Path, described: Mapping[str, str] | None = None) -> float:
    """Write a finder as ONNX; return the largest difference of a logit from the finder's own.

    Args:
        finder: the network with its preprocessing.
        path: file to write.
        described: metadata of the file (darkhaloscope.search.model.FIELDS), which a search goes by.

    Raises:
        ExportError: onnx, onnxscript or onnxruntime is not installed, or the graph gives other logits. The file
            is then not there.
    """
    try:
        import onnxruntime

        program = _traced(finder.eval())
    except ImportError as error:
        raise ExportError(
            f"{error}: pip install 'darkhaloscope[export]' (onnx, onnxscript, onnxruntime)"
        ) from None
    program.model.metadata_props.update(described or {})
    temporary = path.with_suffix(".unchecked")
    program.save(str(temporary))
    session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
    difference = max(_difference(finder, session, example(finder, n, seed=n)) for n in _PARITY_ROWS)
    if not difference <= TOLERANCE:
        temporary.unlink()
        raise ExportError(
            f"{path}: its logits differ from the checkpoint's by up to {difference:.3g}, more than {TOLERANCE}; "
            "it was not kept. Other versions of torch and onnxscript may translate the network rightly"
        )
    temporary.replace(path)
    return difference


def _traced(finder: Finder) -> torch.onnx.ONNXProgram:
    """Return the finder's graph, for any number of rows.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    from onnxscript import opset18 as op

    def lower_median(x: Any, dim: int, keepdim: bool = False) -> Any:
        """Translate torch.median along an axis, which the exporter does not know: the last of the k smallest."""
        k = (x.shape[dim] - 1) // 2 + 1
        values, index = op.TopK(x, op.Constant(value_ints=[k]), axis=dim, largest=0, sorted=1)
        last = op.Constant(value_ints=[k - 1])
        return op.Gather(values, last, axis=dim), op.Gather(index, last, axis=dim)

    inputs = example(finder, 3)
    rows = torch.export.Dim("rows", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts
        program = torch.onnx.export(
            finder, kwargs=inputs, dynamo=True, verbose=False, external_data=False,
            dynamic_shapes={name: {0: rows} for name in inputs},
            input_names=list(inputs), output_names=["logit"],
            custom_translation_table={torch.ops.aten.median.dim: lower_median},
        )  # fmt: skip
    assert program is not None
    return program


def _difference(finder: Finder, session: Any, inputs: dict[str, torch.Tensor]) -> float:
    with torch.no_grad():
        expected = finder(**inputs).numpy()
    (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return float(np.abs(found - expected).max())


def export(checkpoint_path: str | Path, out: str | Path, metrics: str | Path | None = None) -> dict[str, Any]:
    """Write everything; return what the model card says of it.

    Args:
        checkpoint_path: of `training/train.py`; its run's config.json and log.jsonl lie beside it.
        out: folder to write to.
        metrics: `metrics.json` of evaluation.evaluate, for the card.

    Raises:
        CheckpointError, ExportError, StorageError.
    """
    source, folder = Path(checkpoint_path), Path(out)
    content = checkpoint.load(source)
    finder, preprocessing, experiment = load_finder_model(source)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in finder.state_dict().items()}
    with atomic_output(str(folder / "finder.pt")) as sink:
        torch.save(state, sink)  # type: ignore[arg-type]
    described = {
        "preprocessing": json.dumps(preprocessing.as_dict()),
        "config": json.dumps(experiment.as_dict()),
    }
    save_file(state, folder / "finder.safetensors", metadata=described)
    difference = to_onnx(finder, folder / "finder.onnx", described | {"checkpoint": sha256_of(source)})
    files = {p.name: sha256_of(p) for p in sorted(folder.glob("finder.*"))}
    facts = {
        "checkpoint": source.name,
        "sha256": sha256_of(source),
        "onnx_difference": difference,
        "files": files,
    }
    card = write_card(content, facts, source.parent, Path(metrics) if metrics else None)
    replace_file(str(folder / "README.md"), card.encode())
    return facts


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    p = argparse.ArgumentParser(
        "python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("checkpoint", help="checkpoint of training/train.py, as runs/gen3/best.pt")
    p.add_argument("--out", required=True, help="folder to write to")
    p.add_argument("--metrics", help="metrics.json of evaluation.evaluate, for the model card")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    a = parser().parse_args(argv)
    try:
        facts = export(a.checkpoint, a.out, a.metrics)
    except Explained as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(f"logits of the ONNX graph differ by at most {facts['onnx_difference']:.2g}")
    print(f"-> {a.out}: {', '.join([*facts['files'], 'README.md'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
