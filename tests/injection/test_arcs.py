import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from darkhaloscope.injection.arcs import ARC_COLUMNS, arc_of, scene_of, source_flux
from darkhaloscope.schema import SchemaError

RNG = np.random.default_rng(0)
ROWS = {name: RNG.uniform(0.1, 0.9, 5) for name in ARC_COLUMNS} | {"ebv": np.zeros(5)}


def test_each_column_of_a_row_becomes_the_scenes_field_of_that_name():
    scene = scene_of(ROWS)
    same = {f.name for f in dataclasses.fields(scene)} - {"x_lens", "y_lens", "src_q", "flux"}
    for name in same:
        np.testing.assert_array_equal(getattr(scene, name), ROWS[name], name)
    np.testing.assert_array_equal(scene.x_lens, ROWS["host_x"])
    np.testing.assert_array_equal(scene.y_lens, ROWS["host_y"])


def test_ellipticity_is_that_of_the_axes_difference_over_their_sum():
    scene = scene_of(ROWS | {"src_e": np.array([0.0, 0.2, 0.4, 0.3, 1 / 3])})
    np.testing.assert_allclose(scene.src_q, [1, 2 / 3, 3 / 7, 0.7 / 1.3, 0.5])


def test_magnitude_22_5_is_one_nanomaggy():
    rows = ROWS | {
        "src_mag_g": np.full(5, 22.5),
        "src_mag_r": np.full(5, 25.0),
        "src_mag_z": np.full(5, 20.0),
    }
    np.testing.assert_allclose(source_flux(rows), [[1, 0.1, 10]] * 5)


def test_rows_that_are_no_stamps_are_refused_by_column():
    with pytest.raises(SchemaError, match="host_x"):
        arc_of(pa.table({"theta_e_arcsec": [1.0]}), None)
