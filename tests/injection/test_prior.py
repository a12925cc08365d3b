"""The prior as a whole: repeatable, in range, magnified as promised, and as the relations say."""

import dataclasses

import numpy as np
import pytest

from darkhaloscope.draws import digest
from darkhaloscope.injection import host_mass
from darkhaloscope.injection.cosmology import einstein_radius
from darkhaloscope.injection.magnification import Lenses, point_magnification
from darkhaloscope.injection.prior import COLUMNS, PHYSICS, draw_prior
from darkhaloscope.lensing.psf import Psf
from darkhaloscope.lensing.render import render
from darkhaloscope.lensing.scene import LIMITS, Scene
from darkhaloscope.records import INJECTION
from darkhaloscope.sections import Prior
from darkhaloscope.survey.redshifts import HOST_REDSHIFTS, red_sequence

N = 1_200
IDS = [digest("prior", i) for i in range(N)]


def lrgs(n=N, **replace):
    """Hosts with the magnitudes and colours of luminous red galaxies; every third is round by construction."""
    rng = np.random.default_rng(5)
    line = red_sequence()
    at = rng.integers(40, 130, n)
    z = rng.uniform(18.5, 20.4, n)
    r = z + line["r_z"][at]
    shape = np.where(np.arange(n) % 3 == 0, 0.0, 1.0)
    columns = {"mag_dered_r": r, "mag_dered_z": z, "z_host": HOST_REDSHIFTS[at]}
    columns |= {"shape_e1": 0.2 * shape, "shape_e2": 0.0 * shape}
    return columns | replace


@pytest.fixture(scope="module")
def drawn():
    return draw_prior(lrgs(), IDS, Prior())


def rows(columns, which):
    return {name: values[which] for name, values in columns.items()}


def test_columns_are_those_of_the_manifest_finite_and_within_the_renderers_limits(drawn):
    assert set(drawn) == {*COLUMNS, *PHYSICS}
    assert set(COLUMNS) <= {c.name for c in INJECTION}
    for name, values in drawn.items():
        assert values.shape == (N,) and values.dtype == np.float64 and np.isfinite(values).all(), name
    limited = drawn | {"src_q": (1 - drawn["src_e"]) / (1 + drawn["src_e"])}
    for name, (low, high) in LIMITS.items():
        assert low <= limited[name].min() and limited[name].max() <= high, name


def test_a_row_is_a_function_of_its_id_and_host(drawn):
    some = np.array([700, 3, 519])
    again = draw_prior(rows(lrgs(), some), [IDS[i] for i in some], Prior())
    for name in drawn:
        np.testing.assert_array_equal(again[name], drawn[name][some])
    other = draw_prior(lrgs(n=5), [digest("other", i) for i in range(5)], Prior())
    assert not np.isin(other["src_mag_r"], drawn["src_mag_r"]).any()


def test_golden_rows_do_not_change():
    found = draw_prior(lrgs(n=3), IDS[:3], Prior())
    for name, expected in GOLDEN.items():
        np.testing.assert_allclose(found[name], expected, atol=2e-6, err_msg=name)


GOLDEN = {
    "theta_e_arcsec": [0.954495, 1.341936, 0.666381],
    "lens_q": [0.457815, 0.651352, 0.649144],
    "src_x_arcsec": [-0.091528, -0.173002, 0.270161],
    "src_mag_r": [24.642262, 25.476033, 25.487848],
    "src_mag_g": [24.707487, 25.896355, 25.369857],
    "z_source": [1.275753, 1.611178, 1.598269],
}


def test_theta_e_follows_from_dispersion_and_redshifts(drawn):
    expected = einstein_radius(drawn["sigma_v_km_s"], drawn["z_lens"], drawn["z_source"])
    np.testing.assert_allclose(drawn["theta_e_arcsec"], np.maximum(expected, 0.01), rtol=1e-3, atol=1e-5)
    assert (drawn["z_source"] > drawn["z_lens"] + 0.0499).all()
    assert 0.5 < np.median(drawn["theta_e_arcsec"]) < 1.2


def test_the_lens_is_at_its_hosts_redshift(drawn):
    np.testing.assert_allclose(drawn["z_lens"], lrgs()["z_host"], atol=1e-6)


def test_dispersions_scatter_about_the_relation_and_lenses_are_the_heavier_ones(drawn):
    known = lrgs(z_host=np.full(N, 0.5), mag_dered_z=np.full(N, 19.3))
    mean = host_mass.log_velocity_dispersion(host_mass.absolute_r(np.array([19.3]), np.array([0.5])))
    plain = np.log10(draw_prior(known, IDS, Prior(weighting="galaxies"))["sigma_v_km_s"])
    lensing = np.log10(draw_prior(known, IDS, Prior())["sigma_v_km_s"])
    assert plain.mean() == pytest.approx(mean[0], abs=0.007) and plain.std() == pytest.approx(0.07, rel=0.07)
    # weighing the plain draws by theta_E^2, that is sigma^4, gives the draws of lenses
    weighted = np.average(plain, weights=10 ** (4 * plain))
    assert lensing.mean() == pytest.approx(weighted, abs=0.01)


def test_sources_of_lenses_are_the_galaxies_weighed_by_the_area_they_are_lensed_in():
    known = lrgs(z_host=np.full(N, 0.5))
    plain = draw_prior(known, IDS, Prior(weighting="galaxies"))
    area = einstein_radius(250.0, 0.5, plain["z_source"]) ** 2
    found = draw_prior(known, IDS, Prior())
    for name in ("z_source", "src_mag_r"):
        assert found[name].mean() == pytest.approx(np.average(plain[name], weights=area), abs=0.09), name
    assert found["z_source"].mean() > plain["z_source"].mean() + 0.2


def test_deflectors_follow_the_light_where_it_has_a_shape(drawn):
    shaped = np.arange(N) % 3 != 0
    assert drawn["lens_q"][shaped].mean() == pytest.approx(0.8 / 1.2, abs=0.01)
    assert drawn["lens_q"][shaped].std() == pytest.approx(0.08, rel=0.1)
    # e1 > 0, e2 = 0 is elongated to the north: +y
    offset = (drawn["lens_phi_rad"][shaped] - np.pi / 2 + np.pi / 2) % np.pi - np.pi / 2
    assert abs(np.degrees(offset.mean())) < 1.5 and np.degrees(offset.std()) == pytest.approx(10, rel=0.1)
    angles = drawn["lens_phi_rad"][~shaped]
    assert np.histogram(angles, 4, (0, np.pi))[0].min() > 0.15 * len(angles)
    assert drawn["lens_q"][~shaped].std() > 0.1


def test_shear_is_lognormal_and_capped(drawn):
    assert np.median(drawn["shear"]) == pytest.approx(0.05, rel=0.05)
    assert np.log10(drawn["shear"]).std() == pytest.approx(0.2, rel=0.1)
    low = draw_prior(lrgs(), IDS, Prior(max_shear=0.06))["shear"]
    assert low.max() == 0.06


def magnification(drawn, reff=None):
    """Magnification of the rendered sources; of points, nearly, with a tiny `reff` in theta_E."""
    size = drawn["src_reff_arcsec"] if reff is None else np.maximum(reff * drawn["theta_e_arcsec"], 0.002)
    names = (
        "theta_e_arcsec",
        "lens_q",
        "lens_phi_rad",
        "shear",
        "shear_phi_rad",
        "src_x_arcsec",
        "src_y_arcsec",
    )
    q = (1 - drawn["src_e"]) / (1 + drawn["src_e"])
    n = drawn["src_n"] if reff is None else np.full(len(q), 1.0)
    scene = Scene(
        32.0, 32.0, *(drawn[k] for k in names), size, q, drawn["src_phi_rad"], n, np.ones((len(q), 1))
    )
    made = render(scene, Psf.from_psfsize([[1.3]], "moffat", beta=2.7))
    assert made.ok.all(), made.reason
    return made.magnification


def test_the_magnification_floor_is_honoured_as_the_renderer_sees_it(drawn):
    some = rows(drawn, drawn["theta_e_arcsec"] > 0.2)
    some = rows(some, slice(300))
    points = magnification(some, reff=0.01)
    assert (points > 0.97 * 3).mean() > 0.985  # the rest are within their own size of a caustic
    # real sources are averages over their disc: lower near caustics, higher in small rings' neighbourhood
    wide = rows(drawn, drawn["theta_e_arcsec"] > 0.6)
    assert (magnification(rows(wide, slice(200))) > 3).mean() > 0.93


@pytest.mark.parametrize("floor", [2.0, 6.0])
def test_positions_are_uniform_in_the_area_above_the_floor(floor):
    n = 240
    found = draw_prior(lrgs(n), IDS[:n], Prior(min_magnification=floor))
    table = Lenses.of(*(found[k] for k in ("lens_q", "lens_phi_rad", "shear", "shear_phi_rad")))
    theta = found["theta_e_arcsec"]
    x, y = found["src_x_arcsec"] / theta, found["src_y_arcsec"] / theta
    value, _ = point_magnification(table, x[:, None], y[:, None])
    assert (value >= floor * 0.999).mean() > 0.995
    # as many of them are near the centre as of points strewn evenly, lens by lens
    u, v = np.random.default_rng(1).uniform(-1.5, 1.5, (2, n, 150)) * 2 / floor
    strewn = point_magnification(table, u, v)[0] >= floor
    near = (np.hypot(u, v) < 1 / floor) & strewn
    expected = near.sum() / strewn.sum()
    assert (np.hypot(x, y) < 1 / floor).mean() == pytest.approx(expected, abs=0.07)


def test_imaged_positions_have_several_images():
    n = 300
    found = draw_prior(lrgs(n), IDS[:n], Prior(position="imaged"))
    table = Lenses.of(*(found[k] for k in ("lens_q", "lens_phi_rad", "shear", "shear_phi_rad")))
    theta = found["theta_e_arcsec"]
    _, images = point_magnification(
        table, (found["src_x_arcsec"] / theta)[:, None], (found["src_y_arcsec"] / theta)[:, None]
    )
    assert (images >= 2).mean() > 0.995


def test_the_whole_plane_is_covered_evenly():
    found = draw_prior(lrgs(), IDS, Prior(position="plane", plane_radius_over_theta_e=2.0))
    distance = np.hypot(found["src_x_arcsec"], found["src_y_arcsec"]) / found["theta_e_arcsec"]
    assert distance.max() <= 2.001
    assert (distance < 1).mean() == pytest.approx(0.25, abs=0.04)


def test_a_host_without_magnitudes_or_redshift_is_nan_and_harms_nobody(drawn):
    hosts = lrgs()
    hosts["mag_dered_z"][7], hosts["mag_dered_r"][9] = np.nan, np.nan
    hosts["z_host"][11] = np.nan
    found = draw_prior(hosts, IDS, Prior())
    for name, values in found.items():
        assert np.isnan(values[[7, 9, 11]]).all() and np.isfinite(np.delete(values, [7, 9, 11])).all(), name
        np.testing.assert_array_equal(values[12:], drawn[name][12:])


def test_no_rows_are_no_rows():
    found = draw_prior(rows(lrgs(), slice(0)), [], Prior())
    assert all(len(values) == 0 for values in found.values())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("src_r_bright", 27.0), ("min_magnification", 1.0),
     ("plane_radius_over_theta_e", 0.0), ("max_shear", 0.9), ("q_scatter", float("nan"))],
)  # fmt: skip
def test_settings_that_cannot_be_drawn_from_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        draw_prior(lrgs(2), IDS[:2], dataclasses.replace(Prior(), **{setting: value}))


def test_missing_and_misshapen_columns_are_named():
    with pytest.raises(ValueError, match="shape_e1"):
        draw_prior({k: v for k, v in lrgs(2).items() if k != "shape_e1"}, IDS[:2], Prior())
    with pytest.raises(ValueError, match=r"3 ids.*mag_dered_r"):
        draw_prior(lrgs(2), IDS[:3], Prior())
