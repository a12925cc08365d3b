import numpy as np
import pytest

from darkhaloscope.injection.grids import AXES, configurations, n_configurations


@pytest.mark.parametrize(("name", "n"), [("grid_small", 48), ("grid_medium", 360), ("grid_sota", 1008)])
def test_a_grid_has_its_stated_number_of_distinct_configurations(name, n):
    rows = np.stack([configurations(name)[axis] for axis in AXES], axis=1)
    assert n_configurations(name) == len(rows) == len(np.unique(rows, axis=0)) == n


def test_grid_sota_has_the_documented_values():
    grid = configurations("grid_sota")
    assert sorted(set(grid["theta_e_arcsec"])) == [0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5]
    assert sorted(set(grid["src_dmag"])) == [0.5, 1.0, 1.5, 2.0]
    assert sorted(set(grid["src_reff_arcsec"])) == [0.06, 0.1, 0.15, 0.2]
    assert sorted(set(grid["src_e"])) == [0.0, 0.2, 0.4]
    assert sorted(set(grid["shear"])) == [0.0, 0.02, 0.04]


def test_config_ids_do_not_change_between_versions():
    """config_id is stored in every manifest: reordering a grid would silently relabel old data."""
    grid = configurations("grid_medium")
    assert [grid[a][[1, 2, 6, 18, 72, 359]].tolist() for a in ("shear", "src_e")] == [
        [0.03, 0.0, 0.0, 0.0, 0.0, 0.03],
        [0.0, 0.2, 0.0, 0.0, 0.0, 0.4],
    ]
    assert grid["theta_e_arcsec"][[0, 71, 72, 359]].tolist() == [0.25, 0.25, 0.35, 1.2]


def test_changing_the_returned_arrays_does_not_change_the_grid():
    configurations("grid_small")["shear"][:] = 9.0
    assert configurations("grid_small")["shear"].max() == 0.03


def test_an_unknown_grid_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"grid_huge.*grid_medium"):
        configurations("grid_huge")
