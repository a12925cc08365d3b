"""A process that compiles the renderer draws the very bits of one that finds it compiled."""

import os
import subprocess
import sys

import pytest

from darkhaloscope.lensing import engine, panels, rays, spread, transfer

DRAW = """
import hashlib
from draws import draw, render_rows
print(hashlib.sha256(render_rows(draw(60, seed=5))[0].tobytes()).hexdigest())
"""


def test_no_compiled_function_has_a_copy_that_is_not_inlined():
    for module in (engine, panels, rays, spread, transfer):
        compiled = [f for f in vars(module).values() if hasattr(f, "targetoptions")]
        assert compiled
        for function in compiled:
            options = function.targetoptions
            assert options.get("forceinline") or options.get("inline") == "always", function


@pytest.mark.slow
def test_compiling_and_loading_give_the_same_bits(tmp_path):
    variables = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    drawn = [
        subprocess.run(
            [sys.executable, "-c", DRAW], env=variables, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert len(drawn[0]) == 65 and drawn[0] == drawn[1]
