import dataclasses

import numpy as np
import pytest
from injection_cases import experiment, rows, target_table

from darkhaloscope.config import ConfigError
from darkhaloscope.experiment import load
from darkhaloscope.injection.grids import AXES, configurations, n_configurations
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.sections import Grid, Injection


@pytest.mark.parametrize(("name", "n"), [("grid_small", 48), ("grid_medium", 360), ("grid_sota", 1008)])
def test_a_grid_has_its_stated_number_of_distinct_configurations(name, n):
    rows = np.stack([configurations(Injection(grid=name))[axis] for axis in AXES], axis=1)
    assert n_configurations(Injection(grid=name)) == len(rows) == len(np.unique(rows, axis=0)) == n


def test_config_ids_do_not_change_between_versions():
    """config_id is stored in every manifest: reordering a grid would silently relabel old data."""
    grid = configurations(Injection(grid="grid_medium"))
    assert [grid[a][[1, 2, 6, 18, 72, 359]].tolist() for a in ("shear", "src_e")] == [
        [0.03, 0.0, 0.0, 0.0, 0.0, 0.03],
        [0.0, 0.2, 0.0, 0.0, 0.0, 0.4],
    ]
    assert grid["theta_e_arcsec"][[0, 71, 72, 359]].tolist() == [0.25, 0.25, 0.35, 1.2]


def test_changing_the_returned_arrays_does_not_change_the_grid():
    configurations(Injection(grid="grid_small"))["shear"][:] = 9.0
    assert configurations(Injection(grid="grid_small"))["shear"].max() == 0.03


ONE = Grid(theta_e_arcsec=(1.2,), src_dmag=(1.5,), src_reff_arcsec=(0.1,), src_e=(0.2,), shear=(0.0,))


def test_a_grid_of_one_is_laid_out_on_every_host():
    config = experiment(injection={"tier": "grid", "grid": "custom", "custom_grid": ONE, "control_frac": 0.5})
    found = rows(lay_out_injections(target_table(40), config))
    assert len(found["host_id"]) == 40 and set(found["config_id"]) == {0}
    assert set(found["theta_e_arcsec"]) == {1.2} and set(found["src_dmag"]) == {1.5}
    assert len(set(found["task_id"])) == 40 and 5 < found["is_control"].sum() < 35


def test_ids_follow_the_values_of_a_grid_of_ones_own():
    both = [
        rows(
            lay_out_injections(target_table(3), experiment(injection={"grid": "custom", "custom_grid": grid}))
        )
        for grid in (ONE, dataclasses.replace(ONE, src_dmag=(2.0,)))
    ]
    assert not set(both[0]["task_id"]) & set(both[1]["task_id"])


def test_an_impossible_value_is_named():
    with pytest.raises(ConfigError, match=r"custom_grid\.src_e has \[1.2\]; expected 0 to 0.95"):
        configurations(Injection(grid="custom", custom_grid=dataclasses.replace(ONE, src_e=(0.1, 1.2))))


@pytest.mark.parametrize("injection", [{"grid": "custom", "custom_grid": {"shear": [0.0]}},
                                       {"custom_grid": {"shear": [0.0]}}])  # fmt: skip
def test_a_grid_of_ones_own_is_whole_or_absent(injection, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('name = "x"\nvariant = "v"\nexperiment_id = "e"\n')
    with pytest.raises(ConfigError, match=r"needs every axis.*axes given: \['shear'\]"):
        load(file, {"injection": injection})
