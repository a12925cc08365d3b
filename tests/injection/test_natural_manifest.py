"""The natural prior as stage 4a lays it out."""

import numpy as np
import pytest
from injection_cases import experiment, target_table

from darkhaloscope.config import ConfigError
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.injection.prior import COLUMNS, NEEDED, draw_prior

NATURAL = {"prior": "natural", "control_frac": 0.0}


def rows(**injection) -> dict[str, np.ndarray]:
    table = lay_out_injections(target_table(60), experiment(injection=NATURAL | injection))
    return {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.schema.names}


def test_a_natural_row_is_what_the_prior_draws_and_names_no_configuration():
    found = rows()
    assert (found["config_id"] == -1).all()
    assert np.isfinite([found[n] for n in COLUMNS]).all()
    assert len(set(found["theta_e_arcsec"])) == 60
    assert found["src_mag_r"].min() >= 22 - 1e-5 and found["src_mag_r"].max() <= 26 + 1e-5
    np.testing.assert_allclose(found["src_mag_g"] - found["src_mag_r"], _drawn(found)["g_r"], atol=2e-6)


def _drawn(found) -> dict[str, np.ndarray]:
    from darkhaloscope.injection.keys import draw_ids

    config = experiment(injection=NATURAL)
    ids = draw_ids(found["host_id"], found["replicate"], np.full(60, -1), config)
    targets = {n: target_table(60).column(n).to_numpy(zero_copy_only=False) for n in NEEDED}
    drawn = draw_prior(targets, ids, config.prior)
    np.testing.assert_array_equal(drawn["theta_e_arcsec"], found["theta_e_arcsec"])
    return {"g_r": drawn["src_mag_g"] - drawn["src_mag_r"]}


def test_image_sources_keep_their_own_size_and_the_drawn_brightness_and_lens():
    found, plain = rows(source="image"), rows()
    for name in ("src_mag_r", "theta_e_arcsec", "src_x_arcsec", "lens_q"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-12)
    assert (found["source_id"] >= 0).all() and (found["src_reff_arcsec"] != plain["src_reff_arcsec"]).all()


def test_pairs_share_their_arc():
    found = rows(controls="paired", control_frac=0.5)
    for name in ("theta_e_arcsec", "src_mag_g", "lens_q", "src_x_arcsec"):
        np.testing.assert_array_equal(found[name][::2], found[name][1::2])


def test_the_priors_settings_are_part_of_a_natural_rows_id_and_of_no_other():
    def ids(settings, **injection):
        config = experiment(injection=NATURAL | injection, prior=settings)
        return set(lay_out_injections(target_table(5), config).column("task_id").to_pylist())

    assert not ids({}) & ids({"src_r_faint": 25.0})
    assert ids({}, prior="grid") == ids({"src_r_faint": 25.0}, prior="grid")


def test_settings_that_cannot_be_drawn_from_are_named():
    config = experiment(injection=NATURAL, prior={"min_magnification": 0.5})
    with pytest.raises(ConfigError, match=r"min_magnification = 0\.5; 2\.0 to 20\.0"):
        lay_out_injections(target_table(5), config)
