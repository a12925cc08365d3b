"""The experiment of the selection function is the finder's own, but for what is injected, and where."""

from darkhaloscope.experiment import load
from darkhaloscope.injection.grids import n_configurations
from darkhaloscope.stage import place
from local_spark.generations import as_toml
from local_spark.selection import GRID, RADIUS_OVER_THETA_E, over_the_plane, steps
from local_spark.smoke import EXPERIMENT


def test_everything_but_the_injections_is_the_finders_own(tmp_path):
    finder = load(EXPERIMENT, {"survey.source": "sky"})
    made = over_the_plane(str(EXPERIMENT), "sky", 500, 4)
    for section in ("seed", "variant", "survey", "targets", "splits", "psf", "stamps", "training"):
        assert getattr(made, section) == getattr(finder, section)
    injection = made.injection
    assert (injection.control_frac, injection.replicates, injection.n_total_per_split) == (0.0, 4, 500)
    assert injection.max_offset_over_theta_e == RADIUS_OVER_THETA_E > 1
    assert n_configurations(injection) == len(GRID["theta_e_arcsec"]) * len(GRID["src_dmag"]) * 3 * 2 * 2
    assert place("out", "phase4c", made) != place("out", "phase4c", finder), "the finder's own stamps stay"
    file = tmp_path / "made.toml"
    file.write_text(as_toml(made.as_dict()))
    assert load(file) == made, "the file that a cluster runs is this experiment"
    commands = [" ".join(s.command) for s in steps("out", made, str(file), "best.pt", "metrics.json")]
    assert "evaluation.selection_function" in commands[-1] and "--checkpoint best.pt" in commands[-2]
