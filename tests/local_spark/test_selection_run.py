"""The selection function's injections: the finder's own but for what is injected, and what they would give."""

import json

import numpy as np
import pyarrow as pa
import pytest

from darkhaloscope.dataset import DatasetError, commit_chunk, read_table, write_part
from darkhaloscope.experiment import load
from darkhaloscope.injection.grids import n_configurations
from darkhaloscope.stage import place
from evaluation.completeness import CELLS, cell_of
from local_spark.generations import as_toml
from local_spark.selection import (
    GRID,
    RADIUS_OVER_THETA_E,
    SOURCE_R,
    expected,
    hosts_of,
    main,
    over_the_plane,
    prospect,
    steps,
    take_hosts,
)
from local_spark.smoke import EXPERIMENT

HOSTS = pa.table(
    {
        "host_id": np.arange(4), "region_split": ["test", "train", "test", "test"],
        "mag_dered_r": np.array([19.0, 25.0, 20.0, 21.0], np.float32), "mag_r": np.full(4, 20.1, np.float32),
        "psfsize_r": np.array([1.2, 9.0, 1.2, 1.5], np.float32), "psfdepth_r": np.full(4, 24.5, np.float32),
    }
)  # fmt: skip


def test_everything_but_the_injections_is_the_finders_own(tmp_path):
    finder = load(EXPERIMENT, {"survey.source": "sky"})
    made = over_the_plane(str(EXPERIMENT), "sky", 15, HOSTS)
    for section in ("seed", "variant", "survey", "targets", "splits", "psf", "stamps", "training"):
        assert getattr(made, section) == getattr(finder, section)
    injection = made.injection
    assert (injection.control_frac, injection.replicates, injection.n_total_per_split) == (0.0, 4, 15), (
        "all hosts alike"
    )
    assert injection.max_offset_over_theta_e == RADIUS_OVER_THETA_E > 1
    assert n_configurations(injection) == len(GRID["theta_e_arcsec"]) * len(SOURCE_R) * 3 * 2 * 2
    assert place("out", "phase4c", made) != place("out", "phase4c", finder), "the finder's own stamps stay"
    file = tmp_path / "made.toml"
    file.write_text(as_toml(made.as_dict()))
    assert load(file) == made, "the file that a cluster runs is this experiment"
    commands = [" ".join(s.command) for s in steps("out", made, str(file), "best.pt", "metrics.json", "fine")]
    assert "evaluation.selection_function" in commands[-1] and "--cells fine" in commands[-1]
    assert "phase3" not in " ".join(commands)
    assert "--checkpoint best.pt" in commands[-2]


def test_each_cell_is_expected_to_get_what_it_then_gets():
    hosts = HOSTS.filter(pa.array([True, False, True, True]))
    shares, on_hosts = expected(hosts, CELLS["coarse"])
    assert shares.sum() == pytest.approx(1)
    # Sources are of r 20.5 to 25.5 behind the median host, and 1 mag brighter behind the first one.
    one = {
        "theta_e_arcsec": [1.2],
        "src_mag_r": [22.5],
        "psfsize_r": [1.2],
        "psfdepth_r": [24.5],
        "mag_r": [20],
    }
    cell = cell_of(one, CELLS["coarse"])[0]
    assert shares[cell] == pytest.approx(
        2 * 2 / (8 * 6 * 3)
    )  # two radii, and one source behind each of two hosts
    assert on_hosts[cell] == 2 and (on_hosts[shares == 0] == 0).all()


def test_what_injections_would_give_is_counted_by_hand():
    told = prospect(np.array([0.5, 0.25, 0.2, 0.05, 0.0]), np.array([7, 7, 4, 3, 0]), 2_000, 7, 0.06)
    assert "4 of 5 cells can be reached" in told
    assert (
        "2,000 (at most about 2 min) injections on 7 hosts: 500 or more expected in 2 cells, fewest 100"
        in told
    )
    assert "500 in 50% of the cells that can be reached: N = 2,000 (" in told
    assert "500 in 100% of the cells that can be reached: N = 10,000 (at most about 10 min)" in told
    # 0.5 +- 0.30 of seven hosts that are all found or all lost, +- 0.37 of three (Wilson)
    assert "3 to 7 hosts in a cell" in told
    assert "+-0.04 where a host's are independent, +-0.30 to +-0.37 where they all fare alike" in told
    assert "min" not in prospect(np.array([1.0]), np.array([1]), 500, 1, None)


def test_only_hosts_of_the_test_split_are_injected_into(tmp_path, capsys):
    finder = load(EXPERIMENT)
    root = place(str(tmp_path), "phase3", finder)
    assert main(["--out", str(tmp_path), "--plan"]) == 1
    assert "selection: " in capsys.readouterr().err
    commit_chunk(root, 0, [write_part(root, 0, 0, HOSTS.to_batches(), HOSTS.schema)])
    (tmp_path / root / "_stage_config.json").write_text(json.dumps({"state": "done", "hash": "ab" * 8}))
    hosts = hosts_of(str(tmp_path), finder)
    assert hosts.column("host_id").to_pylist() == [0, 2, 3]
    made = over_the_plane(str(EXPERIMENT), "sky", 12, hosts)
    with pytest.raises(DatasetError):
        read_table(place(str(tmp_path), "phase3", made))
    for _ in range(2):  # again: goes on
        take_hosts(str(tmp_path), finder, made, hosts)
    assert read_table(place(str(tmp_path), "phase3", made)).column("host_id").to_pylist() == [0, 2, 3]
    assert main(["--out", str(tmp_path), "--plan", "--n", "12"]) == 0
    assert "12 injections on 3 hosts" in capsys.readouterr().out
