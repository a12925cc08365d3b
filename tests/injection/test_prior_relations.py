"""The relations that the prior draws from: against their papers, astropy, and real galaxies."""

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from darkhaloscope.draws import digest, normals, uniforms
from darkhaloscope.injection import host_mass, populations
from darkhaloscope.injection.cosmology import (
    comoving_distance,
    distance_modulus,
    distance_ratio,
    einstein_radius,
)
from darkhaloscope.injection.reference import TYPES, galaxy_colours
from darkhaloscope.survey.photometry import magnitude
from darkhaloscope.survey.redshifts import redshift_of_colours
from darkhaloscope.survey.wcs import TanWcs

ASTROPY = FlatLambdaCDM(H0=70, Om0=0.3, Tcmb0=0)
N = 4_000
IDS = [digest("relations", i) for i in range(N)]
U, Z = uniforms(IDS, 1, 4), normals(IDS, 2, 4)


def robust(x):
    return 1.4826 * np.median(np.abs(x - np.median(x)))


def astropys_ratio(z_lens, z_source):
    lens, source = (ASTROPY.comoving_distance(z).value for z in (z_lens, z_source))
    return (source - lens) / source  # D_ls / D_s of a flat universe


def test_distances_are_astropys():
    z = np.array([0.01, 0.1, 0.5, 1.0, 2.3, 5.0, 12.0])
    np.testing.assert_allclose(comoving_distance(z), ASTROPY.comoving_distance(z).value, rtol=1e-5)
    np.testing.assert_allclose(distance_modulus(z), ASTROPY.distmod(z).value, atol=1e-5)
    source = np.array([0.3, 1.0, 2.0, 5.0])
    expected = astropys_ratio(0.25, source)
    np.testing.assert_allclose(distance_ratio(0.25, source), expected, rtol=1e-5)
    assert distance_ratio(0.5, 0.4) == 0


def test_a_lens_of_250_km_s_at_redshift_half_has_its_known_einstein_radius():
    ratio = astropys_ratio(0.5, 2.0)
    expected = np.degrees(4 * np.pi * (250 / 299_792.458) ** 2 * ratio) * 3_600
    assert einstein_radius(250.0, 0.5, 2.0) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(1.15, abs=0.01)


def test_the_velocity_dispersion_is_that_of_hyde_and_bernardi_raised_by_its_offset():
    found = 10 ** (
        host_mass.log_velocity_dispersion(np.array([-21.5, -22.5, -23.5])) - host_mass.LOG_SIGMA_OFFSET
    )
    np.testing.assert_allclose(found, [162, 208, 258], rtol=0.01)
    outside = host_mass.log_velocity_dispersion(np.array([-30.0, -25.0, -18.0, -10.0]))
    assert outside[0] == outside[1] and outside[2] == outside[3]


def test_the_k_correction_is_bandwidth_alone_where_one_band_becomes_the_other():
    # observed z, at 1.44 times the wavelength of r, is rest-frame r at redshift 0.44
    faded = host_mass.EVOLUTION_MAG * 0.44
    found = host_mass.absolute_r(np.array([19.0]), np.array([0.44]))[0]
    expected = 19.0 - ASTROPY.distmod(0.44).value + 2.5 * np.log10(1.44) + faded
    assert found == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("position_angle", "from_x"), [(0.0, 90.0), (45.0, 135.0), (90.0, 0.0), (135.0, 45.0)]
)
def test_position_angles_become_angles_from_x_with_east_to_the_left(position_angle, from_x):
    q = 0.6
    e = (1 - q) / (1 + q)
    e1, e2 = (np.array([e * f(2 * np.radians(position_angle))]) for f in (np.cos, np.sin))
    found_q, phi, known = host_mass.shape_of_light(e1, e2)
    assert known.all() and found_q[0] == pytest.approx(q)
    assert np.degrees(phi[0]) % 180 == pytest.approx(from_x, abs=1e-6)


def test_the_angle_from_x_is_where_the_galaxy_points_in_a_coadd():
    # a step along position angle 30 degrees (north through east), through a brick's own WCS
    wcs, angle = TanWcs.of_brick(150.0, 20.0), np.radians(30.0)
    ra, dec = 150.0 + 1e-4 * np.sin(angle) / np.cos(np.radians(20.0)), 20.0 + 1e-4 * np.cos(angle)
    (x0, x1), (y0, y1) = wcs.sky_to_pixel(np.array([150.0, ra]), np.array([20.0, dec]))
    _, phi, _ = host_mass.shape_of_light(
        np.array([0.2 * np.cos(2 * angle)]), np.array([0.2 * np.sin(2 * angle)])
    )
    assert phi[0] == pytest.approx(np.arctan2(y1 - y0, x1 - x0), abs=1e-3)


def test_models_that_are_round_by_construction_have_no_known_shape():
    q, phi, known = host_mass.shape_of_light(np.array([0.0, np.nan, 0.1]), np.array([0.0, 0.1, np.nan]))
    assert not known.any() and (q == 1).all() and (phi == 0).all()
    drawn = host_mass.drawn_axis_ratio(np.full(N, 250.0), U[:, 0])
    assert drawn.min() >= 0.3 and drawn.max() <= 1
    # 1 - q is Rayleigh of scale 0.235, whose median is 1.177 times that
    assert np.median(drawn) == pytest.approx(1 - 1.177 * 0.235, abs=0.015)


def test_the_deflector_follows_the_light_and_stays_an_ellipse():
    found = host_mass.follow_light(np.full(N, 0.7), 0.08 * Z[:, 0])
    assert found.mean() == pytest.approx(0.7, abs=0.005) and found.std() == pytest.approx(0.08, rel=0.05)
    nearly_round = host_mass.follow_light(np.full(N, 0.98), 0.08 * Z[:, 0])
    assert nearly_round.max() <= 1 and (nearly_round == 1).mean() < 0.01  # folded, not piled up


def test_magnitudes_are_distributed_as_the_published_counts():
    r = populations.magnitudes_of_counts(U[:, 0], 22.0, 26.0)
    assert r.min() >= 22 and r.max() <= 26
    edges = np.arange(22.0, 26.01, 0.5)
    expected = populations.galaxy_counts(edges[:-1] + 0.25)
    found = np.histogram(r, edges)[0] / N
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.02)
    # Hogg et al. (1997) at R = 22.963: 10^4.32 a square degree and magnitude
    assert populations.galaxy_counts(22.963 + 0.2) == pytest.approx(10**4.32, rel=1e-6)


@pytest.mark.parametrize(("r", "median"), [(22.0, 0.53), (24.0, 0.83), (26.0, 1.28)])
def test_fainter_galaxies_are_farther(r, median):
    kind, z = populations.draw_type_and_redshift(np.full(N, r), U[:, 0])
    assert np.median(z) == pytest.approx(median, abs=0.08)
    density = populations.type_and_redshift_density(r)
    assert density.sum() == pytest.approx(1) and density.shape == (len(TYPES), len(populations.Z_CELLS))
    np.testing.assert_allclose(np.bincount(kind, minlength=len(TYPES)) / N, density.sum(axis=1), atol=0.02)


def test_the_shares_of_types_are_those_of_the_published_prior():
    # with no colour term, at I = 20: 35 % elliptical, 50 % spiral (Benitez 2000)
    density = populations.type_and_redshift_density(20.0)
    groups = np.bincount(populations.GROUP, density.sum(axis=1))
    assert groups[1] > groups[0] > 0.15 and groups[2] < 0.35
    faint = np.bincount(populations.GROUP, populations.type_and_redshift_density(26.0).sum(axis=1))
    assert faint[0] < 0.03 and faint[2] > 0.75


def test_draws_of_one_type_have_its_templates_colours_at_their_redshift():
    table = galaxy_colours()
    at = np.searchsorted(table["redshift"], 1.0)
    g_r, r_z = populations.colours(np.full(N, 3), np.full(N, 1.0), np.full(N, 0.5), Z[:, :2])
    assert g_r.mean() == pytest.approx(table["g_r"][3, at], abs=0.01)
    assert r_z.mean() == pytest.approx(table["r_z"][3, at], abs=0.01)
    assert g_r.std() == pytest.approx(populations.COLOUR_SCATTER, rel=0.05)


def test_templates_redden_where_they_should():
    table = galaxy_colours()
    at = {z: np.searchsorted(table["redshift"], z) for z in (0.0, 0.45, 4.0)}
    assert table["r_z"][0, at[0.45]] > table["r_z"][0, at[0.0]] + 0.3  # the 4000 A break enters r
    assert (table["g_r"][:, at[4.0]] > 1).all()  # intergalactic hydrogen takes g away
    assert (np.diff(table["g_r"][[0, 1, 2, 3], at[0.45]]) < 0).all()  # from red to blue
    assert np.abs(table["k_r"][:, at[0.0]]).max() < 1e-6


def test_sizes_shapes_and_profiles_follow_their_relations():
    size = populations.half_light_radius(np.full(N, 24.5), Z[:, 0])
    assert np.median(size) == pytest.approx(0.209, rel=0.02)
    assert np.log10(size).std() == pytest.approx(0.17, rel=0.05)
    assert np.median(populations.half_light_radius(np.full(N, 26.0), Z[:, 0])) < np.median(size)
    q = populations.axis_ratio(U[:, 1])
    assert q.min() >= 0.2 and q.max() <= 1 and np.median(q) == pytest.approx(0.65, abs=0.02)
    assert np.median(populations.sersic_index(np.zeros(N), Z[:, 1])) == pytest.approx(3.5, rel=0.03)
    assert np.median(populations.sersic_index(np.full(N, 4), Z[:, 1])) == pytest.approx(1.1, rel=0.03)


@pytest.mark.real
def test_real_luminous_red_galaxies_have_the_dispersions_they_are_given(real_data):
    data = np.load(real_data / "real/des_lrg/des_lrg_grz.npz")
    y, x = np.mgrid[:91, :91] - 45
    sky = np.median(data["image"][:, :, np.hypot(x, y) > 38], axis=2)
    flux = (data["image"] - sky[:, :, None, None])[:, :, np.hypot(x, y) < 15].sum(axis=2)
    g, r, z = magnitude(flux).T
    redshift = redshift_of_colours(g - r, r - z, np.full(len(g), 0.5))
    found = host_mass.log_velocity_dispersion(host_mass.absolute_r(z, redshift))
    offset = np.log10(data["sigma_v_km_s"]) - found
    assert abs(np.median(offset)) < 0.03 and robust(offset) < 0.1


@pytest.mark.real
def test_real_faint_galaxies_have_such_colours_redshifts_and_sizes(real_data):
    from astropy.io import fits

    from darkhaloscope.sources.photometric_systems import decam_from_hsc

    table = fits.getdata(real_data / "hst/cosmos_f814w/real_galaxy_catalog_fits.fits")
    decam = decam_from_hsc({b: np.asarray(table[f"HSC_{b}"], float) for b in "grizy"})
    use = np.isfinite(decam["g"] + decam["r"] + decam["z"]) & (decam["r"] > 22) & (decam["r"] < 26.5)
    r, redshift = decam["r"][use], np.asarray(table["ZPHOT"], float)[use]
    n, repeats = use.sum(), N // use.sum()
    assert n > 55
    u, z = U[: n * repeats], Z[: n * repeats]
    kind, drawn = populations.draw_type_and_redshift(np.repeat(r, repeats), u[:, 0])
    assert np.median(drawn) == pytest.approx(np.median(redshift), abs=0.15)
    g_r, r_z = populations.colours(kind, drawn, u[:, 1], z[:, :2])
    real = np.stack([decam["g"] - decam["r"], decam["r"] - decam["z"]])[:, use]
    quantiles = (16, 50, 84)
    ours, theirs = np.percentile([g_r, r_z], quantiles, axis=1), np.percentile(real, quantiles, axis=1)
    print("colour quantiles", ours.round(2).tolist(), theirs.round(2).tolist())
    np.testing.assert_allclose(ours, theirs, atol=0.2)
    size = np.asarray(table["flux_radius"], float)[use] * 0.03
    found = populations.half_light_radius(np.repeat(r, repeats), z[:, 2])
    assert np.median(found) == pytest.approx(np.median(np.sqrt(size**2 - 0.075**2)), rel=0.1)
