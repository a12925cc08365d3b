"""Pixels are stored as numpy would store them, bit for bit, whether the processor rounds or numpy."""

import numpy as np
import pytest

from darkhaloscope import stored as module
from darkhaloscope.stored import stored


def every_rounding():
    """Every float16, the middle between each and the next, and the float32 on either side of these."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = ((halves[:-1].astype(np.float64) + halves[1:]) / 2).astype(np.float32)
    middles = np.append(middles, np.float32(65520))  # from here on: infinite
    bits = np.concatenate([halves, middles]).view(np.int32)
    around = np.concatenate([bits - 1, bits, bits + 1]).clip(0, None).astype(np.int32).view(np.float32)
    return np.concatenate([around, -around, np.float32([np.inf, 1e-40, 1e38, 0.0, -0.0])])


@pytest.mark.parametrize("instruction", [True, False])
def test_float16_is_numpys_for_every_number_that_rounds_up_down_or_to_even(instruction, monkeypatch):
    monkeypatch.setattr(module, "INSTRUCTION", instruction and module.INSTRUCTION)
    values = every_rounding()
    with np.errstate(over="ignore"):
        assert stored(values, "float16").tobytes() == values.astype("<f2").tobytes()
    assert np.isnan(stored(np.float32([np.nan, 1]), "float16")).tolist() == [True, False]


def test_other_types_and_layouts_are_numpys():
    image = np.random.default_rng(1).normal(0, 0.01, (3, 8, 6)).astype(np.float32)
    assert stored(image, "float32").tobytes() == image.tobytes()
    assert stored(image.astype(np.float64), "float16").tobytes() == image.astype("<f2").tobytes()
    turned = image.transpose(2, 0, 1)
    assert np.array_equal(stored(turned, "float16"), turned.astype("<f2"))
    assert stored(image.astype(">f4"), "float16").tobytes() == image.astype("<f2").tobytes()
