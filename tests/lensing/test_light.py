"""Sersic profiles: the half-light radius is exact and the total flux is the flux."""

import numpy as np
import pytest
from scipy.integrate import quad

from darkhaloscope.lensing.light import elliptical_radius, sersic_bn, sersic_surface_brightness


@pytest.mark.parametrize("n", [0.5, 1.0, 2.5, 4.0, 6.0])
def test_half_the_light_is_inside_the_half_light_radius(n):
    def ring(r):
        return 2 * np.pi * r * float(sersic_surface_brightness(r, 0.0, 1.0, 0.3, 1.0, 0.0, n))

    inside = quad(ring, 0, 0.3, epsabs=1e-12)[0]
    outside = quad(lambda t: ring(0.3 * np.exp(t)) * 0.3 * np.exp(t), 0, 20, epsabs=1e-12, limit=200)[0]
    assert inside == pytest.approx(0.5, abs=1e-8)
    assert inside + outside == pytest.approx(1.0, abs=1e-8)


def test_bn_is_not_the_straight_line():
    n = np.array([0.5, 1.0])
    radius = (sersic_bn(n) / (1.9992 * n - 0.3271)) ** n  # radius error of the line
    assert np.all(abs(radius - 1) > 0.003)


def test_profile_is_galsims():
    galsim = pytest.importorskip("galsim")
    galaxy = galsim.Sersic(2.0, half_light_radius=0.3, flux=5.0).shear(q=0.5, beta=0.7 * galsim.radians)
    for x, y in [(0.1, 0.2), (-0.4, 0.05), (0.3, 0.9)]:
        ours = sersic_surface_brightness(x, y, 5.0, 0.3, 0.5, 0.7, 2.0)
        assert ours == pytest.approx(galaxy.xValue(x, y), rel=1e-4)


def test_the_ellipse_of_radius_r_has_area_pi_r_squared():
    q, phi = 0.4, 0.3
    major = 1.0 / np.sqrt(q)
    assert elliptical_radius(major * np.cos(phi), major * np.sin(phi), q, phi) == pytest.approx(1.0)
    minor = np.sqrt(q)
    assert elliptical_radius(-minor * np.sin(phi), minor * np.cos(phi), q, phi) == pytest.approx(1.0)
