"""Deflectors in lenstronomy's conventions; the Einstein radius is the circularised one."""

import numpy as np
import pytest

from darkhaloscope.lensing.deflectors import (
    shear_deflection,
    sie_convergence,
    sie_deflection,
    to_source_plane,
)

AXIS_RATIOS = [0.3, 0.5, 0.7, 0.9, 0.999, 1.0 - 1e-9]


@pytest.mark.parametrize("q", AXIS_RATIOS)
@pytest.mark.parametrize("phi", [0.0, 0.6, 2.9])
def test_deflection_is_lenstronomys(q, phi):
    lens_model = pytest.importorskip("lenstronomy.LensModel.lens_model")
    x, y = np.random.default_rng(1).uniform(-5, 5, (2, 500))
    e = (1 - q) / (1 + q)
    model = lens_model.LensModel(["SIE", "SHEAR"])
    theirs = model.ray_shooting(
        x,
        y,
        [
            {
                "theta_E": 1.3,
                "e1": e * np.cos(2 * phi),
                "e2": e * np.sin(2 * phi),
                "center_x": 0,
                "center_y": 0,
            },
            {"gamma1": 0.05 * np.cos(0.8), "gamma2": 0.05 * np.sin(0.8)},
        ],
    )
    ours = to_source_plane(x, y, 1.3, q, phi, 0.05, 0.4)
    assert np.abs(np.subtract(ours, theirs)).max() < 1e-9


def test_a_round_lens_deflects_by_its_einstein_radius():
    x, y = np.array([0.3, -2.0, 0.0, 1e-9]), np.array([0.4, 1.0, 5.0, 0.0])
    ax, ay = sie_deflection(x, y, 1.3, 1.0, 0.4)
    assert np.allclose(ax, 1.3 * x / np.hypot(x, y), atol=1e-12)
    assert np.allclose(ay, 1.3 * y / np.hypot(x, y), atol=1e-12)
    assert np.isfinite(sie_deflection(0.0, 0.0, 1.3, 1.0, 0.4)).all()


@pytest.mark.parametrize("q", [0.3, 0.5, 0.7, 0.9, 0.999, 1.0])
def test_mean_convergence_inside_the_einstein_ellipse_is_one(q):
    """From the convergence itself and, by Gauss's theorem, from the deflection: both hold the sqrt(q)."""
    theta_e, phi, n = 1.4, 0.5, 4000
    t = (np.arange(n) + 0.5) * 2 * np.pi / n
    along, across = theta_e / np.sqrt(q) * np.cos(t), theta_e * np.sqrt(q) * np.sin(t)
    turn = np.array([[np.cos(phi), -np.sin(phi)], [np.sin(phi), np.cos(phi)]])
    x, y = turn @ [along, across]
    # kappa falls as 1/R along a ray from the centre: its mean over the ellipse is twice its value on the rim
    assert 2 * sie_convergence(x, y, theta_e, q, phi).mean() == pytest.approx(1.0, abs=1e-6)
    normal = turn @ [theta_e * np.sqrt(q) * np.cos(t), theta_e / np.sqrt(q) * np.sin(t)]  # times dt
    flux = (np.asarray(sie_deflection(x, y, theta_e, q, phi)) * normal).sum() * 2 * np.pi / n
    assert flux / (2 * np.pi * theta_e**2) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("q", [0.4, 0.8, 1.0])
def test_the_critical_curve_encloses_pi_theta_e_squared(q):
    # tangential critical curve of an SIE: kappa = 1/2
    t = np.linspace(0, 2 * np.pi, 20001)[:-1]
    radius = 2 * 1.3 * sie_convergence(np.cos(t), np.sin(t), 1.0, q, 0.3)
    assert 0.5 * (radius**2).mean() * 2 * np.pi == pytest.approx(np.pi * 1.3**2, rel=1e-6)


def test_shear_stretches_images_along_its_angle():
    ax, ay = shear_deflection(1.0, 0.0, 0.1, 0.0)
    assert (ax, ay) == (pytest.approx(0.1), pytest.approx(0.0))
    along, _ = to_source_plane(1.0, 0.0, 0.0, 1.0, 0.0, 0.1, 0.0)
    _, across = to_source_plane(0.0, 1.0, 0.0, 1.0, 0.0, 0.1, 0.0)
    assert along < 1 < across  # a source-plane unit is a longer image along the shear
