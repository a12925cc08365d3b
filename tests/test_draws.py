import numpy as np
from scipy import stats

from darkhaloscope.draws import digest, normals, uniforms

IDS = [digest("test", i) for i in range(3000)]


def test_a_draw_depends_on_its_id_stream_and_column_alone():
    together = uniforms(IDS[:10], 3, 8)
    assert np.array_equal(together[4:5], uniforms(IDS[4:5], 3, 8))
    assert np.array_equal(together[:, :2], uniforms(IDS[:10], 3, 2))
    assert not np.array_equal(together, uniforms(IDS[:10], 4, 8))


def test_golden_draws_are_the_same_on_every_machine():
    assert digest("a", 1, 0.5) == "5974eae8ff74dc680282564fcdd874e2"
    assert uniforms(["000102030405060708090a0b0c0d0e0f"], 1, 2)[0].tolist() == [
        0.5317513344295838,
        0.9640516878489852,
    ]


def test_draws_are_uniform_open_and_independent():
    u = uniforms(IDS, 0, 4)
    assert u.min() > 0 and u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.08


def test_normals_are_normal():
    assert stats.kstest(normals(IDS, 0, 4).ravel(), "norm").pvalue > 1e-3


def test_digest_tells_apart_values_and_types():
    assert len({digest(1), digest("1"), digest(1.0), digest(1, 2), digest((1, 2))}) == 5
