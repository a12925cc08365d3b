"""How a file says its stamps are laid out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from training.selection import DataError


@dataclass(frozen=True)
class Layout:
    """How a file's stamps are laid out."""

    dtype: str
    shape: tuple[int, ...]
    bands: str

    @property
    def cell_bytes(self) -> int:
        """Length of one stamp."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape))


def read_layout(url: str, schema: pa.Schema) -> Layout:
    """Return how a file says its stamps are laid out.

    Raises:
        DataError: it does not say so, or says it in another way than `records.stamp_metadata`.
    """
    raw = {
        k.decode(): v.decode()
        for k, v in (schema.metadata or {}).items()
        if k.startswith((b"stamp_", b"bands"))
    }
    try:
        shape = tuple(int(n) for n in raw["stamp_shape"].split(","))
        layout = Layout(raw["stamp_dtype"], shape, raw["bands"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{url}: its metadata does not say how stamps are laid out ({error!r}); found {raw}; "
            "expected stamp_dtype, stamp_shape and bands, as stages 4c and pack write them"
        ) from None
    if layout.dtype not in ("float16", "float32"):
        raise DataError(f"{url}: stamp_dtype is {layout.dtype}; expected float16 or float32")
    return layout
