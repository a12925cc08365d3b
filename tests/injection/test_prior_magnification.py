"""Magnifications of point sources: the round lens, lenstronomy, the caustics, and rejection that is repeatable."""

import numpy as np
import pytest

from darkhaloscope.draws import digest
from darkhaloscope.injection.magnification import Lenses, point_magnification, reach, tangential_caustic
from darkhaloscope.injection.rejection import BLOCK, ROUNDS, TRIES, first_accepted

RNG = np.random.default_rng(11)


def lenses(n):
    shear = np.minimum(0.05 * 10 ** (0.2 * RNG.standard_normal(n)), 0.2)
    return RNG.uniform(0.3, 1, n), RNG.uniform(0, np.pi, n), shear, RNG.uniform(0, np.pi, n)


def test_a_round_lens_magnifies_as_the_textbook_says():
    x = np.array([[0.05, 0.3, 0.7, 0.95, 1.2, 3.0]])
    magnification, images = point_magnification(Lenses.of(*([v] for v in (1.0, 0.0, 0.0, 0.0))), x, 0.3 * x)
    beta = x * np.hypot(1, 0.3)
    np.testing.assert_allclose(magnification, np.where(beta < 1, 2 / beta, 1 + 1 / beta), rtol=1e-4)
    assert images.tolist() == [[2, 2, 2, 2, 1, 1]]


def test_magnifications_and_image_numbers_are_lenstronomys():
    pytest.importorskip("lenstronomy")
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
    from lenstronomy.Util.param_util import phi_q2_ellipticity, shear_polar2cartesian

    n = 12
    shape = lenses(n)
    x, y = RNG.uniform(-0.5, 0.5, (2, n, 1))
    magnification, images = point_magnification(Lenses.of(*shape), x, y)
    model = LensModel(["SIE", "SHEAR"])
    solver = LensEquationSolver(model)
    agree = 0
    for i, (q, phi, shear, shear_phi) in enumerate(zip(*shape, strict=True)):
        e1, e2 = phi_q2_ellipticity(phi, q)
        g1, g2 = shear_polar2cartesian(shear_phi, shear)
        settings = [{"theta_E": 1.0, "e1": e1, "e2": e2}, {"gamma1": g1, "gamma2": g2}]
        found = solver.image_position_from_source(
            x[i, 0], y[i, 0], settings, search_window=6, min_distance=0.02, solver="lenstronomy"
        )
        expected = np.abs(model.magnification(*found, settings))
        expected = expected[expected > 1e-3]  # not the one in the centre
        near_caustic = expected.max() > 20
        if not near_caustic:
            assert magnification[i, 0] == pytest.approx(expected.sum(), rel=5e-3)
            assert images[i, 0] == len(expected)
            agree += 1
    assert agree >= 8


def test_two_images_are_gained_inside_the_caustic():
    shape = lenses(50)
    table = Lenses.of(*shape)
    x, y = tangential_caustic(table)
    just = [point_magnification(table, f * x[:, 10:11], f * y[:, 10:11])[1][:, 0] for f in (0.9, 1.1)]
    assert ((just[0] - just[1]) == 2).mean() > 0.9


def test_no_source_beyond_reach_has_two_images():
    shape = lenses(60)
    table = Lenses.of(*shape)
    angle = np.linspace(0, 2 * np.pi, 40)
    at = reach(table)[:, None]
    _, images = point_magnification(table, 1.01 * at * np.cos(angle), 1.01 * at * np.sin(angle))
    assert (images == 1).all()
    _, inside = point_magnification(table, 0.5 * at * np.cos(angle), 0.5 * at * np.sin(angle))
    assert (inside >= 2).mean() > 0.9


def uniform_squares(limit):
    def propose(rows, u):
        return u, u[..., 0] < limit, -u[..., 0]

    return propose


def test_rejection_depends_on_the_row_alone():
    ids = [digest("rejection", i) for i in range(BLOCK + 30)]
    values, accepted = first_accepted(ids, 50, 2, uniform_squares(0.1))
    assert accepted.all() and values[:, 0].max() < 0.1
    assert np.median(values[:, 1]) == pytest.approx(0.5, abs=0.06)
    some = [BLOCK + 5, 3, 200]
    again, _ = first_accepted([ids[i] for i in some], 50, 2, uniform_squares(0.1))
    np.testing.assert_array_equal(again, values[some])
    other, _ = first_accepted(ids[:4], 51 + ROUNDS, 2, uniform_squares(0.1))
    assert not np.isin(other, values).any()


def test_where_nothing_is_accepted_the_best_is_kept_after_a_bounded_number_of_tries():
    ids = [digest("rejection", i) for i in range(3)]
    values, accepted = first_accepted(ids, 50, 1, uniform_squares(0.0))
    assert not accepted.any()
    assert (values[:, 0] < 6 / (TRIES * ROUNDS)).all()
    assert first_accepted([], 50, 2, uniform_squares(0.1))[0].shape == (0, 2)
