import csv

import numpy as np
import pytest
from injection_cases import experiment, target_table

from darkhaloscope.injection import natural
from darkhaloscope.injection.layout import lay_out_injections
from darkhaloscope.survey.extinction import extinction

NATURAL = {"prior": "natural"}


def lrgs(n=3000, **replace):
    """Hosts with the magnitudes and colours of luminous red galaxies."""
    rng = np.random.default_rng(5)
    z, r_z = rng.uniform(18.5, 20.4, n), rng.uniform(0.7, 1.6, n)
    mags = {"mag_dered_z": z, "mag_dered_r": z + r_z, "mag_dered_g": z + r_z + 1.6}
    return target_table(n, **(mags | replace))


def rows(table):
    return {n: table.column(n).to_numpy(zero_copy_only=False) for n in table.schema.names}


def test_distances_and_einstein_radii_are_those_of_astropy():
    from astropy.cosmology import FlatLambdaCDM

    cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0)
    z_lens, z_source = np.array([0.1, 0.3, 0.5, 0.8]), np.array([0.6, 1.0, 2.0, 4.0])
    np.testing.assert_allclose(
        natural.comoving_distance(z_source), cosmology.comoving_distance(z_source).value, rtol=1e-5
    )
    lens, source = (cosmology.comoving_distance(z).value for z in (z_lens, z_source))
    ratio = (source - lens) / source  # D_ls / D_s of a flat universe
    expected = 4 * np.pi * (250 / 299792.458) ** 2 * ratio * 206264.806
    np.testing.assert_allclose(
        natural.einstein_radius(np.full(4, 250.0), z_lens, z_source), expected, rtol=1e-4
    )
    assert 1.0 < expected[1] < 1.6


def test_red_galaxies_are_farther():
    """Medians of lens candidates with spectra: 0.37, 0.51, 0.57, 0.66 at r - z of 0.9, 1.1, 1.3, 1.5."""
    found = natural.red_sequence_redshift(np.array([0.9, 1.1, 1.3, 1.5]))
    np.testing.assert_allclose(found, [0.37, 0.51, 0.57, 0.66], atol=0.03)
    assert (np.diff(natural.red_sequence_redshift(np.linspace(0.5, 1.8, 50))) >= 0).all()


def test_brighter_galaxies_at_one_redshift_are_heavier():
    faint, bright = natural.velocity_dispersion(np.array([20.0, 17.5]), np.array([0.5, 0.5]))
    assert bright / faint == pytest.approx(10**0.25)
    assert 180 < faint < 260


def test_source_counts_rise_as_published_within_their_range():
    m = natural.source_magnitude((np.arange(200_000) + 0.5) / 200_000, 22.0, 26.0)
    assert m.min() >= 22 and m.max() <= 26
    counts, _ = np.histogram(m, np.arange(22, 26.1, 0.5))
    np.testing.assert_allclose(np.diff(np.log10(counts)), 0.16, atol=0.01)


def test_source_redshifts_follow_their_distribution_behind_the_lens():
    u = (np.arange(20_000) + 0.5) / 20_000
    m = np.full(20_000, 24.5)
    z0 = 0.0417 * 24.5 - 0.744
    free = natural.source_redshift(u, m, np.zeros(20_000))
    assert free.mean() == pytest.approx(3 * z0, rel=0.01) and free.var() == pytest.approx(3 * z0**2, rel=0.03)
    behind = natural.source_redshift(u, m, np.full(20_000, 0.9))
    assert behind.min() >= 0.9
    np.testing.assert_allclose(np.quantile(behind, 0.5), np.quantile(free[free > 0.9], 0.5), rtol=0.01)
    assert np.isfinite(
        natural.source_redshift(np.array([0.0, 1.0]), np.array([22.0, 26.0]), np.array([1.0, 1.0]))
    ).all()


@pytest.mark.parametrize(
    ("position_angle", "pixel_angle"), [(0, 90), (45, 135), (90, 0), (135, 45)]
)  # from north through east; north is +y, east -x
def test_the_deflector_lies_along_its_hosts_light(position_angle, pixel_angle):
    e = 0.25
    e1, e2 = (np.array([e * f(2 * np.deg2rad(position_angle))]) for f in (np.cos, np.sin))
    q, phi = natural.shape_of_light(e1, e2, np.zeros((1, 2)), np.zeros((1, 2)))
    assert q[0] == pytest.approx(0.6)
    assert np.cos(2 * (phi[0] - np.deg2rad(pixel_angle))) == pytest.approx(1)


def test_natural_rows_have_physical_lenses_and_faint_sources():
    config = experiment(injection=NATURAL)
    found = rows(lay_out_injections(lrgs(), config))
    assert (found["config_id"] == -1).all()
    theta = found["theta_e_arcsec"]
    assert 0.6 < np.median(theta) < 1.3 and np.quantile(theta, 0.99) < 3 and theta.min() > 0
    assert found["src_mag_r"].min() >= 22 - 1e-5 and found["src_mag_r"].max() <= 26 + 1e-5
    assert np.median(found["src_mag_r"]) > 24.5
    offset = np.hypot(found["src_x_arcsec"], found["src_y_arcsec"]) / theta
    assert offset.max() < 0.8 + 1e-4 and abs(np.median(offset) - 0.8 / np.sqrt(2)) < 0.02
    brighter = found["src_mag_r"] < 23.5
    assert np.median(found["src_reff_arcsec"][brighter]) > 1.2 * np.median(
        found["src_reff_arcsec"][~brighter]
    )
    assert 0.02 < np.median(found["shear"]) < 0.05 and found["shear"].max() <= 0.15


def test_heavier_hosts_have_larger_rings():
    bright, faint = (
        rows(lay_out_injections(lrgs(mag_dered_z=np.full(3000, z), mag_dered_r=np.full(3000, z + 1.0)),
                                experiment(injection=NATURAL)))["theta_e_arcsec"]
        for z in (18.0, 20.0)
    )  # fmt: skip
    assert np.median(bright) / np.median(faint) == pytest.approx(10**0.4, rel=0.05)


def test_the_deflectors_shape_scatters_about_the_lights():
    found = rows(lay_out_injections(lrgs(shape_e1=np.full(3000, 0.25)), experiment(injection=NATURAL)))
    assert np.median(found["lens_q"]) == pytest.approx(0.6, abs=0.01)
    assert found["lens_q"].std() == pytest.approx(0.08, rel=0.1)
    tilt = np.angle(np.exp(2j * (found["lens_phi_rad"] - np.pi / 2))) / 2
    assert np.rad2deg(tilt.std()) == pytest.approx(10, rel=0.1)
    unknown = rows(lay_out_injections(lrgs(shape_e1=[None] * 3000), experiment(injection=NATURAL)))
    assert np.isfinite(unknown["lens_q"]).all() and unknown["lens_q"].std() > 0.12


def test_natural_image_sources_keep_their_own_size_and_the_drawn_brightness():
    found = rows(lay_out_injections(lrgs(60), experiment(injection=NATURAL | {"source": "image"})))
    plain = rows(lay_out_injections(lrgs(60), experiment(injection=NATURAL)))
    np.testing.assert_array_equal(found["src_mag_r"], plain["src_mag_r"])
    np.testing.assert_array_equal(found["theta_e_arcsec"], plain["theta_e_arcsec"])
    assert (found["source_id"] >= 0).all() and (found["src_reff_arcsec"] != plain["src_reff_arcsec"]).all()


def test_pairs_of_the_natural_prior_share_their_arc():
    found = rows(lay_out_injections(lrgs(20), experiment(injection=NATURAL | {"controls": "paired"})))
    for name in ("theta_e_arcsec", "src_mag_g", "lens_q", "src_x_arcsec"):
        np.testing.assert_array_equal(found[name][::2], found[name][1::2])


@pytest.mark.real
def test_the_red_sequence_gives_the_redshifts_of_real_lens_galaxies(real_data):
    with (real_data / "catalogs/stein2022_training_lenses.tsv").open() as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    z, r, mag_z, ebv = (np.array([float(t[n]) for t in table]) for n in ("z_spec", "mag_r", "mag_z", "ebv"))
    r_z = r - extinction(ebv, "r") - (mag_z - extinction(ebv, "z"))
    use = (z > 0.02) & (r_z > 0.6) & (r_z < 1.7)
    error = natural.red_sequence_redshift(r_z[use]) - z[use]
    assert use.sum() > 300 and abs(np.median(error)) < 0.01
    assert 1.48 * np.median(abs(error)) < 0.035
