"""The only place that imports timm.

timm imports torchvision, whose wheel on PyPI is built for CUDA. Beside a CPU torch its compiled operators do
not load, and torchvision then fails at import because it describes operators that nobody has declared
("operator torchvision::nms does not exist"). No network here uses those operators: declaring them is enough.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []  # a Library takes its operators with it when it is collected


def import_timm() -> ModuleType:
    """Import timm, beside a CPU torch too.

    Raises:
        ImportError: timm is not installed.
        RuntimeError: torchvision and torch do not fit together in a way that this guard does not know.
    """
    while True:
        try:
            return importlib.import_module("timm")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if torch.version.cuda is not None or missing is None or missing.group(1) not in _SCHEMAS:
                raise
            _declare(missing.group(1))
            _forget("torchvision", "timm")


def import_timm_utils() -> ModuleType:
    """Import timm.utils; raises as `import_timm`."""
    import_timm()
    return importlib.import_module("timm.utils")


def _declare(operator: str) -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(_SCHEMAS[operator])
    _declared.append(library)


def _forget(*packages: str) -> None:
    """Drop half-imported modules, so that the next import starts anew."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]
